import { Command, type CommanderError } from "commander";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { claimInstance } from "../../src/cli/instance.ts";
import { registerProjections } from "../../src/cli/projections.ts";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { startTestApp, type TestApp } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
beforeEach(async () => {
  folder = await temporaryFolder();
  vi.stubEnv("NODE_ENV", "development");
  vi.stubEnv("DATA_DIR", folder.path);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  process.exitCode = undefined;
  await folder[Symbol.asyncDispose]();
});

describe("ordertrail projections", () => {
  it("lists, rebuilds and verifies the projections of the running instance", async () => {
    await using app = await startInstance();
    await submitOrder(app, "one");

    await eventually(async () => {
      const { out } = await projections("list", "--json");
      expect(JSON.parse(out)).toMatchObject({
        projections: [
          { name: "order_tracking", position: "1", behind: "0", rebuilding: false, last_error: "" },
          { name: "deadlines", position: "1", behind: "0", rebuilding: false, last_error: "" },
          { name: "notification_logs", position: "1", behind: "0", rebuilding: false, last_error: "" },
          { name: "notification_preferences", position: "1", behind: "0", rebuilding: false, last_error: "" },
          { name: "push_tokens", position: "1", behind: "0", rebuilding: false, last_error: "" },
          { name: "audit_tree", position: "1", behind: "0", rebuilding: false, last_error: "" },
        ],
      });
    });
    expect((await projections("list")).out).toMatch(
      /^projection +position +behind .*\norder_tracking +1 +0 +20\S+Z +\S+ +running\n(?:(?:deadlines|notification_logs|notification_preferences|push_tokens) .* running\n){4}audit_tree .* running\n\nThe log's newest position is 1\.\n$/,
    );

    expect(await projections("rebuild", "order_tracking")).toEqual({
      out: "rebuilt order_tracking, up to position 1\n",
      err: "",
      exitCode: 0,
    });
    const lines = (await projections("rebuild", "order_tracking", "--json")).out.trimEnd().split("\n");
    expect(JSON.parse(lines.at(-1) ?? "")).toEqual({ position: "1", target: "1", done: true });

    const fine = await projections("verify", "order_tracking");
    expect(fine).toEqual({ out: "order_tracking: 1 documents checked, 0 differ from the log\n", err: "", exitCode: 0 });
  });

  it("exits with 1 and names what differs when a projection is not what the log says", async () => {
    await using app = await startInstance();
    await submitOrder(app, "one");
    const orders = app.database.db(app.databaseName).collection("order_tracking");
    await eventually(async () =>
      expect((await orders.updateOne({ order_id: "one" }, { $set: { store_id: "other" } })).modifiedCount).toBe(1),
    );
    const { out, exitCode } = await projections("verify", "order_tracking");
    expect(out).toBe("one is different at store_id\norder_tracking: 1 documents checked, 1 differ from the log\n");
    expect(exitCode).toBe(1);
    const last = (await projections("verify", "order_tracking", "--json")).out.trimEnd().split("\n").at(-1) ?? "";
    expect(JSON.parse(last)).toEqual({ checked: "1", different: "1", done: true });
  });

  it("says what is wrong with a name that no projection has", async () => {
    await using app = await startInstance();
    expect(app.grpc).not.toBe("");
    const { err, exitCode } = await projections("rebuild", "nonsense");
    expect(err).toBe(
      "error: there is no projection nonsense; there are order_tracking, deadlines, notification_logs, notification_preferences, push_tokens, audit_tree\n",
    );
    expect(exitCode).toBe(1);
    expect((await projections("verify", "audit_tree")).err).toContain("AuditService.VerifyLog verifies it");
  });

  it("rebuilds the log's tree", async () => {
    await using app = await startInstance();
    await submitOrder(app, "one");
    await eventually(async () => expect(await app.database.db(app.databaseName).collection("audit_tiles").countDocuments()).toBe(1));
    const tiles = app.database.db(app.databaseName).collection<{ _id: string; width: number }>("audit_tiles");
    await tiles.updateOne({ _id: "0/0" }, { $set: { width: 200 } });
    expect(await projections("rebuild", "audit_tree")).toEqual({ out: "rebuilt audit_tree, up to position 1\n", err: "", exitCode: 0 });
    expect(await tiles.findOne({ _id: "0/0" })).toMatchObject({ width: 1 });
  });

  it("exits with 3 when no instance is running", async () => {
    const { err, exitCode } = await projections("list");
    expect(err).toBe(`error: no instance runs with the data in ${folder.path}: npm start\n`);
    expect(exitCode).toBe(3);
  });
});

/** The application, entered in DATA_DIR as the running instance. */
async function startInstance(): Promise<TestApp> {
  const app = await startTestApp({ DATA_DIR: folder.path });
  const lock = await claimInstance(folder.path);
  await lock.publish({ grpc: app.grpc, http: app.http, mongodb: "", nats: "" });
  return app;
}

async function submitOrder(app: TestApp, orderId: string): Promise<void> {
  const client = app.client(OrderTrackingService, "grpc", { role: Role.SERVICE, subject: "checkout" });
  await client.initTracking({ orderId, storeId: "s", customerId: "c" });
}

/** Runs `ordertrail projections` with these arguments. */
async function projections(...args: string[]): Promise<{ out: string; err: string; exitCode: number }> {
  let out = "";
  let err = "";
  process.exitCode = 0;
  const program = new Command().exitOverride().configureOutput({ writeOut: (text) => (out += text), writeErr: (text) => (err += text) });
  registerProjections(program);
  const thrown = await program.parseAsync(["projections", ...args], { from: "user" }).then(
    () => undefined,
    (error: CommanderError) => error.exitCode,
  );
  return { out, err, exitCode: thrown ?? Number(process.exitCode) };
}
