import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { MongoError } from "mongodb";
import { expect } from "vitest";
import { ensureLogIndexes } from "../../src/log/indexes.ts";
import { EVENTS_COLLECTION, type RecordedEntry, WRITERS_COLLECTION } from "../../src/log/log-entry.ts";
import { eventually } from "../support/eventually.ts";
import { type LogAccess, openLog } from "../support/open-log.ts";
import { createRandom } from "./random.ts";

/** Everything that writers were told, and what came of it. */
export type Campaign = AsyncDisposable & {
  /** Waits until every writer has been answered this many more requests. Fails when one is not within 30 seconds. */
  progress(answers: number): Promise<void>;
  /** Kills a writer without warning; another takes over its open requests. */
  killWriter(): Promise<void>;
  /** The same, of the one that appends for all. */
  killAdvisoryWriter(): Promise<void>;
  /** Holds the one that appends for all for a time, and lets it go on. */
  pauseAdvisoryWriter(ms: number): Promise<void>;
  /** Waits until the primary holds entries that are not on a majority. */
  entriesOfPrimaryAlone(): Promise<void>;
  /** Lets the writers end, and checks the log against all that they and the followers were told. */
  verify(): Promise<Findings>;
};

export type Findings = { readonly acknowledged: number; readonly entries: number; readonly longestSilenceMs: number };

type Writer = { readonly child: ChildProcess; readonly open: Set<string>; answers: number; readonly ended: Promise<void> };

const WRITER = fileURLToPath(new URL("./writer.ts", import.meta.url));
const REQUESTS_PER_WRITER = 1_000_000;
const SILENCE_LIMIT_MS = 60_000;

