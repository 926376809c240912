import { setTimeout as pause } from "node:timers/promises";
import type { ClientSession, Collection, Db, MongoClient } from "mongodb";
import type { Logger } from "pino";
import { LogDamaged } from "../domain/log-damaged.ts";
import { Refusal, Unavailable } from "../domain/refusal.ts";
import { type BatchOutcome, findRecorded, insertBatch, isWhole, readTail, whichLost, whichStand } from "./batch.ts";
import { type Forwarding, MAX_FORWARDED_BYTES } from "./forwarding.ts";
import { createGathering } from "./gathering.ts";
import { type EncodedEntry, EVENTS_COLLECTION, MAX_BODY_BYTES, type RecordedEntry, type StoredEvent, toStored } from "./log-entry.ts";

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
  /** How long an entry may take, waiting and on its way, before its caller hears UNAVAILABLE. */
  readonly patienceMs: number;
};

/** Hears of entries that are durable on a majority, in the order of the log. */
export type AppendListener = (entries: readonly RecordedEntry[]) => void;

/** Appends to the log, many entries a round trip. The process's only writer of the `events` collection. */
export type Appender = {
  /**
   * Appends an entry and resolves to its position once it is durable on a majority.
   * Rejects with StreamConflict; with a Refusal PAYLOAD_TOO_LARGE or OVERLOADED (nothing recorded); with Unavailable when
   * the entry was not recorded within `patienceMs` (whether it may be yet is then said in the message); with the signal's
   * reason when that fires while the entry waits. An entry on its way is not taken back by the signal. With LogDamaged, from
   * then on always, when entries have been taken away that were at the log's end: what this process remembers of the log is
   * not so any more, and what it would append might stand behind a gap.
   */
  append(entry: EncodedEntry, signal?: AbortSignal): Promise<number>;
  /** Throws LogDamaged when that is why nothing is appended any more. */
  check(): void;
  /** To be told that a position is durable which another process has appended. */
  heardOf(position: number): void;
  /** Calls back with what this process has appended, batch by batch; returns the function that ends it. */
  onAppended(listener: AppendListener): () => void;
  /** Refuses further entries, and resolves when those accepted have been answered, after `patienceMs` and a round trip at the latest. */
  close(): Promise<void>;
};

type Waiting = {
  readonly entry: EncodedEntry;
  readonly since: number;
  readonly signal: AbortSignal | undefined;
  readonly resolve: (position: number) => void;
  readonly reject: (error: unknown) => void;
  /** True once the caller has been told something; a late outcome is then nobody's. */
  answered: boolean;
  /** True once another process was asked to append it and has not said what became of it. */
  mayStand: boolean;
};

/** An entry, and where it stands. */
type Placed = { readonly waiting: Waiting; readonly position: number };

const UNKNOWN = "the database does not answer; whether this command was recorded is not known yet: try again with the same request_id";
const MAX_BATCH_ENTRIES = 512;
const MAX_BATCH_BYTES = 8 * 1024 * 1024;
const RETRY_PAUSE_MS = 50;
const PATIENCE_CHECK_MS = 250;
/** How often a process that appends looks whether the end of the log is where it remembers it: a round trip, of hundreds. */
const LOOK_EVERY_MS = 250;
/** How long after a lost race a process takes others to be writing too. */
const CONTENTION_MS = 1000;
/** The longest that a winner waits for the loser; a batch's time says nothing after an outage. */
const MAX_YIELD_MS = 50;
/** How long a new primary may show less than others have been told is durable, before that is taken for gone. */
const BEHIND_MS = 5000;
/** The longest that a batch waits to become as large as usual. */
const MAX_GATHER_MS = 3;

/**
 * The appender of this process. It has one batch in flight; what comes meanwhile waits and makes up the next one.
 * It knows the log's tail, so a batch is one ordered insert; that another process was faster shows as a duplicate key.
 * With `forwarding`, batches go to the process that appends for all, while there is one. Nothing rests on that: an entry which
 * that process may or may not have recorded is appended here as well, and is known again by its bytes.
 */
