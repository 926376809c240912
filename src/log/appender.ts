import { setTimeout as pause } from "node:timers/promises";
import type { ClientSession, Collection, Db, MongoClient } from "mongodb";
import type { Logger } from "pino";
import { Refusal, Unavailable } from "../domain/refusal.ts";
import { type BatchOutcome, insertBatch, readTail, whichStand } from "./batch.ts";
import { type EncodedEntry, EVENTS_COLLECTION, MAX_BODY_BYTES, type StoredEvent, toStored } from "./log-entry.ts";

/** Another writer has recorded this version of the stream first. Nothing was appended. */
export class StreamConflict extends Error {
  override readonly name = "StreamConflict";
  constructor(stream: string, version: number) {
    super(`version ${version} of ${stream} exists already`);
  }
}

export type AppenderOptions = {
  /** How many entries may wait; a further one is refused with OVERLOADED. */
  readonly maxQueuedEntries: number;
  /** How many bytes of bodies may wait. */
  readonly maxQueuedBytes: number;
  /** How long an entry waits for a database that cannot be reached before its caller hears UNAVAILABLE. */
  readonly patienceMs: number;
};

/** Appends to the log, many entries a round trip. The process's only writer of the `events` collection. */
export type Appender = {
  /**
   * Appends an entry and resolves to its position once it is durable on a majority.
   * Rejects with StreamConflict; with a Refusal PAYLOAD_TOO_LARGE or OVERLOADED (nothing recorded); with Unavailable when
   * the database cannot be reached (whether it was recorded is then said in the message); with the signal's reason when
   * that fires while the entry still waits. An entry already on its way is not taken back by the signal.
   */
  append(entry: EncodedEntry, signal?: AbortSignal): Promise<number>;
  /** Calls back with the newest position after each batch of this process; returns the function that ends it. */
  onAppended(listener: (position: number) => void): () => void;
  /** Refuses further entries, and resolves when those accepted have been answered. */
  close(): Promise<void>;
};

type Waiting = {
  readonly entry: EncodedEntry;
  readonly since: number;
  readonly resolve: (position: number) => void;
  readonly reject: (error: unknown) => void;
  /** True once the caller has been told something; a late outcome is then nobody's. */
  answered: boolean;
};

const MAX_BATCH_ENTRIES = 512;
const MAX_BATCH_BYTES = 8 * 1024 * 1024;
/** How long after a lost race a process takes others to be writing too. */
const CONTENTION_MS = 1000;

/**
 * The appender of this process. It has one batch in flight; what comes meanwhile waits and makes up the next one.
 * It knows the log's tail, so a batch is one ordered insert; that another process was faster shows as a duplicate key.
 */