/** Starts writers on a new log, each a process of its own, and two followers in this one: of everything, and of one type of event. */
export async function startCampaign(url: string, database: string, writers: number, seed: number, natsUrl = "-"): Promise<Campaign> {
  const random = createRandom(seed);
  const log = openLog(url, database);
  await ensureLogIndexes(log.db);
  const problems: string[] = [];
  const following = new AbortController();
  const followers = [follow(log, problems, following.signal), follow(log, problems, following.signal, ["PickingResumed"])];
  const acknowledged = new Map<string, number>();
  const running: Writer[] = [];
  let started = 0;
  let lastAnswerAt = performance.now();
  let longestSilenceMs = 0;

  function startWriter(leftOpen: readonly string[]): Writer {
    const first = started++ * REQUESTS_PER_WRITER;
    const child = spawn(process.execPath, [WRITER, url, database, natsUrl, String(random(2 ** 31)), String(first), ...leftOpen], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    const writer: Writer = { child, open: new Set(leftOpen), answers: 0, ended: ended(child, problems) };
    createInterface({ input: child.stdout as NonNullable<ChildProcess["stdout"]> }).on("line", (line) => heed(writer, line));
    return writer;
  }

  function heed(writer: Writer, line: string): void {
    // A line that a kill has cut short says nothing.
    if (!line.endsWith(" .")) return;
    const [what, id = "", position] = line.split(" ");
    if (what === "try") {
      writer.open.add(id);
      return;
    }
    writer.open.delete(id);
    writer.answers++;
    const before = acknowledged.get(id);
    if (before !== undefined && before !== Number(position)) problems.push(`${id} was acknowledged at ${before} and at ${position}`);
    acknowledged.set(id, Number(position));
    longestSilenceMs = Math.max(longestSilenceMs, performance.now() - lastAnswerAt);
    lastAnswerAt = performance.now();
  }

  async function kill(writer: Writer | undefined): Promise<void> {
    if (!writer) throw new Error("there is no writer to kill");
    running.splice(running.indexOf(writer), 1);
    writer.child.kill("SIGKILL");
    await writer.ended;
    running.push(startWriter([...writer.open]));
  }

  /** The writer whose lease has not run out. */
  async function advisoryWriter(): Promise<Writer> {
    const leases = log.db.collection<{ holder: string }>(WRITERS_COLLECTION);
    let found: Writer | undefined;
    await eventually(async () => {
      const lease = await leases.findOne({ holder: { $exists: true }, $expr: { $gt: ["$until", "$$NOW"] } });
      found = running.find(({ child }) => lease?.holder.startsWith(`${child.pid}-`));
      expect(found, "one that appends for all").toBeDefined();
    }, 10_000);
    return found as Writer;
  }

  for (let writer = 0; writer < writers; writer++) running.push(startWriter([]));

  return {
    async progress(answers) {
      const goals = running.map((writer) => [writer, writer.answers + answers] as const);
      await eventually(() => {
        if (problems.length > 0) return;
        for (const [writer, goal] of goals) expect(writer.answers, "answers to a writer").toBeGreaterThanOrEqual(goal);
      }, SILENCE_LIMIT_MS);
      expect(problems.join("\n")).toBe("");
    },
    killWriter: () => kill(running[random(running.length)]),
    killAdvisoryWriter: async () => kill(await advisoryWriter()),
    async pauseAdvisoryWriter(ms) {
      const { child } = await advisoryWriter();
      child.kill("SIGSTOP");
      await pause(ms);
      child.kill("SIGCONT");
    },
    async entriesOfPrimaryAlone() {
      const newest = log.db.collection(EVENTS_COLLECTION).find({}, { readConcern: "local" }).sort({ _id: -1 }).limit(1);
      await eventually(async () => {
        const [entry] = await newest.clone().toArray();
        expect(Number(entry?._id)).toBeGreaterThan(await log.reader.head());
      });
    },
    async verify() {
      for (const { child } of running) child.kill("SIGTERM");
      await Promise.all(running.map(({ ended }) => ended));
      expect(problems.join("\n")).toBe("");
      expect(running.flatMap(({ open }) => [...open])).toEqual([]);
      const { entries, resumed } = await readAndCheck(log, acknowledged);
      await eventually(() => {
        expect(followers[0]?.seen.length).toBe(entries);
        expect(followers[1]?.seen.length).toBe(resumed.length);
      });
      expect(followers[0]?.seen.every((position, index) => position === index + 1)).toBe(true);
      expect(followers[1]?.seen).toEqual(resumed);
      return { acknowledged: acknowledged.size, entries, longestSilenceMs: Math.round(longestSilenceMs) };
    },
    async [Symbol.asyncDispose]() {
      for (const { child } of running) child.kill("SIGKILL");
      await Promise.all(running.map(({ ended }) => ended));
      following.abort();
      await Promise.all(followers.map((follower) => follower.ended));
      await log[Symbol.asyncDispose]();
    },
  };
}

/** Resolves when a process has ended and all that it said has been read. An end other than by our signals is a problem. */
async function ended(child: ChildProcess, problems: string[]): Promise<void> {
  let said = "";
  child.stderr?.on("data", (chunk: Buffer) => {
    said += chunk;
  });
  const [code, signal] = await once(child, "close");
  if (signal !== "SIGKILL" && code !== 0) problems.push(`a writer ended with ${signal ?? `code ${code}`}: ${said}`);
}

/** Follows the log, going on after each fault of the database from where it was. What else ends it is a problem. */
function follow(
  { reader }: LogAccess,
  problems: string[],
  signal: AbortSignal,
  types?: readonly string[],
): { readonly seen: number[]; readonly ended: Promise<void> } {
  const seen: number[] = [];
  let after = 0;
  const run = async () => {
    while (!signal.aborted) {
      try {
        for await (const { entries, position } of reader.follow({ after, signal, ...(types && { types }) })) {
          seen.push(...entries.map((entry) => entry.position));
          after = position;
        }
      } catch (error) {
        if (!signal.aborted && !(error instanceof MongoError)) {
          problems.push(`a follower ended at ${after}: ${error}`);
          return;
        }
        await pause(20);
      }
    }
  };
  return { seen, ended: run() };
}

/** Reads the whole log and holds it against what was acknowledged. A gap makes the reading itself fail. */
async function readAndCheck(
  { reader }: LogAccess,
  acknowledged: ReadonlyMap<string, number>,
): Promise<{ entries: number; resumed: number[] }> {
  const positions = new Map<string, number>();
  const versions = new Map<string, number>();
  const problems: string[] = [];
  const resumed: number[] = [];
  let entries = 0;
  for await (const batch of reader.readForward({ after: 0 })) {
    for (const recorded of batch) {
      entries++;
      problems.push(...check(recorded, positions, versions));
      if (recorded.entry.events[0]?.kind.case === "pickingResumed") resumed.push(recorded.position);
    }
  }
  for (const [id, position] of acknowledged) {
    if (positions.get(id) !== position) problems.push(`${id} was acknowledged at ${position} and is at ${positions.get(id)}`);
  }
  expect(problems.join("\n")).toBe("");
  return { entries, resumed };
}

function check({ position, entry }: RecordedEntry, positions: Map<string, number>, versions: Map<string, number>): string[] {
  const problems: string[] = [];
  const twin = positions.get(entry.requestId);
  if (twin !== undefined) problems.push(`${entry.requestId} is at ${twin} and at ${position}`);
  positions.set(entry.requestId, position);
  const before = versions.get(entry.stream) ?? 0;
  if (entry.version !== before + 1) problems.push(`after version ${before} of ${entry.stream} comes ${entry.version} at ${position}`);
  versions.set(entry.stream, entry.version);
  return problems;
}