export function createAppender(client: MongoClient, db: Db, options: AppenderOptions, logger: Logger, forwarding?: Forwarding): Appender {
  if (!client.options.retryWrites) throw new Error("the appender needs a client that retries writes: see createLogClient");
  const events: Collection<StoredEvent> = db.collection<StoredEvent>(EVENTS_COLLECTION);
  const listeners = new Set<AppendListener>();
  // One session for every write, so that the server refuses a late copy of a batch that has been given up (see whichStand).
  const session: ClientSession = client.startSession();
  const gathering = createGathering();
  let queue: Waiting[] = [];
  /** The batch that is away, for as long as its outcome is not known. */
  let inFlight: readonly Waiting[] = [];
  let queuedBytes = 0;
  let tail: number | undefined;
  /** The newest position that this process knows to be durable. */
  let durable = 0;
  /** The newest position that another process has said to be durable, and since when the database shows less. */
  let told = 0;
  let behindSince: number | undefined;
  /** Where the log ended when it last looked, and when that was. */
  let seen = 0;
  let seenAt = Number.NEGATIVE_INFINITY;
  let damage: LogDamaged | undefined;
  let pumping: Promise<void> | undefined;
  let closed = false;
  /** Where this process last lost a race, and when. */
  let lostAt = 0;
  let lastLossAt = Number.NEGATIVE_INFINITY;
  let batchMs = 1;
  let lastFault: unknown;

  function append(entry: EncodedEntry, signal?: AbortSignal): Promise<number> {
    if (entry.body.length > MAX_BODY_BYTES) {
      return Promise.reject(
        new Refusal("PAYLOAD_TOO_LARGE", `what this command would record takes ${entry.body.length} bytes; ${MAX_BODY_BYTES} is the most`, {
          limit_bytes: String(MAX_BODY_BYTES),
        }),
      );
    }
    if (damage) return Promise.reject(damage);
    if (closed) return Promise.reject(new Unavailable("this process is stopping; nothing was recorded"));
    if (queue.length >= options.maxQueuedEntries || queuedBytes + entry.body.length > options.maxQueuedBytes) {
      return Promise.reject(overloaded());
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
        signal,
        answered: false,
        mayStand: false,
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
      gathering.arrived(queue.length);
      pumping ??= pump();
    });
  }

  async function pump(): Promise<void> {
    const watch = setInterval(tellImpatient, PATIENCE_CHECK_MS);
    try {
      // Entries that arrive in the same turn share the first batch.
      await Promise.resolve();
      while (queue.length > 0) {
        if (damage) {
          refuseAll(damage);
          break;
        }
        const writer = forwarding?.writer();
        if (forwarding && writer !== undefined) {
          await gathering.untilUsual(() => queue.length, MAX_GATHER_MS);
          if (queue.length > 0) await forwardBatch(forwarding, writer, takeBatch(MAX_FORWARDED_BYTES));
          continue;
        }
        const end = tail;
        if (end === undefined) {
          tail = await findTail();
          continue;
        }
        if (performance.now() - seenAt > LOOK_EVERY_MS) {
          await lookAt(end);
          continue;
        }
        await gathering.untilUsual(() => queue.length, Math.min(batchMs / 2, MAX_GATHER_MS));
        // All of them may have been given up meanwhile, and another process may have told of its appends.
        if (queue.length === 0) break;
        if (tail !== end) continue;
        const started = performance.now();
        const contended = await sendBatch(takeBatch(MAX_BATCH_BYTES), end + 1);
        batchMs += 0.2 * (performance.now() - started - batchMs);
        // Whoever lost is about to try again; without this pause the winner would win every time.
        if (contended) await pause(Math.min(batchMs / 2, MAX_YIELD_MS));
      }
    } finally {
      clearInterval(watch);
      // In the turn of the last look at the queue: an entry that came between the two would wait for ever.
      pumping = undefined;
    }
  }

  async function findTail(): Promise<number | undefined> {
    try {
      const found = await readTail(events, Math.max(lostAt, told), session);
      if (found < durable) throw takenAway(durable);
      if (found < told) {
        behindSince ??= performance.now();
        if (performance.now() - behindSince > BEHIND_MS) throw takenAway(told);
        throw new Error(`the database does not show position ${told} yet, which another process has recorded`);
      }
      behindSince = undefined;
      durable = found;
      seen = found;
      seenAt = performance.now();
      return found;
    } catch (error) {
      await noteFault(error, "the tail of the log cannot be read");
      return undefined;
    }
  }

  /** Looks whether the end of the log is still there, and all that has come to it since the last look. */
  async function lookAt(end: number): Promise<void> {
    try {
      if (!(await isWhole(events, Math.max(1, seen), end, session))) throw takenAway(end);
      seen = end;
      seenAt = performance.now();
    } catch (error) {
      await noteFault(error, "whether the log ends where it did cannot be read");
    }
  }

  async function noteFault(error: unknown, what: string): Promise<void> {
    if (error instanceof LogDamaged) {
      damage = error;
      logger.error({ err: error }, "THE LOG HAS BEEN CHANGED: this process records nothing any more; restart it once the log is in order");
      return;
    }
    logger.warn({ err: error }, what);
    lastFault = error;
    await pause(RETRY_PAUSE_MS);
  }

  function refuseAll(error: LogDamaged): void {
    for (const waiting of queue) refuse(waiting, error);
    queue = [];
    queuedBytes = 0;
  }

  function takeBatch(maxBytes: number): Waiting[] {
    let bytes = 0;
    let count = 0;
    while (count < queue.length && count < MAX_BATCH_ENTRIES) {
      bytes += queue[count]?.entry.body.length ?? 0;
      if (count > 0 && bytes > maxBytes) break;
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
    inFlight = batch;
    try {
      outcome = await insertBatch(events, documents, session);
    } catch (error) {
      logger.warn({ err: error, first, entries: batch.length }, "outcome of a batch unknown; finding out");
      lastFault = error;
      outcome = { kind: "stopped", inserted: await untilKnown(batch, documents), by: "unknown" };
    }
    const stood = outcome.kind === "complete" ? batch.length : outcome.inserted;
    if (stood > 0) {
      tail = first + stood - 1;
      durable = tail;
    }
    acknowledge(batch.slice(0, stood).map((waiting, index) => ({ waiting, position: first + index })));
    if (outcome.kind === "complete") {
      inFlight = [];
      return performance.now() - lastLossAt < CONTENTION_MS;
    }
    const rest = batch.slice(stood);
    switch (outcome.by) {
      case "stream":
        tail = first + stood - 1;
        await refuseLosers(rest);
        break;
      case "position":
        lastLossAt = performance.now();
        lostAt = first + stood;
        tail = undefined;
        break;
      case "unknown":
        tail = undefined;
    }
    inFlight = [];
    putBack(rest);
    // The fault may be a lasting one, such as a full disk: what is sent again must not be sent without a pause.
    if (outcome.by === "unknown") await pause(RETRY_PAUSE_MS);
    return false;
  }

  /** Has another process append a batch, settles what it says, puts back the rest. */
  async function forwardBatch({ forward }: Forwarding, writer: string, batch: readonly Waiting[]): Promise<void> {
    inFlight = batch;
    const outcomes = await forward(
      writer,
      batch.map(({ entry }) => entry),
      Math.max(durable, told),
    );
    inFlight = [];
    // Others have appended: where the log ends is not known here any more.
    tail = undefined;
    const recorded: Placed[] = [];
    const losers: Waiting[] = [];
    batch.forEach((waiting, index) => {
      const outcome = outcomes[index];
      if (outcome === undefined) waiting.mayStand = true;
      else if (outcome === "conflict") losers.push(waiting);
      // One that may stand by an earlier request goes round again: only who inserts it can tell.
      else if (outcome === "overloaded") waiting.mayStand || refuse(waiting, overloaded());
      else recorded.push({ waiting, position: outcome.position });
    });
    told = recorded.reduce((newest, { position }) => Math.max(newest, position), told);
    acknowledge(recorded);
    await refuseAsLost(losers);
    putBack(batch);
  }

  /**
   * Refuses the first of some entries, whose version exists, and those of the others that have lost, too. One that is
   * found out at each insert would cost a round trip each, and make those behind it lose in turn: a process whose rival
   * is busy with the same streams would never again record anything.
   */
  async function refuseLosers([loser, ...others]: readonly Waiting[]): Promise<void> {
    if (!loser) return;
    let lost: ReadonlySet<EncodedEntry> = new Set();
    try {
      lost = await whichLost(
        events,
        others.map(({ entry }) => entry),
      );
    } catch (error) {
      logger.warn({ err: error }, "which entries have lost a race cannot be read; the next insert will tell");
    }
    await refuseAsLost([loser, ...others.filter(({ entry }) => lost.has(entry))]);
  }

  /** Refuses entries whose version exists; one that another process may have recorded for this one is accepted if it is that. */
  async function refuseAsLost(losers: readonly Waiting[]): Promise<void> {
    const unsure = losers.filter(({ mayStand }) => mayStand);
    for (const waiting of losers) {
      if (!waiting.mayStand) refuse(waiting, new StreamConflict(waiting.entry.stream, waiting.entry.version));
    }
    if (unsure.length === 0) return;
    try {
      const found = await findRecorded(
        events,
        unsure.map(({ entry }) => entry),
      );
      const recorded: Placed[] = [];
      for (const waiting of unsure) {
        const place = found.get(waiting.entry);
        if (place === "another") refuse(waiting, new StreamConflict(waiting.entry.stream, waiting.entry.version));
        else if (place !== undefined) recorded.push({ waiting, position: place });
      }
      told = recorded.reduce((newest, { position }) => Math.max(newest, position), told);
      acknowledge(recorded.sort((a, b) => a.position - b.position));
      // A majority does not have it yet: it goes round again.
      if (found.size < unsure.length) await pause(RETRY_PAUSE_MS);
    } catch (error) {
      await noteFault(error, "whether another process has recorded entries cannot be read");
    }
  }

  /** Asks, for as long as it takes, how many of a batch's entries stand. Until then nothing else is sent. */
  async function untilKnown(batch: readonly Waiting[], documents: readonly StoredEvent[]): Promise<number> {
    for (let delayMs = 20; ; delayMs = Math.min(delayMs * 2, 500)) {
      try {
        return await whichStand(db, events, documents, session);
      } catch (error) {
        logger.warn({ err: error }, "the outcome of a batch cannot be found out yet");
        lastFault = error;
        // Nobody asks any more: what became of the batch is for the next process to see.
        if (closed && queue.length === 0 && batch.every(({ answered }) => answered)) return 0;
        await pause(delayMs);
      }
    }
  }

  /** Answers those who have waited long enough, whether the database fails, is slow, or says nothing at all. */
  function tellImpatient(): void {
    const patientSince = performance.now() - options.patienceMs;
    const tell = (among: readonly Waiting[], message: string) => {
      for (const waiting of among) {
        if (waiting.since < patientSince) refuse(waiting, new Unavailable(message, { cause: lastFault }));
      }
    };
    tell(inFlight, UNKNOWN);
    const mayStand = queue.filter((waiting) => waiting.mayStand);
    tell(mayStand, UNKNOWN);
    tell(queue, "the database does not answer; nothing was recorded");
    const open = queue.filter(({ answered }) => !answered);
    if (open.length === queue.length) return;
    queue = open;
    queuedBytes = open.reduce((sum, { entry }) => sum + entry.body.length, 0);
  }

  function putBack(rest: readonly Waiting[]): void {
    for (const waiting of rest) {
      if (waiting.signal?.aborted) refuse(waiting, waiting.signal.reason);
    }
    const open = rest.filter(({ answered }) => !answered);
    queue = [...open, ...queue];
    for (const { entry } of open) queuedBytes += entry.body.length;
  }

  /** Answers those whose entries are durable, and tells the listeners, run by run of positions. */
  function acknowledge(placed: readonly Placed[]): void {
    for (const { waiting, position } of placed) {
      if (waiting.answered) continue;
      waiting.answered = true;
      waiting.resolve(position);
    }
    if (listeners.size === 0) return;
    let run: RecordedEntry[] = [];
    const tell = () => {
      for (const listener of listeners) if (run.length > 0) listener(run);
    };
    for (const { waiting, position } of placed) {
      if (position !== (run.at(-1)?.position ?? position - 1) + 1) {
        tell();
        run = [];
      }
      const { entry, body } = waiting.entry;
      run.push({ position, entry, body });
    }
    tell();
  }

  function refuse(waiting: Waiting, error: unknown): void {
    if (waiting.answered) return;
    waiting.answered = true;
    waiting.reject(error);
  }

  return {
    append,
    check() {
      if (damage) throw damage;
    },
    heardOf(position) {
      if (position <= told) return;
      told = position;
      // Read again before the next batch, which would otherwise find the place taken. One on its way finds out by itself.
      if (inFlight.length === 0 && tail !== undefined && tail < position) tail = undefined;
    },
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

function overloaded(): Refusal {
  return new Refusal("OVERLOADED", "too many commands are waiting to be recorded; nothing was recorded of this one");
}

function takenAway(position: number): LogDamaged {
  return new LogDamaged(
    position,
    "its entry, or one before it that was recorded, is gone; nothing more is recorded until Ordertrail is restarted",
  );
}
