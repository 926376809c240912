import { Binary, type Document } from "mongodb";
import { describe, expect, it } from "vitest";
import { ORDER_TRACKING } from "../../src/projections/order-tracking.ts";
import type { VerifyProgress } from "../../src/projections/verify.ts";
import { cancel } from "../domain/order-fixtures.ts";
import { type TestLog, testLog } from "../support/log.ts";
import { createOrderWriter, leftOvers, orderIds, projectorOf, soon } from "./orders.ts";

describe("verifying a projection", () => {
  it("finds nothing when all is well, and leaves nothing behind", async () => {
    await using log = await testLog();
    await project(log, await createOrderWriter(log.appender).appendLives(orderIds("o", 20)));
    expect(await verify(log)).toEqual({ checked: 20, different: 0, differences: [] });
    expect(await leftOvers(log.db)).toEqual([]);
  });

  it.each<[string, Document, string]>([
    ["a value", { $set: { store_id: "other" } }, "store_id"],
    ["a value deep inside", { $set: { "status_history.2.actor.subject": "other" } }, "status_history[2].actor.subject"],
    ["a sealed value", { $set: { "recipient.nonce": new Binary(Buffer.alloc(12, 1)) } }, "recipient.nonce"],
    ["a price", { $inc: { "items.0.unit_price.amount_minor": 1 } }, "items[0].unit_price.amount_minor"],
    ["a time", { $set: { created_at: new Date(0) } }, "created_at"],
    ["a version that the log does not have", { $set: { version: 99 } }, "version"],
    ["a version that was passed", { $set: { version: 3 } }, "current_status"],
    ["a field too many", { $set: { extra: null } }, "extra"],
    ["a field too few", { $unset: { eta: 1 } }, "eta"],
    ["an element too many", { $push: { late_reports: "SUBMITTED" } }, "late_reports[0]"],
    ["a null that was something", { $set: { proof_of_delivery: null } }, "proof_of_delivery"],
  ])("finds %s that was changed", async (_, update, path) => {
    await using log = await testLog();
    await project(log, await createOrderWriter(log.appender).appendLives(orderIds("o", 3)));
    await log.db.collection(ORDER_TRACKING).updateOne({ order_id: "o-1" }, update);
    expect(await verify(log)).toEqual({ checked: 3, different: 1, differences: [{ key: "o-1", path, problem: "different" }] });
  });

  it("finds documents that are missing, and such as nobody submitted", async () => {
    await using log = await testLog();
    await project(log, await createOrderWriter(log.appender).appendLives(orderIds("o", 5)));
    const trackings = log.db.collection(ORDER_TRACKING);
    await trackings.deleteMany({ order_id: { $in: ["o-0", "o-4"] } });
    await trackings.insertMany([{ order_id: "o-1a", version: 1 }, { order_id: 5 }, { version: 1 }]);
    const { differences, ...counts } = await verify(log);
    expect(counts).toEqual({ checked: 8, different: 5 });
    expect(differences.map(({ key, problem }) => `${key} ${problem}`).sort()).toEqual([
      " unexpected",
      "5 unexpected",
      "o-0 missing",
      "o-1a unexpected",
      "o-4 missing",
    ]);
  });

  it("leaves out where drivers were seen, which is not in the log", async () => {
    await using log = await testLog();
    await project(log, await createOrderWriter(log.appender).append("one"));
    await log.db.collection(ORDER_TRACKING).updateOne({ order_id: "one" }, { $set: { driver_location: { latitude: 1 } } });
    expect((await verify(log)).different).toBe(0);
  });

  it("is not confused by orders that go on meanwhile", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    await using projector = projectorOf(log);
    projector.start();
    await projector.waitFor(ORDER_TRACKING, await orders.appendLives(orderIds("o", 200), 5), soon());
    let verifying = true;
    let written = 0;
    const write = async () => {
      while (verifying) {
        await projector.waitFor(ORDER_TRACKING, await orders.append(`o-${written % 200}`, cancel()), soon());
        await projector.waitFor(ORDER_TRACKING, await orders.append(`new-${written++}`), soon());
      }
    };
    const check = async () => {
      for (let round = 0; round < 3; round++) expect(await verify(log)).toMatchObject({ different: 0, differences: [] });
      verifying = false;
    };
    await Promise.all([write(), check()]);
    expect(written).toBeGreaterThan(3);
  });

  it("drops its copy when the caller leaves", async () => {
    await using log = await testLog();
    await project(log, await createOrderWriter(log.appender).appendLives(orderIds("o", 3)));
    await log.db.collection(ORDER_TRACKING).deleteMany({});
    await using projector = projectorOf(log);
    for await (const { difference } of projector.verify(ORDER_TRACKING, soon())) {
      expect(difference?.problem).toBe("missing");
      break;
    }
    expect(await leftOvers(log.db)).toEqual([]);
  });
});

async function project(log: TestLog, position: number): Promise<void> {
  await using projector = projectorOf(log);
  projector.start();
  await projector.waitFor(ORDER_TRACKING, position, soon());
}

async function verify(log: TestLog) {
  await using projector = projectorOf(log);
  const told: VerifyProgress[] = [];
  for await (const one of projector.verify(ORDER_TRACKING, soon())) told.push(one);
  const last = told.at(-1);
  expect(last?.done).toBe(true);
  return { checked: last?.checked, different: last?.different, differences: told.flatMap(({ difference }) => difference ?? []) };
}
