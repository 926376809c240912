import { Long } from "mongodb";
import { describe, expect, it } from "vitest";
import { LogDamaged } from "../../src/domain/log-damaged.ts";
import { Unavailable } from "../../src/domain/refusal.ts";
import { createLogWatch, type LogWatch, MOST_WAITING, type News, type Watcher } from "../../src/live/watch.ts";
import { EVENTS_COLLECTION, type StoredEvent } from "../../src/log/log-entry.ts";
import { createLogger } from "../../src/logger.ts";
import { eventually } from "../support/eventually.ts";
import { anEntry, type TestLog, testLog } from "../support/log.ts";

const logger = createLogger("silent");
const FOREVER = new AbortController().signal;

type Watched = AsyncDisposable & { readonly watch: LogWatch; readonly stopping: AbortController };

function watching(log: Pick<TestLog, "reader">, heartbeatMs = 600_000): Watched {
  const stopping = new AbortController();
  const watch = createLogWatch({ reader: log.reader, heartbeatMs, stopping: stopping.signal, logger });
  return { watch, stopping, [Symbol.asyncDispose]: () => watch.stop() };
}

/** The versions of the next entries; anything else is news that nobody expects. */
async function versions(watcher: Watcher, count: number): Promise<number[]> {
  const found: number[] = [];
  while (found.length < count) {
    const news = await watcher.next();
    if (news.kind !== "entry") throw new Error(`there is ${JSON.stringify(news)}, and no entry`);
    found.push(news.recorded.entry.version);
  }
  return found;
}

async function append(log: Pick<TestLog, "appender">, stream: string, from: number, to: number): Promise<void> {
  for (let version = from; version <= to; version++) await log.appender.append(anEntry(stream, version));
}

describe("watching streams of the log", () => {
  it("tells each watcher of what is appended to their stream, by whichever process, in order", async () => {
    await using log = await testLog();
    const other = log.join();
    await append(log, "a", 1, 3);
    await using watched = watching(log);
    using first = await watched.watch.open("a", FOREVER);
    using second = await watched.watch.open("b", FOREVER);
    using third = await watched.watch.open("a", FOREVER);
    await append(log, "a", 4, 5);
    await append(other, "a", 6, 6);
    await append(other, "b", 1, 1);
    await append(log, "a", 7, 7);
    for (const watcher of [first, third]) expect(await versions(watcher, 4)).toEqual([4, 5, 6, 7]);
    expect(await versions(second, 1)).toEqual([1]);
  });

  it("keeps no more than so many entries for one who does not ask, and says up to where they are to be read", async () => {
    await using log = await testLog();
    await using watched = watching(log);
    using watcher = await watched.watch.open("a", FOREVER);
    using other = await watched.watch.open("b", FOREVER);
    const newest = MOST_WAITING + 10;
    await append(log, "a", 1, newest);
    await append(log, "b", 1, 1);
    await versions(other, 1);
    expect(await watcher.next()).toEqual({ kind: "missed", upTo: newest, slow: true });
    await append(log, "a", newest + 1, newest + 1);
    expect(await versions(watcher, 1)).toEqual([newest + 1]);
  });

  it("does not take one for slow who asks, however much comes at one go", async () => {
    await using log = await testLog();
    await using watched = watching(log);
    using watcher = await watched.watch.open("a", FOREVER);
    const asked = watcher.next();
    const newest = MOST_WAITING + 10;
    await Promise.all(Array.from({ length: newest }, (_, index) => log.appender.append(anEntry("a", index + 1))));
    const news: News[] = [await asked];
    while (!news.some((one) => (one.kind === "missed" ? one.upTo : one.kind === "entry" ? one.recorded.entry.version : 0) === newest))
      news.push(await watcher.next());
    expect(news.filter((one) => one.kind === "missed" && one.slow)).toEqual([]);
  });

  it("tells of quiet, with how far the log has been followed", async () => {
    await using log = await testLog();
    await using watched = watching(log, 320);
    using watcher = await watched.watch.open("a", FOREVER);
    expect(await watcher.next()).toEqual({ kind: "quiet", position: 0 });
    await append(log, "b", 1, 2);
    await eventually(async () => expect(await watcher.next()).toEqual({ kind: "quiet", position: 2 }));
  });

  it("ends with the reason of the signal, or of the process, and is left behind by nobody", async () => {
    await using log = await testLog();
    await using watched = watching(log);
    const leaving = new AbortController();
    using watcher = await watched.watch.open("a", leaving.signal);
    using other = await watched.watch.open("a", FOREVER);
    const asked = watcher.next();
    leaving.abort(new Error("gone"));
    await expect(asked).rejects.toThrow("gone");
    const waiting = other.next();
    watched.stopping.abort(new Unavailable("shutting down"));
    await expect(waiting).rejects.toThrow("shutting down");
    await expect(watched.watch.open("a", FOREVER)).rejects.toThrow("shutting down");
  });

  it("goes on after a fault of the database, and misses nothing", async () => {
    await using log = await testLog();
    let faults = 0;
    const reader: Pick<TestLog["reader"], "head" | "follow"> = {
      head: log.reader.head,
      async *follow(options) {
        for await (const followed of log.reader.follow(options)) {
          yield followed;
          if (++faults % 3 === 0) throw new Error("the network is away for a moment");
        }
      },
    };
    await using watched = watching({ reader: { ...log.reader, ...reader } });
    using watcher = await watched.watch.open("a", FOREVER);
    const told = versions(watcher, 9);
    await append(log, "a", 1, 9);
    expect(await told).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(faults).toBeGreaterThanOrEqual(3);
  });

  it("tells all who watch when the log is not whole; who watches next begins behind that", async () => {
    await using log = await testLog();
    await using other = log.join();
    await append(other, "a", 1, 1);
    await using watched = watching(log);
    using watcher = await watched.watch.open("a", FOREVER);
    const asked = watcher.next();
    const stored = other.db.collection<StoredEvent>(EVENTS_COLLECTION);
    const [whole] = await stored.find({}).toArray();
    if (!whole) throw new Error("there is no entry");
    await stored.insertOne({ ...whole, _id: Long.fromNumber(3), version: 3 });
    await expect(asked).rejects.toBeInstanceOf(LogDamaged);
    using next = await watched.watch.open("a", FOREVER);
    await stored.insertOne({ ...whole, _id: Long.fromNumber(4), version: 4, body: whole.body });
    expect(await versions(next, 1)).toEqual([1]);
  });
});
