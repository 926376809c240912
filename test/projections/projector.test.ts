import { Binary, type Db, Long } from "mongodb";
import { describe, expect, it } from "vitest";
import type { LogReader } from "../../src/log/reader.ts";
import { type CheckpointDocument, checkpointsOf } from "../../src/projections/checkpoint.ts";
import { acquireLease, LeaseLost } from "../../src/projections/lease.ts";
import { eventually } from "../support/eventually.ts";
import { anEntry, type TestLog, testLog } from "../support/log.ts";
import { createOrderWriter, folded, orderIds, orderTracking, projected, projectorOf, soon } from "./orders.ts";

const NAME = "order_tracking";

describe("a projector", () => {
  it("projects what the log says of every order", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    await using projector = projectorOf(log);
    await orders.appendLives(orderIds("before", 30));
    projector.start();
    const position = await orders.appendLives(orderIds("after", 30), 6);
    await projector.waitFor(NAME, position, soon());
    expect(await projected(log.db)).toEqual(await folded(log.reader));
  });

  it("creates the indexes that readers rely on", async () => {
    await using log = await testLog();
    await using projector = projectorOf(log);
    projector.start();
    const indexes = await eventually(async () => {
      const found = await log.db.collection(NAME).indexes();
      expect(found.length).toBeGreaterThan(6);
      return found;
    });
    expect(indexes.find(({ key }) => JSON.stringify(key) === '{"order_id":1}')?.unique).toBe(true);
    for (const field of ["store_id", "customer_id", "current_status", "delivery_provider", "created_at"]) {
      expect(indexes.map(({ key }) => JSON.stringify(key))).toContain(JSON.stringify({ [field]: 1 }));
    }
  });

  it("changes nothing when it applies entries again", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    const position = await orders.appendLives(orderIds("o", 20), 7);
    await runOnce(log, position);
    const before = await log.db.collection(NAME).find().toArray();
    await setPosition(log.db, 30);
    await runOnce(log, position);
    expect(await log.db.collection(NAME).find().toArray()).toEqual(before);
  });

  it("moves on over entries that do not concern it", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    await using projector = projectorOf(log);
    projector.start();
    await orders.append("one");
    let position = 0;
    for (let version = 1; version <= 20; version++) position = await log.appender.append(anEntry("store-1", version));
    await projector.waitFor(NAME, position, soon());
    expect((await projected(log.db)).map(({ order_id }) => order_id)).toEqual(["one"]);
  });

  it("makes good what is missing of an order that goes on", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    await runOnce(log, await orders.appendLives(["gone", "stays"], 3));
    await log.db.collection(NAME).deleteOne({ order_id: "gone" });
    await runOnce(log, await orders.appendLives(["next"]));
    await orders.append("gone", { type: "CancelOrder", reason: "late" });
    await runOnce(log, await log.reader.head());
    expect(await projected(log.db)).toEqual(await folded(log.reader));
  });

  it("makes the collection anew when it has been dropped", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    await runOnce(log, await orders.appendLives(orderIds("o", 10)));
    await log.db.collection(NAME).drop();
    await runOnce(log, await orders.append("one more"));
    expect(await projected(log.db)).toEqual(await folded(log.reader));
  });

  it("tells how far it is, and who runs it", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    await using projector = projectorOf(log);
    expect(await projector.states()).toEqual([{ name: NAME, position: 0, runner: "", rebuilding: false, lastError: "" }]);
    projector.start();
    const position = await orders.append("one");
    await projector.waitFor(NAME, position, soon());
    const [state] = await projector.states();
    expect(state).toMatchObject({ name: NAME, position, rebuilding: false, lastError: "", progressedAt: expect.any(Date) });
    expect(state?.runner).toContain(`:${process.pid}:`);
  });
});

