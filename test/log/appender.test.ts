import { setTimeout as pause } from "node:timers/promises";
import { Long, MongoClient } from "mongodb";
import { describe, expect, it } from "vitest";
import { ensureLogIndexes } from "../../src/log/indexes.ts";
import { type EncodedEntry, MAX_BODY_BYTES, type RecordedEntry } from "../../src/log/log-entry.ts";
import { anEntry, collect, type TestLog, testLog, wholeLog } from "../support/log.ts";
import { testDatabase } from "../support/mongo.ts";
import { openLog } from "../support/open-log.ts";

/** By how many bytes an entry may be larger than another, as its time takes more. */
const A_TIME_MORE = 8;

/** An entry whose body has so many bytes. How many its time takes differs from one to the next. */
function entryOf(stream: string, bytes: number): EncodedEntry {
  for (let paddingBytes = bytes - 200; ; ) {
    const entry = anEntry(stream, 1, { paddingBytes });
    if (entry.body.length === bytes) return entry;
    paddingBytes += bytes - entry.body.length;
  }
}

describe("append", () => {
  it("gives positions without a gap, in the order of the calls", async () => {
    await using log = await testLog();
    const positions = await Promise.all(Array.from({ length: 2000 }, (_, index) => log.appender.append(anEntry(`order-${index}`, 1))));
    expect(positions).toEqual(Array.from({ length: 2000 }, (_, index) => index + 1));
    expect(await wholeLog(log.db)).toEqual(Array.from({ length: 2000 }, (_, index) => `order-${index}:1`));
  });

  it("takes many entries along in one round trip", async () => {
    await using database = await testDatabase();
    await ensureLogIndexes(database.db);
    const client = new MongoClient(database.url, { monitorCommands: true });
    await using log = openLog(database.url, database.name, {}, client);
    let inserts = 0;
    client.on("commandStarted", ({ commandName }) => {
      if (commandName === "insert") inserts++;
    });
    await Promise.all(Array.from({ length: 1024 }, (_, index) => log.appender.append(anEntry(`order-${index}`, 1))));
    expect(inserts).toBe(2);
  });

  it("keeps the bytes that it was given", async () => {
    await using log = await testLog();
    const entry = anEntry("order-1", 1, { requestId: "request-1" });
    await log.appender.append(entry);
    const [recorded] = await collect(log.reader.readForward({ after: 0 }));
    expect(Buffer.compare(recorded?.body ?? new Uint8Array(), entry.body)).toBe(0);
    expect(recorded?.entry.requestId).toBe("request-1");
  });

  it("takes the next entry of a caller however soon it comes after the last answer", async () => {
    await using log = await testLog();
    for (let hops = 0; hops < 8; hops++) {
      let append = (version: number) => log.appender.append(anEntry(`order-${hops}`, version));
      for (let hop = 0; hop < hops; hop++) {
        const inner = append;
        append = async (version) => await inner(version);
      }
      for (let version = 1; version <= 3; version++) await append(version);
    }
    expect(await log.reader.head()).toBe(24);
  });

  it("refuses only the entry whose version exists, and leaves no gap where it would have been", async () => {
    await using log = await testLog();
    await log.appender.append(anEntry("order-1", 1));
    const outcomes = await Promise.allSettled([
      log.appender.append(anEntry("order-2", 1)),
      log.appender.append(anEntry("order-1", 1)),
      log.appender.append(anEntry("order-3", 1)),
      log.appender.append(anEntry("order-3", 1)),
      log.appender.append(anEntry("order-4", 1)),
    ]);
    expect(outcomes.map((outcome) => (outcome.status === "fulfilled" ? outcome.value : outcome.reason.name))).toEqual([
      2,
      "StreamConflict",
      3,
      "StreamConflict",
      4,
    ]);
    expect(await wholeLog(log.db)).toEqual(["order-1:1", "order-2:1", "order-3:1", "order-4:1"]);
  });

  it("takes a body of 60 KiB and refuses a larger one", async () => {
    await using log = await testLog();
    expect(await log.appender.append(entryOf("order-1", MAX_BODY_BYTES))).toBe(1);
    await expect(log.appender.append(entryOf("order-2", MAX_BODY_BYTES + 1))).rejects.toMatchObject({
      reason: "PAYLOAD_TOO_LARGE",
      metadata: { limit_bytes: "61440" },
    });
    expect(await wholeLog(log.db)).toEqual(["order-1:1"]);
  });

  it.each([
    ["entries", { maxQueuedEntries: 3 }],
    ["bytes", { maxQueuedBytes: 3 * (anEntry("order-1", 1).body.length + A_TIME_MORE) }],
  ])("refuses what would exceed the bound of waiting %s, and takes more once those are gone", async (_, bound) => {
    await using log = await testLog(bound);
    const outcomes = await Promise.allSettled([1, 2, 3, 4, 5].map((order) => log.appender.append(anEntry(`order-${order}`, 1))));
    expect(outcomes.map((outcome) => (outcome.status === "fulfilled" ? outcome.value : outcome.reason.reason))).toEqual([
      1,
      2,
      3,
      "OVERLOADED",
      "OVERLOADED",
    ]);
    expect(await log.appender.append(anEntry("order-4", 1))).toBe(4);
    expect(await wholeLog(log.db)).toEqual(["order-1:1", "order-2:1", "order-3:1", "order-4:1"]);
  });

  it("records nothing of an entry whose caller gives up while it waits", async () => {
    await using log = await testLog();
    const caller = new AbortController();
    const kept = log.appender.append(anEntry("order-1", 1));
    const given = log.appender.append(anEntry("order-2", 1), caller.signal);
    caller.abort(new Error("the caller has gone"));
    await expect(given).rejects.toThrow("the caller has gone");
    await expect(log.appender.append(anEntry("order-3", 1), caller.signal)).rejects.toThrow("the caller has gone");
    expect(await kept).toBe(1);
    expect(await log.appender.append(anEntry("order-4", 1))).toBe(2);
    expect(await wholeLog(log.db)).toEqual(["order-1:1", "order-4:1"]);
  });

  it("makes nothing of it when every caller has given up before the first batch leaves", async () => {
    await using log = await testLog();
    const caller = new AbortController();
    const given = log.appender.append(anEntry("order-1", 1), caller.signal);
    queueMicrotask(() => caller.abort(new Error("the caller has gone")));
    await expect(given).rejects.toThrow("the caller has gone");
    expect(await log.appender.append(anEntry("order-2", 1))).toBe(1);
    expect(await log.db.collection("writers").countDocuments()).toBe(0);
  });

  it("calls back with what it has appended", async () => {
    await using log = await testLog();
    const seen: (readonly RecordedEntry[])[] = [];
    const end = log.appender.onAppended((entries) => seen.push(entries));
    await Promise.all([log.appender.append(anEntry("order-1", 1)), log.appender.append(anEntry("order-2", 1))]);
    end();
    await log.appender.append(anEntry("order-3", 1));
    expect(seen.length).toBe(1);
    expect(seen.flat()).toEqual((await collect(log.reader.readForward({ after: 0 }))).slice(0, 2));
  });
});

