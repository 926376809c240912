import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Long } from "mongodb";
import { describe, expect, it } from "vitest";
import { Door, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { createEntry, type EncodedEntry, EVENTS_COLLECTION, encodeEntry, type StoredEvent } from "../../src/log/log-entry.ts";
import { MOST_DISORDER_MS, positionBefore } from "../../src/log/position-at.ts";
import { type ScanOptions, scanLog } from "../../src/log/scan.ts";
import { anEntry, type TestLog, testLog } from "../support/log.ts";

const START = Date.parse("2030-01-01T00:00:00Z");

/** An entry recorded so many seconds after the start. */
function recordedAt(stream: string, seconds: number): EncodedEntry {
  const at = new Date(START + seconds * 1000);
  const events = [{ kind: { case: "pickingStarted" as const, value: {} } }];
  const actor = { role: Role.SERVICE, subject: "test" };
  return encodeEntry(createEntry({ stream, version: 1, recordedAt: timestampFromDate(at), actor, door: Door.GRPC, events }), at);
}

function scan(log: TestLog, options: Partial<ScanOptions>) {
  const signal = new AbortController().signal;
  return scanLog(log.db, log.reader, { after: 0, to: 0, actorRole: Role.UNSPECIFIED, actorSubject: "", follow: false, signal, ...options });
}

async function positionsOf(log: TestLog, options: Partial<ScanOptions>): Promise<number[]> {
  const found: number[] = [];
  for await (const { entries } of scan(log, options)) found.push(...entries.map(({ position }) => position));
  return found;
}

describe("a time range", () => {
  it("holds exactly the entries recorded in it, though times fall over positions by up to two minutes", async () => {
    await using log = await testLog();
    // Two clocks that differ by 100 seconds, in turns.
    const times = Array.from({ length: 120 }, (_, n) => n * 10 + (n % 2) * 100);
    for (const [n, seconds] of times.entries()) await log.appender.append(recordedAt(`order-${n}`, seconds));
    expect(MOST_DISORDER_MS).toBeGreaterThan(100_000);
    for (const [from, before] of [
      [0, 2000],
      [300, 310],
      [305, 700],
      [1200, 1290],
      [-50, 0],
      [5000, 6000],
    ] as const) {
      const expected = times.flatMap((seconds, n) => (seconds >= from && seconds < before ? [n + 1] : []));
      const range = { recordedFrom: new Date(START + from * 1000), recordedBefore: new Date(START + before * 1000) };
      expect(await positionsOf(log, range), `${from} to ${before}`).toEqual(expected);
    }
  });

  it("is found at its edges", async () => {
    await using log = await testLog();
    for (let n = 0; n < 9; n++) await log.appender.append(recordedAt(`order-${n}`, n));
    const find = (seconds: number) => positionBefore(log.db, new Date(START + seconds * 1000), 9);
    expect([await find(-1), await find(0), await find(4), await find(4.5), await find(8), await find(9)]).toEqual([0, 0, 4, 5, 8, 9]);
  });
});

describe("looking through the log", () => {
  it("shows signs of life where nothing matches", async () => {
    await using log = await testLog();
    const entries = 25_000;
    const events = log.db.collection<StoredEvent>(EVENTS_COLLECTION);
    const template = { ...anEntry("order-1", 1) };
    const documents = Array.from({ length: entries }, (_, n) => ({
      ...template,
      _id: Long.fromNumber(n + 1),
      stream: `order-${n}`,
      body: Buffer.from(template.body),
    }));
    await events.insertMany(documents as never);
    const positions = [];
    for await (const { entries: found, position, target } of scan(log, { types: ["OrderCancelled"] })) {
      expect([found, target]).toEqual([[], entries]);
      positions.push(position);
    }
    expect(positions).toEqual([0, 10_000, 20_000, entries]);
  });

  it("goes on for a reader so slow that the database has dropped the cursor, with nothing missed or twice", async () => {
    await using log = await testLog();
    for (let n = 0; n < 700; n += 100)
      await Promise.all(Array.from({ length: 100 }, (_, i) => log.appender.append(anEntry(`order-${n + i}`, 1))));
    const found: number[] = [];
    let dropped = 0;
    for await (const { entries } of scan(log, {})) {
      found.push(...entries.map(({ position }) => position));
      if (entries.length > 0 && dropped === 0) dropped = await dropCursors(log);
    }
    expect(dropped).toBe(1);
    expect(found).toEqual(Array.from({ length: 700 }, (_, index) => index + 1));
  });
});

/** Drops this log's idle cursors, as the database does after ten minutes; says how many. */
async function dropCursors(log: TestLog): Promise<number> {
  const idle = await log.client
    .db("admin")
    .aggregate([
      { $currentOp: { allUsers: true, idleCursors: true } },
      { $match: { type: "idleCursor", ns: `${log.db.databaseName}.${EVENTS_COLLECTION}` } },
    ])
    .toArray();
  const cursors = idle.map((operation) => operation["cursor"].cursorId);
  await log.db.command({ killCursors: EVENTS_COLLECTION, cursors });
  return cursors.length;
}