describe("an entry that cannot be applied", () => {
  it("is not skipped: all before it are applied, and the reason is shown, until it can be", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    const before = await orders.appendLives(orderIds("o", 20));
    const bad = await log.appender.append(anEntry("order-bad", 1));
    const after = await orders.append("after");
    // In another process than that which has appended them, and remembers them as they were.
    await using projector = projectorOf(log.join());
    projector.start();
    await eventually(async () => {
      const [state] = await projector.states();
      expect(state).toMatchObject({
        position: before,
        lastError: expect.stringContaining(`position ${bad}`),
        runner: expect.stringContaining(":"),
      });
    });
    expect((await projected(log.db)).length).toBe(20);

    const { entry } = (await log.reader.readStream("order-after", 0))[0] ?? {};
    const repaired = await log.db.collection<{ _id: Long; body: Binary }>("events").findOne({ _id: Long.fromNumber(after) });
    expect(entry?.version).toBe(1);
    await log.db
      .collection<{ _id: Long }>("events")
      .updateOne({ _id: Long.fromNumber(bad) }, { $set: { stream: "other", body: withoutOrder(repaired?.body) } });
    await projector.waitFor(NAME, after, soon());
    expect((await projector.states())[0]?.lastError).toBe("");
  });

  it("is tried again with pauses, not in a spin", async () => {
    await using log = await testLog();
    await log.appender.append(anEntry("order-bad", 1));
    let reads = 0;
    const reader: LogReader = {
      ...log.reader,
      follow: (options) => {
        reads++;
        return log.reader.follow(options);
      },
    };
    await using projector = projectorOf({ db: log.db, reader });
    projector.start();
    await eventually(async () => expect((await projector.states())[0]?.lastError).toContain("NotAnOrder"));
    await expect(projector.waitFor(NAME, 1, AbortSignal.timeout(1000))).rejects.toThrow("timeout");
    expect(reads).toBeLessThan(8);
  });
});

describe("the lease of a projection", () => {
  it("is taken over, by the database's clock, from a process that is not heard of", async () => {
    await using log = await testLog();
    const checkpoints = checkpointsOf(log.db);
    await runOnce(log, await createOrderWriter(log.appender).append("one"));
    const current = orderTracking(log.db, log.reader).revision;
    const first = await acquireLease(checkpoints, NAME, "first", current, 600);
    expect(await acquireLease(checkpoints, NAME, "second", current, 600)).toBeUndefined();
    const second = await eventually(async () => {
      const lease = await acquireLease(checkpoints, NAME, "second", current, 600);
      expect(lease).toBeDefined();
      return lease;
    });
    expect(second?.checkpoint.runner).toBe("second");
    expect(() => first?.check()).toThrow(LeaseLost);
    await expect(first?.write({ position: Long.fromNumber(0) })).rejects.toThrow(LeaseLost);
    expect((await checkpoints.findOne({ _id: NAME }))?.position).toBe(1);
  });

  it("stays with a process that prolongs it, and goes at once when that process stops", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    await using one = projectorOf(log, { leaseMs: 60_000 });
    await using two = projectorOf(log, { leaseMs: 300 });
    one.start();
    await one.waitFor(NAME, await orders.append("one"), soon());
    const [held] = await one.states();
    two.start();
    await two.waitFor(NAME, await orders.append("two"), soon());
    expect((await two.states())[0]?.runner).toBe(held?.runner);
    await one.stop();
    await two.waitFor(NAME, await orders.append("three"), soon());
    expect((await two.states())[0]?.runner).not.toBe(held?.runner);
  });

  it("is not given to code that is older than what wrote the collection or is rebuilding it", async () => {
    await using log = await testLog();
    const checkpoints = checkpointsOf(log.db);
    await runOnce(log, await createOrderWriter(log.appender).append("one"));
    await checkpoints.updateOne({ _id: NAME }, { $set: { revision: 2 } });
    expect(await acquireLease(checkpoints, NAME, "old", 1, 500)).toBeUndefined();
    const rebuild: CheckpointDocument["rebuild"] = { id: "r", phase: "swapping", copy: "c", revision: 3, position: 1, last_error: null };
    await checkpoints.updateOne({ _id: NAME }, { $set: { rebuild } });
    expect(await acquireLease(checkpoints, NAME, "old", 2, 500)).toBeUndefined();
    expect(await acquireLease(checkpoints, NAME, "new", 3, 500)).toBeDefined();
  });
});

/** Runs a projector, as a process of its own would, until it has reached a position. */
async function runOnce(log: Pick<TestLog, "db" | "reader">, position: number): Promise<void> {
  await using projector = projectorOf(log, { projection: orderTracking(log.db, log.reader) });
  projector.start();
  await projector.waitFor(NAME, position, soon());
}

async function setPosition(db: Db, position: number): Promise<void> {
  await checkpointsOf(db).updateOne({ _id: NAME }, { $set: { position: Long.fromNumber(position) } });
}

/** The body of an entry that concerns no order: its stream is renamed within the bytes, to one as long. */
function withoutOrder(body: Binary | undefined): Binary {
  const text = Buffer.from(body?.value() ?? []);
  text.write("other", text.indexOf("order-after"));
  return new Binary(text);
}