describe("a log that was changed under a process", () => {
  const damaged = { name: "LogDamaged" };
  const remove = (log: TestLog, ...positions: number[]) =>
    log.db.collection<{ _id: Long }>("events").deleteMany({ _id: { $in: positions.map((position) => Long.fromNumber(position)) } });

  it("is not appended to behind a gap when its end was taken away, until a new process reads where it ends", async () => {
    await using log = await testLog();
    for (let order = 1; order <= 5; order++) await log.appender.append(anEntry(`order-${order}`, 1));
    log.appender.check();
    await remove(log, 4, 5);
    // Within the quarter of a second for which an end that was seen is relied on, it may be that nothing is noticed.
    await pause(300);
    const outcomes = await Promise.allSettled([6, 7].map((order) => log.appender.append(anEntry(`order-${order}`, 1))));
    expect(outcomes.map((outcome) => outcome.status === "rejected" && outcome.reason)).toMatchObject([damaged, damaged]);
    await expect(log.appender.append(anEntry("order-8", 1))).rejects.toMatchObject({ ...damaged, position: 5 });
    expect(() => log.appender.check()).toThrow("recorded until Ordertrail is restarted");
    expect(await log.join().appender.append(anEntry("order-9", 1))).toBe(4);
    expect(await wholeLog(log.db)).toEqual(["order-1:1", "order-2:1", "order-3:1", "order-9:1"]);
  });

  it.each([
    ["all that there is", [1, 2, 3, 4, 5]],
    ["only the newest entry", [5]],
  ])("is noticed soon also by a process that went on just then: %s", async (_, positions) => {
    await using log = await testLog();
    let order = 0;
    const append = () => log.appender.append(anEntry(`order-${++order}`, 1));
    for (let entries = 0; entries < 5; entries++) await append();
    await remove(log, ...positions);
    const stopped = async () => {
      for (;;) await append();
    };
    const began = performance.now();
    await expect(stopped()).rejects.toMatchObject(damaged);
    expect(performance.now() - began).toBeLessThan(2000);
  });

  it("is not appended to by a process that finds a gap before its end", async () => {
    await using log = await testLog();
    for (let order = 1; order <= 5; order++) await log.appender.append(anEntry(`order-${order}`, 1));
    await remove(log, 4);
    await expect(log.join().appender.append(anEntry("order-6", 1))).rejects.toMatchObject({ ...damaged, position: 4 });
    await remove(log, 1, 2, 3);
    await expect(log.join().appender.append(anEntry("order-6", 1))).rejects.toMatchObject(damaged);
  });

  it("costs no more than a look now and then to find out", async () => {
    await using database = await testDatabase();
    await ensureLogIndexes(database.db);
    const client = new MongoClient(database.url, { monitorCommands: true });
    await using log = openLog(database.url, database.name, {}, client);
    const counts = { insert: 0, find: 0, aggregate: 0 };
    client.on("commandStarted", ({ commandName }) => {
      if (commandName === "insert" || commandName === "find" || commandName === "aggregate") counts[commandName]++;
    });
    const began = performance.now();
    for (let order = 0; order < 300; order++) await log.appender.append(anEntry(`order-${order}`, 1));
    const looks = (performance.now() - began) / 250;
    expect(counts).toMatchObject({ insert: 300, find: 1 });
    expect(counts.aggregate).toBeLessThanOrEqual(looks + 1);
  });
});

