import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { appendFile, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { claimInstance } from "../../src/cli/instance.ts";
import { OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { startTestApp, type TestApp } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

/** A running instance with two orders of three entries each, and the command. */
async function commandWithOrders() {
  await using parts = new AsyncDisposableStack();
  const folder = parts.use(await temporaryFolder());
  const app = parts.use(await startTestApp({ DATA_DIR: folder.path }));
  const lock = await claimInstance(folder.path);
  await lock.publish({ grpc: app.grpc, http: app.http, mongodb: "", nats: "" });
  for (const orderId of ["a", "b"]) await advance(app, orderId);
  const env = { DATA_DIR: folder.path, DATABASE_NAME: "shop" };
  const run = (...args: string[]) =>
    new Promise<{ code: number; out: string; err: string }>((resolve) => {
      execFile(process.execPath, [MAIN, "audit", ...args], { env }, (error, out, err) =>
        resolve({ code: error ? Number(error.code) : 0, out, err }),
      );
    });
  const running = parts.move();
  return { app, env, run, path: (name: string) => join(folder.path, name), [Symbol.asyncDispose]: () => running.disposeAsync() };
}

async function advance(app: TestApp, orderId: string): Promise<void> {
  const tracking = app.client(OrderTrackingService, "grpc", { role: Role.SERVICE, subject: "checkout" });
  await tracking.initTracking({ orderId, storeId: "s", customerId: "c", recipient: { name: "Ada Example" } });
  await tracking.updateStatus({ orderId, status: OrderStatus.STORE_NOTIFIED });
  await tracking.cancelOrder({ orderId, reason: "changed my mind" });
}

const linesOf = (out: string) =>
  out
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));

describe("audit replay", () => {
  it("shows an order's life up to a time or version, for people and for programs", async () => {
    await using command = await commandWithOrders();
    const { code, out } = await command.run("replay", "a", "--as-of", "2");
    expect(code).toBe(0);
    expect(out).toContain("OrderSubmitted");
    expect(out).toContain("order a was then STORE_NOTIFIED, at version 2");
    const messages = linesOf((await command.run("replay", "a", "--as-of", new Date().toISOString(), "--json")).out);
    expect(messages.map(({ type }) => type)).toEqual(["OrderSubmitted", "StoreNotified", "OrderCancelled"]);
    expect(messages[2].order.current_status).toBe("ORDER_STATUS_CANCELLED");
    expect(await command.run("replay", "a", "--as-of", "2001-01-01")).toMatchObject({
      code: 1,
      out: "",
      err: expect.stringContaining("no order a at that time"),
    });
    expect(await command.run("replay", "none")).toMatchObject({ code: 1, out: "" });
    expect(await command.run("replay", "a", "--as-of", "yesterday")).toMatchObject({ code: 2 });
  });
});

describe("audit explain", () => {
  it("shows who did what, from where, and through which door", async () => {
    await using command = await commandWithOrders();
    const { code, out } = await command.run("explain", "b");
    expect(code).toBe(0);
    expect(out.split("\n")[3]).toMatch(/^3 .*Z +service checkout +127\.0\.0\.1 +GRPC +CancelOrder +OrderCancelled → CANCELLED$/);
    expect(linesOf((await command.run("explain", "b", "--json")).out)).toHaveLength(3);
    expect(await command.run("explain", "none")).toMatchObject({ code: 1, out: "" });
  });
});

/** What CloudEvents 1.0 and its JSON format demand of an event. */
function expectCloudEvent(event: { readonly [attribute: string]: unknown }): void {
  for (const required of ["id", "source", "type"]) expect(event[required]).toMatch(/./);
  expect(event["specversion"]).toBe("1.0");
  expect(event["time"]).toMatch(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$/);
  expect(event["datacontenttype"]).toBe("application/json");
  for (const [name, value] of Object.entries(event)) {
    expect(name).toMatch(/^[a-z0-9]{1,20}$/);
    if (name === "data") continue;
    expect(["string", "number", "boolean"]).toContain(typeof value);
    if (typeof value === "number") expect(Number.isInteger(value) && Math.abs(value) < 2 ** 31).toBe(true);
    expect(value).not.toBe("");
  }
}

describe("audit export", () => {
  it("writes CloudEvents, one a line, within the range asked for", async () => {
    await using command = await commandWithOrders();
    const { code, out, err } = await command.run("export");
    expect(code).toBe(0);
    expect(err).toBe("6 events written, up to position 6\n");
    const events = linesOf(out);
    for (const event of events) expectCloudEvent(event);
    expect(new Set(events.map(({ source, id }) => `${source} ${id}`)).size).toBe(6);
    expect(events[5]).toMatchObject({
      id: "6.0",
      source: "/ordertrail/shop",
      type: "ordertrail.events.v1.OrderCancelled",
      subject: "order-b",
      sequence: "0000000000000000006",
      streamversion: 3,
      actorrole: "service",
      actorsubject: "checkout",
      door: "grpc",
      address: "127.0.0.1",
      data: { order_cancelled: { reason: "changed my mind" } },
    });
    expect(out).not.toContain("Ada Example");
    const ids = async (...args: string[]) => linesOf((await command.run("export", ...args)).out).map(({ id }) => id);
    expect(await ids("--from", "2", "--to", "4")).toEqual(["2.0", "3.0", "4.0"]);
    expect(await ids("--after", "4")).toEqual(["5.0", "6.0"]);
    expect(await ids("--from", events[0].time, "--to", "2099-01-01")).toHaveLength(6);
    expect(await ids("--to", events[0].time)).toEqual([]);
    expect(await ids("--type", "OrderCancelled")).toEqual(["3.0", "6.0"]);
    expect(await ids("--order", "b")).toEqual(["4.0", "5.0", "6.0"]);
    expect((await command.run("export", "--follow", "--to", "3")).code).toBe(2);
  });

  it("goes on with a file where it was broken off, and makes the same bytes", async () => {
    await using command = await commandWithOrders();
    const whole = (await command.run("export")).out;
    const file = command.path("export.ndjson");
    expect((await command.run("export", "--output", file)).code).toBe(0);
    for (const keep of [0, 1, 500, whole.length - 1, whole.length]) {
      await truncate(file, 0);
      await appendFile(file, whole.slice(0, keep));
      expect((await command.run("export", "--output", file)).code).toBe(0);
      expect(await readFile(file, "utf8")).toBe(whole);
    }
    await writeFile(file, "something else\n");
    expect(await command.run("export", "--output", file)).toMatchObject({ code: 1, err: expect.stringContaining("is not an export") });
    expect(await readFile(file, "utf8")).toBe("something else\n");
  });

  it("follows until it is interrupted", async () => {
    await using command = await commandWithOrders();
    const child = spawn(process.execPath, [MAIN, "audit", "export", "--follow"], { env: command.env });
    const ended = once(child, "close");
    let out = "";
    child.stdout.on("data", (chunk) => {
      out += chunk;
    });
    await eventually(() => expect(linesOf(out)).toHaveLength(6));
    await advance(command.app, "c");
    await eventually(() => expect(linesOf(out)).toHaveLength(9));
    child.kill("SIGINT");
    expect((await ended)[0]).toBe(0);
  });
});
