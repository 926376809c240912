import { Binary, Long, MongoClient } from "mongodb";
import { describe, expect, it } from "vitest";
import { ensureLogIndexes } from "../../src/log/indexes.ts";
import { EVENTS_COLLECTION, type StoredEvent } from "../../src/log/log-entry.ts";
import type { Followed, ReadFilter } from "../../src/log/reader.ts";
import { anEntry, collect, testLog } from "../support/log.ts";
import { testDatabase } from "../support/mongo.ts";
import { type LogAccess, openLog } from "../support/open-log.ts";

/** Twelve entries of three orders in turn; the second of each is a delivery. */
async function twelveEntries({ appender }: LogAccess): Promise<void> {
  const entries = [1, 2, 3, 4].flatMap((version) =>
    ["order-1", "order-2", "order-3"].map((stream) =>
      anEntry(stream, version, version === 2 ? { kinds: ["pickingResumed", "orderDelivered"] } : {}),
    ),
  );
  await Promise.all(entries.map((entry) => appender.append(entry)));
}

const positionsOf = (entries: readonly { readonly position: number }[]) => entries.map(({ position }) => position);

describe("reading forward", () => {
  it.each<[string, { after: number; to?: number } & ReadFilter, number[]]>([
    ["everything", { after: 0 }, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]],
    ["from a position on", { after: 9 }, [10, 11, 12]],
    ["up to a position", { after: 3, to: 5 }, [4, 5]],
    ["beyond the head", { after: 12 }, []],
    ["one stream", { after: 0, stream: "order-2" }, [2, 5, 8, 11]],
    ["one stream from a position on", { after: 5, to: 8, stream: "order-2" }, [8]],
    ["a stream that does not exist", { after: 0, stream: "order-9" }, []],
    ["one type", { after: 0, types: ["OrderDelivered"] }, [4, 5, 6]],
    ["either of two types", { after: 4, types: ["OrderDelivered", "PickingStarted"] }, [5, 6, 7, 8, 9, 10, 11, 12]],
    ["a stream and a type", { after: 0, stream: "order-3", types: ["PickingResumed"] }, [6]],
    ["a type that nothing has", { after: 0, types: ["OrderCancelled"] }, []],
    ["no type", { after: 0, types: [] }, []],
  ])("gives %s", async (_, options, expected) => {
    await using log = await testLog();
    await twelveEntries(log);
    expect(positionsOf(await collect(log.reader.readForward(options)))).toEqual(expected);
    expect(positionsOf(await collect(log.reader.readForward({ ...options, batchSize: 2 })))).toEqual(expected);
  });

  it("decodes what it reads", async () => {
    await using log = await testLog();
    await twelveEntries(log);
    const [entry] = await collect(log.reader.readForward({ after: 4, to: 5 }));
    expect(entry).toMatchObject({ position: 5, entry: { stream: "order-2", version: 2 } });
    expect(entry?.entry.events.map(({ kind }) => kind.case)).toEqual(["pickingResumed", "orderDelivered"]);
  });

  it("ends when its caller gives up", async () => {
    await using log = await testLog();
    await twelveEntries(log);
    const caller = new AbortController();
    const reading = log.reader.readForward({ after: 0, batchSize: 2, signal: caller.signal });
    await reading.next();
    caller.abort(new Error("the caller has gone"));
    await expect(reading.next()).rejects.toThrow("the caller has gone");
  });

  it("fetches no more than a batch ahead of whoever uses it, however long the log is", async () => {
    await using database = await testDatabase();
    await ensureLogIndexes(database.db);
    const client = new MongoClient(database.url, { monitorCommands: true });
    await using log = openLog(database.url, database.name, {}, client);
    await Promise.all(Array.from({ length: 2000 }, (_, index) => log.appender.append(anEntry(`order-${index}`, 1))));
    let [fetches, batches] = [0, 0];
    client.on("commandSucceeded", ({ commandName }) => {
      if (commandName === "find" || commandName === "getMore") fetches++;
    });
    for await (const entries of log.reader.readForward({ after: 0, batchSize: 100 })) {
      batches++;
      expect(entries.length).toBe(100);
      expect(fetches).toBeLessThanOrEqual(batches + 1);
    }
    expect(batches).toBe(20);
  });
});

