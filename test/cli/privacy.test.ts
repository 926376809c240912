import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { Command, type CommanderError } from "commander";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { claimInstance } from "../../src/cli/instance.ts";
import { registerKeys } from "../../src/cli/keys.ts";
import { registerPrivacy } from "../../src/cli/privacy.ts";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { readMasterKeys } from "../../src/privacy/master-key.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
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

describe("ordertrail privacy", () => {
  it("exports all that is held on a customer as one JSON object, to the output or a file of the owner's only", async () => {
    await using app = await startInstance();
    for (const orderId of ["one", "two"]) await submitOrder(app, orderId);
    const shown = await run("privacy", "export", "ada");
    expect(shown).toMatchObject({ err: "", exitCode: 0 });
    expect(JSON.parse(shown.out)).toMatchObject({
      customer_id: "ada",
      orders: [
        {
          order: { order_id: "two", current_status: "SUBMITTED", recipient: { name: "Ada Example" } },
          events: [{ type: "OrderSubmitted" }],
        },
        { order: { order_id: "one" } },
      ],
      erasure: null,
    });
    const path = join(folder.path, "ada.json");
    expect(await run("privacy", "export", "ada", "-o", path)).toEqual({ out: "", err: "", exitCode: 0 });
    expect(JSON.parse(await readFile(path, "utf8"))).toEqual(JSON.parse(shown.out));
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(JSON.parse((await run("privacy", "export", "nobody")).out)).toEqual({ customer_id: "nobody", orders: [], erasure: null });
  });

  it("refuses to erase a customer with orders under way, then erases them all the same, and shows the receipt again", async () => {
    await using app = await startInstance();
    await submitOrder(app, "one");
    const refused = await run("privacy", "erase", "ada");
    expect(refused).toMatchObject({ out: "", exitCode: 1 });
    expect(refused.err).toContain("orders under way (one)");
    const first = await run("privacy", "erase", "ada", "--include-orders-under-way");
    expect(first).toMatchObject({ err: "", exitCode: 0 });
    expect(first.out).toMatch(
      /^customer ada is erased\n {2}asked for {2}20\S+ by command-line\n.*entry 2 of the log\n {2}keys {7}1 destroyed\n/,
    );
    expect(await run("privacy", "erase", "ada")).toEqual(first);
    const receipt = JSON.parse((await run("privacy", "erase", "ada", "--json")).out);
    expect(receipt).toMatchObject({ customer_id: "ada", position: "2", requested_by: { role: "OPERATOR" }, orders: "1" });
    expect(JSON.parse((await run("privacy", "export", "ada")).out).erasure).toEqual(receipt);
  });

  it("exits with 3 when no instance is running, and 1 for what is no customer_id", async () => {
    expect(await run("privacy", "erase", "ada")).toMatchObject({ exitCode: 3 });
    await using app = await startInstance();
    expect(app.grpc).not.toBe("");
    expect(await run("privacy", "erase", "a b")).toMatchObject({ exitCode: 1, err: expect.stringContaining("customer_id") });
  });
});

describe("ordertrail keys", () => {
  it("adds a master key and wraps all personal keys, and those that sign tokens, under it while the instance runs", async () => {
    await using app = await startInstance();
    await (await fetch(`${app.http}/.well-known/jwks.json`)).body?.cancel();
    await submitOrder(app, "one");
    const file = join(folder.path, "keys", "master.key");
    const before = await readMasterKeys(file);
    const added = await run("keys", "add");
    const after = await readMasterKeys(file);
    expect(added).toMatchObject({ exitCode: 0, out: expect.stringContaining(`master key ${after.newest.id} is first in ${file}`) });
    expect([...after.byId.keys()]).toEqual([after.newest.id, before.newest.id]);

    const signing = app.database.db(app.databaseName).collection("auth_signing_keys");
    const wrappedUnder = () => signing.distinct("master_key_id");
    expect(await wrappedUnder()).toEqual([before.newest.id]);
    expect(await run("keys", "rotate")).toMatchObject({
      exitCode: 0,
      out: expect.stringContaining(`1 personal keys wrapped anew under master key ${after.newest.id}, 0 left`),
    });
    expect(await wrappedUnder()).toEqual([after.newest.id]);
    const last = (await run("keys", "rotate", "--json")).out.trimEnd().split("\n").at(-1) ?? "";
    expect(JSON.parse(last)).toEqual({ master_key_id: after.newest.id, rewrapped: "0", left: [], done: true });
    const tracking = app.client(OrderTrackingService, "grpc", { role: Role.SERVICE, subject: "checkout" });
    expect((await tracking.getTracking({ orderId: "one" })).order?.recipient).toMatchObject({ name: "Ada Example" });
  });

  it("exits with 1 when keys are left, and says under which master key", async () => {
    await using app = await startInstance();
    await submitOrder(app, "one");
    const keys = app.database.db(app.databaseName).collection("personal_keys");
    await keys.updateMany({}, { $set: { master_key_id: "0123456789abcdef" } });
    const { out, exitCode } = await run("keys", "rotate");
    expect(exitCode).toBe(1);
    expect(out).toContain("1 under master key 0123456789abcdef");
  });

  it("says what to do when the master keys are not in a file", async () => {
    vi.stubEnv("MASTER_KEYS", Buffer.alloc(32, 1).toString("base64"));
    expect(await run("keys", "add")).toMatchObject({ exitCode: 1, err: expect.stringContaining("MASTER_KEYS") });
    vi.stubEnv("MASTER_KEYS", "");
    expect(await run("keys", "rotate")).toMatchObject({ exitCode: 3 });
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
  await client.initTracking({ orderId, storeId: "s", customerId: "ada", recipient: { name: "Ada Example" } });
}

/** Runs `ordertrail` with these arguments. */
async function run(...args: string[]): Promise<{ out: string; err: string; exitCode: number }> {
  let out = "";
  let err = "";
  process.exitCode = 0;
  const program = new Command().exitOverride().configureOutput({ writeOut: (text) => (out += text), writeErr: (text) => (err += text) });
  for (const register of [registerPrivacy, registerKeys]) register(program);
  const thrown = await program.parseAsync(args, { from: "user" }).then(
    () => undefined,
    (error: CommanderError) => error.exitCode,
  );
  return { out, err, exitCode: thrown ?? Number(process.exitCode) };
}