describe("close", () => {
  it("answers what was accepted and refuses the rest", async () => {
    await using log = await testLog();
    const accepted = [1, 2, 3].map((order) => log.appender.append(anEntry(`order-${order}`, 1)));
    const closed = log.appender.close();
    await expect(log.appender.append(anEntry("order-4", 1))).rejects.toMatchObject({ name: "Unavailable" });
    expect(await Promise.all(accepted)).toEqual([1, 2, 3]);
    await closed;
    expect(await wholeLog(log.db)).toEqual(["order-1:1", "order-2:1", "order-3:1"]);
  });
});

describe.each([2, 4])("%i processes on one log", (count) => {
  it("share it without a gap, each one's entries in the order of its calls", async () => {
    await using log = await testLog();
    const writers = Array.from({ length: count }, () => log.join());
    const positions = await Promise.all(
      writers.map(async ({ appender }, writer) => {
        const answers: number[] = [];
        for (let round = 0; round < 10; round++) {
          const batch = Array.from({ length: 20 }, (_, index) => appender.append(anEntry(`writer-${writer}`, round * 20 + index + 1)));
          answers.push(...(await Promise.all(batch)));
        }
        return answers;
      }),
    );
    for (const answers of positions) expect(answers).toEqual(answers.toSorted((a, b) => a - b));
    const recorded = await wholeLog(log.db);
    expect(recorded).toHaveLength(count * 200);
    positions.forEach((answers, writer) => {
      expect(answers.map((position) => recorded[position - 1])).toEqual(
        Array.from({ length: 200 }, (_, index) => `writer-${writer}:${index + 1}`),
      );
    });
  });
});