describe("reading backward", () => {
  it.each<[string, { before?: number } & ReadFilter, number[]]>([
    ["everything", {}, [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]],
    ["what is before a position", { before: 4 }, [3, 2, 1]],
    ["one stream", { stream: "order-2" }, [11, 8, 5, 2]],
    ["one stream before a position", { before: 8, stream: "order-2" }, [5, 2]],
    ["one type", { types: ["OrderDelivered"] }, [6, 5, 4]],
    ["what is before the first", { before: 1 }, []],
  ])("gives %s", async (_, options, expected) => {
    await using log = await testLog();
    await twelveEntries(log);
    expect(positionsOf(await collect(log.reader.readBackward(options)))).toEqual(expected);
    expect(positionsOf(await collect(log.reader.readBackward({ ...options, batchSize: 2 })))).toEqual(expected);
  });
});

describe("reading streams", () => {
  it("gives each one's entries beyond its own version", async () => {
    await using log = await testLog();
    await twelveEntries(log);
    const found = await log.reader.readStreams(
      new Map([
        ["order-1", 0],
        ["order-2", 2],
        ["order-3", 4],
        ["order-9", 0],
      ]),
    );
    expect(Array.from(found, ([stream, entries]) => [stream, ...entries.map(({ entry }) => entry.version)])).toEqual(
      expect.arrayContaining([
        ["order-1", 1, 2, 3, 4],
        ["order-2", 3, 4],
      ]),
    );
    expect(found.size).toBe(2);
    expect(positionsOf(await log.reader.readStream("order-1", 3))).toEqual([10]);
  });
});

describe("head", () => {
  it("is 0 in an empty log, else the newest position", async () => {
    await using log = await testLog();
    expect(await log.reader.head()).toBe(0);
    await twelveEntries(log);
    expect(await log.reader.head()).toBe(12);
  });
});

describe("following", () => {
  /** Follows in the background; what has come so far is in `seen`. */
  function follow({ reader }: LogAccess, options: { readonly after: number } & ReadFilter) {
    const reading = new AbortController();
    const seen: number[] = [];
    const looked: number[] = [];
    const ended = (async () => {
      for await (const { entries, position } of reader.follow({ ...options, signal: reading.signal })) {
        seen.push(...positionsOf(entries));
        looked.push(position);
      }
    })();
    return {
      seen,
      looked,
      async stop() {
        reading.abort(new Error("that is enough"));
        await expect(ended).rejects.toThrow("that is enough");
      },
    };
  }

  it("gives what is there and then what comes, of this process and of others", async () => {
    await using log = await testLog();
    const other = log.join();
    await twelveEntries(log);
    const follower = follow(log, { after: 10 });
    await expect.poll(() => follower.seen).toEqual([11, 12]);
    await log.appender.append(anEntry("order-1", 5));
    await other.appender.append(anEntry("order-2", 5));
    await log.appender.append(anEntry("order-3", 5));
    await expect.poll(() => follower.seen).toEqual([11, 12, 13, 14, 15]);
    await follower.stop();
    expect(follower.seen).toEqual([11, 12, 13, 14, 15]);
  });

  it("hears of its own process's entries without waiting for a poll", async () => {
    await using log = await testLog();
    const follower = follow(log, { after: 0 });
    const delaysMs: number[] = [];
    for (let version = 1; version <= 9; version++) {
      await log.appender.append(anEntry("order-1", version));
      const appended = performance.now();
      await expect.poll(() => follower.seen.length, { interval: 1 }).toBe(version);
      delaysMs.push(performance.now() - appended);
    }
    await follower.stop();
    expect(delaysMs.toSorted((a, b) => a - b)[4]).toBeLessThan(15);
  });

  it("moves on where its filter matches nothing", async () => {
    await using log = await testLog();
    await twelveEntries(log);
    const follower = follow(log, { after: 0, types: ["OrderCancelled"] });
    await expect.poll(() => follower.looked.at(-1)).toBe(12);
    await log.appender.append(anEntry("order-1", 5));
    await expect.poll(() => follower.looked.at(-1)).toBe(13);
    await log.appender.append(anEntry("order-1", 6, { kinds: ["orderCancelled"] }));
    await expect.poll(() => follower.seen).toEqual([14]);
    await follower.stop();
  });

  it("follows one stream", async () => {
    await using log = await testLog();
    await twelveEntries(log);
    const follower = follow(log, { after: 4, stream: "order-2" });
    await log.appender.append(anEntry("order-2", 5));
    await expect.poll(() => follower.seen).toEqual([5, 8, 11, 13]);
    await follower.stop();
  });

  it("ends at once when it is not wanted from the beginning", async () => {
    await using log = await testLog();
    const following = log.reader.follow({ after: 0, signal: AbortSignal.abort(new Error("not wanted")) });
    await expect(following.next()).rejects.toThrow("not wanted");
  });
});

