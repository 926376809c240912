import { afterAll, beforeAll, expect, it } from "vitest";
import { ensureLogIndexes } from "../../src/log/indexes.ts";
import { EVENTS_COLLECTION, type StoredEvent, toStored } from "../../src/log/log-entry.ts";
import { eventually } from "../support/eventually.ts";
import { holdReplication } from "../support/hold-replication.ts";
import { anEntry, collect, wholeLog } from "../support/log.ts";
import { type Member, type ReplicaSet, startReplicaSet } from "../support/mongo.ts";
import { openLog } from "../support/open-log.ts";

let set: ReplicaSet;

beforeAll(async () => {
  set = await startReplicaSet({ members: 3, electionTimeoutMillis: 2000 });
});
afterAll(() => set[Symbol.asyncDispose]());

it("an entry held open is passed by no reader and no other writer, and then takes its place", async () => {
  const primary = await set.primary();
  await using writer = openLog(set.url, "held_open", { patienceMs: 60_000 });
  await using other = openLog(set.url, "held_open", { patienceMs: 60_000 });
  await using impatient = openLog(set.url, "held_open", { patienceMs: 1000 });
  await ensureLogIndexes(writer.db);
  await writer.appender.append(anEntry("order-1", 1));

  const following = new AbortController();
  const followed: number[] = [];
  const follower = (async () => {
    for await (const { entries } of other.reader.follow({ after: 0, signal: following.signal }))
      followed.push(...entries.map(({ position }) => position));
  })();
  await expect.poll(() => followed).toEqual([1]);

  const letGo = await holdReplication(set, primary);
  const answered: string[] = [];
  const held = writer.appender.append(anEntry("order-2", 1)).finally(() => answered.push("held"));
  const local = () => writer.db.collection("events").countDocuments({}, { readConcern: "local" });
  await expect.poll(local).toBe(2);
  const rival = other.appender.append(anEntry("order-3", 1)).finally(() => answered.push("rival"));
  await expect(impatient.appender.append(anEntry("order-4", 1))).rejects.toMatchObject({ name: "Unavailable" });

  expect(answered).toEqual([]);
  expect(await writer.reader.head()).toBe(1);
  expect(await collect(other.reader.readForward({ after: 1 }))).toEqual([]);
  expect(await other.reader.readStream("order-2", 0)).toEqual([]);
  expect(followed).toEqual([1]);

  await letGo();
  const [heldAt, rivalAt] = await Promise.all([held, rival]);
  const recorded = await wholeLog(writer.db);
  expect([recorded[heldAt - 1], recorded[rivalAt - 1]]).toEqual(["order-2:1", "order-3:1"]);
  expect(recorded.filter((entry) => entry.startsWith("gap"))).toEqual([]);
  expect(recorded.filter((entry) => entry === "order-4:1").length).toBeLessThanOrEqual(1);
  await expect.poll(() => followed).toEqual(recorded.map((_, index) => index + 1));
  following.abort(new Error("that is enough"));
  await expect(follower).rejects.toThrow("that is enough");
});

it("an entry that is lost with its primary and its writer leaves no gap", async () => {
  const primary = await set.primary();
  await using log = openLog(set.url, "lost", { patienceMs: 60_000 });
  await ensureLogIndexes(log.db);
  await log.appender.append(anEntry("order-1", 1));

  const letGo = await holdReplication(set, primary);
  await log.db.collection<StoredEvent>(EVENTS_COLLECTION).insertOne(toStored(anEntry("order-2", 1), 2), { writeConcern: { w: 1 } });
  await using other = openLog(set.url, "lost", { patienceMs: 60_000 });
  const appended = other.appender.append(anEntry("order-3", 1));
  // The other process has looked for the tail, and sent its entry to the primary that is about to die.
  await eventually(async () => expect(await insertsUnderWay(primary)).toBe(1));
  await set.kill(primary);
  await letGo();

  expect(await appended).toBe(2);
  expect(await wholeLog(log.db)).toEqual(["order-1:1", "order-3:1"]);
});

async function insertsUnderWay(member: Member): Promise<number> {
  const { inprog } = await set.command(member, { currentOp: 1, "command.insert": EVENTS_COLLECTION });
  return (inprog as unknown[]).length;
}
