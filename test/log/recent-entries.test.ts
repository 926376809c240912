import { describe, expect, it } from "vitest";
import type { AppendListener } from "../../src/log/appender.ts";
import type { RecordedEntry } from "../../src/log/log-entry.ts";
import { rememberRecent } from "../../src/log/recent-entries.ts";
import { anEntry, collect, testLog } from "../support/log.ts";

describe("recent entries", () => {
  it("are those that come right after a position", () => {
    const { append, recent } = remembering();
    append(5, 3);
    append(8, 2);
    expect(positions(recent.after(4, 10))).toEqual([5, 6, 7, 8, 9]);
    expect(positions(recent.after(6, 2))).toEqual([7, 8]);
    expect(recent.after(9, 10)).toEqual([]);
  });

  it("are none where the one that comes next is not remembered", () => {
    const { append, recent } = remembering();
    expect(recent.after(0, 10)).toEqual([]);
    append(5, 3);
    expect(recent.after(3, 10)).toEqual([]);
    append(10, 1);
    expect(recent.after(4, 10)).toEqual([]);
    expect(positions(recent.after(9, 10))).toEqual([10]);
  });

  it("are so many and weigh so much at the most, and the newest of all", () => {
    const { append, recent } = remembering();
    for (let position = 1; position <= 50_000; position += 100) append(position, 100);
    expect(recent.after(40_000, 100)).toEqual([]);
    expect(positions(recent.after(48_000, 10_000))).toHaveLength(2000);
    for (let position = 50_001; position <= 50_400; position++) append(position, 1, 60_000);
    expect(recent.after(50_200, 100)).toEqual([]);
    expect(positions(recent.after(50_300, 1000))).toHaveLength(100);
  });

  it("are what a follower gets, with none missing or twice while others append as well", async () => {
    await using log = await testLog();
    const other = log.join();
    const stop = new AbortController();
    const following = collectUntil(log.reader.follow({ after: 0, signal: stop.signal }), 300);
    const appended = (appender: typeof log.appender, name: string) =>
      Array.from({ length: 150 }, (_, index) => appender.append(anEntry(`${name}-${index}`, 1)));
    await Promise.all([...appended(log.appender, "mine"), ...appended(other.appender, "theirs")]);
    const followed = await following;
    stop.abort();
    expect(followed).toEqual(await collect(log.reader.readForward({ after: 0 })));
  });
});

function remembering() {
  let listener: AppendListener = () => undefined;
  const recent = rememberRecent((given) => {
    listener = given;
    return () => undefined;
  });
  const append = (first: number, count: number, bytes = 100) =>
    listener(
      Array.from({ length: count }, (_, index) => ({
        position: first + index,
        entry: anEntry("order-1", 1).entry,
        body: new Uint8Array(bytes),
      })),
    );
  return { append, recent };
}

function positions(entries: readonly RecordedEntry[]): number[] {
  return entries.map(({ position }) => position);
}

async function collectUntil(following: AsyncIterable<{ readonly entries: readonly RecordedEntry[] }>, count: number) {
  const all: RecordedEntry[] = [];
  for await (const { entries } of following) {
    all.push(...entries);
    if (all.length >= count) break;
  }
  return all;
}