export function createAppender(client: MongoClient, db: Db, options: AppenderOptions, logger: Logger): Appender {
  const events: Collection<StoredEvent> = db.collection<StoredEvent>(EVENTS_COLLECTION);
  const listeners = new Set<(position: number) => void>();
  // One session for every write, so that the server refuses a late copy of a batch that has been given up (see whichStand).
  const session: ClientSession = client.startSession();
  let queue: Waiting[] = [];
  let queuedBytes = 0;
  let tail: number | undefined;
  let pumping: Promise<void> | undefined;
  let closed = false;
  /** Where this process last lost a race, and when. */
  let lostAt = 0;
  let lastLossAt = Number.NEGATIVE_INFINITY;
  let batchMs = 1;

  function append(entry: EncodedEntry, signal?: AbortSignal): Promise<number> {
    if (entry.body.length > MAX_BODY_BYTES) {
      return Promise.reject(
        new Refusal("PAYLOAD_TOO_LARGE", `what this command would record takes ${entry.body.length} bytes; ${MAX_BODY_BYTES} is the most`, {
          limit_bytes: String(MAX_BODY_BYTES),
        }),
      );
    }
    if (closed) return Promise.reject(new Unavailable("this process is stopping; nothing was recorded"));
    if (queue.length >= options.maxQueuedEntries || queuedBytes + entry.body.length > options.maxQueuedBytes) {
      return Promise.reject(new Refusal("OVERLOADED", "too many commands are waiting to be recorded; nothing was recorded of this one"));
    }
    if (signal?.aborted) return Promise.reject(signal.reason);
    return new Promise<number>((resolve, reject) => {
      const giveUp = () => {
        const index = queue.indexOf(waiting);
        if (index < 0) return;
        queue.splice(index, 1);
        queuedBytes -= entry.body.length;
        refuse(waiting, signal?.reason);
      };
      const settled = () => signal?.removeEventListener("abort", giveUp);
      const waiting: Waiting = {
        entry,
        since: performance.now(),
        answered: false,
        resolve(position) {
          settled();
          resolve(position);
        },
        reject(error) {
          settled();
          reject(error);
        },
      };
      signal?.addEventListener("abort", giveUp, { once: true });
      queue.push(waiting);
      queuedBytes += entry.body.length;
      pumping ??= pump().finally(() => {
        pumping = undefined;
      });
    });
  }

  async function pump(): Promise<void> {
    // Entries that arrive in the same turn share the first batch.
    await Promise.resolve();
    while (queue.length > 0) {
      try {
        tail ??= await readTail(events, lostAt);
      } catch (error) {
        await standAside(error);
        continue;
      }
      const started = performance.now();
      const contended = await sendBatch(takeBatch(), tail + 1);
      batchMs += 0.2 * (performance.now() - started - batchMs);
      // Whoever lost is about to try again; without this pause the winner would win every time.
      if (contended) await pause(batchMs / 2);
    }
  }

  function takeBatch(): Waiting[] {
    let bytes = 0;
    let count = 0;
    while (count < queue.length && count < MAX_BATCH_ENTRIES) {
      bytes += queue[count]?.entry.body.length ?? 0;
      if (count > 0 && bytes > MAX_BATCH_BYTES) break;
      count++;
    }
    const batch = queue.slice(0, count);
    queue = queue.slice(count);
    for (const { entry } of batch) queuedBytes -= entry.body.length;
    return batch;
  }

  /** Sends a batch, settles what came of it, puts back the rest. Answers whether others are writing at the same time and this one won. */
  async function sendBatch(batch: readonly Waiting[], first: number): Promise<boolean> {
    const documents = batch.map(({ entry }, index) => toStored(entry, first + index));
    let outcome: BatchOutcome;
    try {
      outcome = await insertBatch(events, documents, session);
    } catch (error) {
      logger.warn({ err: error, first, entries: batch.length }, "outcome of a batch unknown; finding out");
      outcome = { kind: "stopped", inserted: await untilKnown(batch, documents), by: "unknown" };
    }
    const stood = outcome.kind === "complete" ? batch.length : outcome.inserted;
    acknowledge(batch.slice(0, stood), first);
    if (outcome.kind === "complete") {
      return performance.now() - lastLossAt < CONTENTION_MS;
    }
    let rest = batch.slice(stood);
    if (outcome.by === "stream") {
      const [loser] = rest;
      rest = rest.slice(1);
      if (loser) refuse(loser, new StreamConflict(loser.entry.stream, loser.entry.version));
    } else {
      if (outcome.by === "position") {
        lastLossAt = performance.now();
        lostAt = first + stood;
      }
      tail = undefined;
    }
    putBack(rest);
    return false;
  }

  /** Asks, for as long as it takes, how many of a batch's entries stand. Until then nothing else is sent. */
  async function untilKnown(batch: readonly Waiting[], documents: readonly StoredEvent[]): Promise<number> {
    for (let delayMs = 20; ; delayMs = Math.min(delayMs * 2, 500)) {
      try {
        return await whichStand(db, events, documents, session);
      } catch (error) {
        logger.warn({ err: error }, "the outcome of a batch cannot be found out yet");
        tellImpatient(batch, "the database cannot be reached; whether this command was recorded is not known yet: try again with the same request_id", error);
        tellImpatient(queue, "the database cannot be reached; nothing was recorded", error);
        await pause(delayMs);
      }
    }
  }

  async function standAside(error: unknown): Promise<void> {
    logger.warn({ err: error }, "the tail of the log cannot be read");
    tellImpatient(queue, "the database cannot be reached; nothing was recorded", error);
    await pause(50);
  }

  function tellImpatient(among: readonly Waiting[], message: string, cause: unknown): void {
    const now = performance.now();
    for (const waiting of among) {
      if (now - waiting.since > options.patienceMs || closed) refuse(waiting, new Unavailable(message, { cause }));
    }
    const before = queue;
    queue = before.filter((waiting) => !waiting.answered);
    if (queue.length < before.length) queuedBytes = queue.reduce((sum, { entry }) => sum + entry.body.length, 0);
  }

  function putBack(rest: readonly Waiting[]): void {
    const open = rest.filter((waiting) => !waiting.answered);
    queue = [...open, ...queue];
    for (const { entry } of open) queuedBytes += entry.body.length;
  }

  function acknowledge(stood: readonly Waiting[], first: number): void {
    if (stood.length === 0) return;
    tail = first + stood.length - 1;
    stood.forEach((waiting, index) => {
      if (waiting.answered) return;
      waiting.answered = true;
      waiting.resolve(first + index);
    });
    for (const listener of listeners) listener(tail);
  }

  function refuse(waiting: Waiting, error: unknown): void {
    if (waiting.answered) return;
    waiting.answered = true;
    waiting.reject(error);
  }

  return {
    append,
    onAppended(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    async close() {
      closed = true;
      await pumping;
      await session.endSession();
    },
  };
}