describe("a damaged log", () => {
  const events = ({ db }: LogAccess) => db.collection<StoredEvent>(EVENTS_COLLECTION);

  it.each([1, 5])("is noticed when position %i is missing", async (missing) => {
    await using log = await testLog();
    await twelveEntries(log);
    await events(log).deleteOne({ _id: Long.fromNumber(missing) });
    const damage = { name: "LogDamaged", position: missing };
    await expect(collect(log.reader.readForward({ after: 0 }))).rejects.toMatchObject(damage);
    await expect(collect(log.reader.readForward({ after: 0, batchSize: 2 }))).rejects.toMatchObject(damage);
    // Not by the process that has appended it: that one follows what it remembers.
    const following: AsyncGenerator<Followed> = log.join().reader.follow({ after: missing - 1, signal: AbortSignal.timeout(10_000) });
    await expect(following.next()).rejects.toMatchObject(damage);
  });

  it.each([1, 5])("is noticed going backward, too, when position %i is missing", async (missing) => {
    await using log = await testLog();
    await twelveEntries(log);
    await events(log).deleteOne({ _id: Long.fromNumber(missing) });
    await expect(collect(log.reader.readBackward({ batchSize: 2 }))).rejects.toMatchObject({ name: "LogDamaged", position: missing });
  });

  it.each([2, 5, 8])("is noticed by all who read a stream when its entry at position %i is missing", async (missing) => {
    await using log = await testLog();
    await twelveEntries(log);
    await events(log).deleteOne({ _id: Long.fromNumber(missing) });
    const { reader } = log.join();
    const stream = "order-2";
    const damage = { name: "LogDamaged", position: missing + 3 };
    await expect(reader.readStream(stream, 0)).rejects.toMatchObject(damage);
    await expect(reader.readStream(stream, (missing - 2) / 3)).rejects.toMatchObject(damage);
    for (const batchSize of [1, 2, 1000]) {
      await expect(collect(reader.readForward({ stream, after: 0, batchSize }))).rejects.toMatchObject(damage);
      await expect(collect(reader.readForward({ stream, after: missing, batchSize }))).rejects.toMatchObject(damage);
      await expect(collect(reader.readBackward({ stream, batchSize }))).rejects.toMatchObject({ name: "LogDamaged" });
    }
    const following = async () => {
      for await (const { position } of reader.follow({ stream, after: missing - 1, signal: AbortSignal.timeout(10_000) }))
        if (position >= 12) return;
    };
    await expect(following()).rejects.toMatchObject(damage);
    expect(positionsOf(await reader.readStream("order-1", 0))).toEqual([1, 4, 7, 10]);
  });

  it("is not what a stream is taken for that is shorter than it was", async () => {
    await using log = await testLog();
    await twelveEntries(log);
    await events(log).deleteOne({ _id: Long.fromNumber(11) });
    const { reader } = log.join();
    expect(positionsOf(await reader.readStream("order-2", 0))).toEqual([2, 5, 8]);
    expect(positionsOf(await reader.readStream("order-2", 2))).toEqual([8]);
    expect(await reader.readStream("order-2", 4)).toEqual([]);
    expect(positionsOf(await collect(reader.readForward({ stream: "order-2", after: 5 })))).toEqual([8]);
    expect(positionsOf(await collect(reader.readBackward({ stream: "order-2" })))).toEqual([8, 5, 2]);
  });

  it.each([
    ["bytes that are no message", Buffer.from("ffffffffff", "hex")],
    ["no bytes", Buffer.alloc(0)],
  ])("is noticed when a body is %s", async (_, bytes) => {
    await using log = await testLog();
    await twelveEntries(log);
    await events(log).updateOne({ _id: Long.fromNumber(7) }, { $set: { body: new Binary(bytes) } });
    const damage = { name: "LogDamaged", position: 7 };
    await expect(collect(log.reader.readForward({ after: 0 }))).rejects.toMatchObject(damage);
    await expect(log.reader.readStream("order-1", 0)).rejects.toMatchObject(damage);
  });
});
