import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { claimInstance } from "../../src/cli/instance.ts";
import { OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { startTestApp, type TestApp } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

const commands = (app: TestApp) => app.client(OrderTrackingService, "grpc", { role: Role.SERVICE, subject: "checkout" });

/** The command, and what it has written so far. */
function run(dataDir: string, ...args: string[]) {
  const child = spawn(process.execPath, [MAIN, "watch", ...args], { env: { DATA_DIR: dataDir } });
  const lines: string[] = [];
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => lines.push(...chunk.split("\n").filter((line) => line !== "")));
  const errors = text(child.stderr);
  const ended = once(child, "close").then(async ([code]) => ({ code, errors: await errors }));
  return { lines, ended };
}

describe("ordertrail watch", () => {
  it("shows an order as it changes, and goes on where it was when the instance has been started anew", async () => {
    await using folder = await temporaryFolder();
    const database = `watch_${process.pid}_${Date.now()}`;
    const environment = { DATA_DIR: folder.path, DATABASE_NAME: database };
    const lock = await claimInstance(folder.path);
    // The first to end drops the database, so it is kept to the last.
    await using kept = await startTestApp(environment);
    const first = await startTestApp({ ...environment, DATABASE_NAME: database });
    await commands(kept).initTracking({ orderId: "order-1", storeId: "s", customerId: "c" });
    await lock.publish({ grpc: first.grpc, http: first.http, mongodb: "", nats: "" });
    const people = run(folder.path, "order-1");
    const programs = run(folder.path, "order-1", "--json", "--from", "0");
    await eventually(() => expect([people.lines.length, programs.lines.length]).toEqual([1, 1]));
    await commands(kept).updateStatus({ orderId: "order-1", status: OrderStatus.STORE_NOTIFIED });
    await eventually(() => expect([people.lines.length, programs.lines.length]).toEqual([2, 2]));

    await first.stop();
    await commands(kept).updateStatus({ orderId: "order-1", status: OrderStatus.STORE_ACKNOWLEDGED });
    await lock.publish({ grpc: kept.grpc, http: kept.http, mongodb: "", nats: "" });
    await commands(kept).cancelOrder({ orderId: "order-1", reason: "sold out" });
    expect(await people.ended).toMatchObject({ code: 0, errors: expect.stringContaining("the server is shutting down") });
    expect((await programs.ended).code).toBe(0);
    expect(
      people.lines.map((line) =>
        line
          .split(/ {2,}/)
          .slice(1)
          .map((part) => part.trim()),
      ),
    ).toEqual([
      ["1", "SUBMITTED", "as it stands"],
      ["2", "STORE_NOTIFIED", "StoreNotified"],
      ["3", "STORE_ACKNOWLEDGED", "StoreAcknowledged"],
      ["4", "CANCELLED", "OrderCancelled"],
    ]);
    expect(programs.lines.map((line) => JSON.parse(line)).map(({ event_types, order }) => [event_types, order.version])).toEqual([
      [["OrderSubmitted"], 1],
      [["StoreNotified"], 2],
      [["StoreAcknowledged"], 3],
      [["OrderCancelled"], 4],
    ]);
  });

  it("tells that there is no such order", async () => {
    await using folder = await temporaryFolder();
    await using app = await startTestApp({ DATA_DIR: folder.path });
    const lock = await claimInstance(folder.path);
    await lock.publish({ grpc: app.grpc, http: app.http, mongodb: "", nats: "" });
    expect(await run(folder.path, "none").ended).toEqual({ code: 1, errors: "error: there is no order none that you may see\n" });
    expect(await run(folder.path, "none", "--from", "x").ended).toMatchObject({ code: 2 });
  });
});
