import { setTimeout as pause } from "node:timers/promises";
import { type ClientSession, type Collection, type Db, type Filter, Long, MongoBulkWriteError } from "mongodb";
import { LogDamaged } from "../domain/log-damaged.ts";
import { ROUND_TRIP_MS } from "./log-client.ts";
import { type EncodedEntry, MAX_POSITION, type StoredEvent, WRITERS_COLLECTION } from "./log-entry.ts";

/** What became of a batch: all of it stands, or its first `inserted` entries do and something stopped it there. */
export type BatchOutcome =
  | { readonly kind: "complete" }
  | {
      readonly kind: "stopped";
      readonly inserted: number;
      /** `position`: another process wrote there first. `stream`: that version of the stream exists. `unknown`: a fault; what stands was found out. */
      readonly by: "position" | "stream" | "unknown";
    };

const DUPLICATE_KEY = 11000;
const DURABLE = { w: "majority", j: true, wtimeoutMS: ROUND_TRIP_MS } as const;
/** What is read will not be taken back. */
const AT_MAJORITY = { readConcern: "majority", readPreference: "primary", maxTimeMS: ROUND_TRIP_MS } as const;

/**
 * Inserts a batch, in order, durable on a majority. Throws when the outcome is unknown: ask `whichStand` then, and do not
 * write anything before it has answered.
 */
export async function insertBatch(
  events: Collection<StoredEvent>,
  documents: readonly StoredEvent[],
  session: ClientSession,
): Promise<BatchOutcome> {
  try {
    await events.insertMany(documents, { ordered: true, session, writeConcern: DURABLE });
    return { kind: "complete" };
  } catch (error) {
    if (!(error instanceof MongoBulkWriteError) || error.result.getWriteConcernError()) throw error;
    const [failure] = Array.isArray(error.writeErrors) ? error.writeErrors : [error.writeErrors];
    if (failure?.code !== DUPLICATE_KEY) throw error;
    // The server names the index in its message only; `_id` is checked before any other.
    const by = failure.errmsg?.includes("index: _id_") ? "position" : "stream";
    return { kind: "stopped", inserted: failure.index, by };
  }
}

/**
 * How many of a batch's documents, from its first, stand in the log for good, when its outcome was unknown; the rest will
 * never appear. A write in the same session with a higher transaction number comes first: once a majority has it, the
 * server refuses a late copy of the batch, and what it wrote before is as durable as that write.
 */
export async function whichStand(
  db: Db,
  events: Collection<StoredEvent>,
  documents: readonly StoredEvent[],
  session: ClientSession,
): Promise<number> {
  const id = session.id?.id.toString("hex") ?? "";
  await db
    .collection<{ _id: string }>(WRITERS_COLLECTION)
    .updateOne({ _id: id }, { $inc: { barriers: 1 }, $currentDate: { at: true } }, { upsert: true, session, writeConcern: DURABLE });
  const ids = documents.map((document) => document._id);
  const found = await events
    .find({ _id: { $in: ids } }, { ...AT_MAJORITY, session, promoteLongs: false })
    .sort({ _id: 1 })
    .toArray();
  let stood = 0;
  for (const document of documents) {
    const there = found[stood];
    if (!there?._id.equals(document._id) || Buffer.compare(there.body.value(), document.body.value()) !== 0) break;
    stood++;
  }
  return stood;
}

/** Which of some entries have lost their race already: a majority has another entry of that version of the stream. */
export async function whichLost<Entry extends EncodedEntry>(
  events: Collection<StoredEvent>,
  entries: readonly Entry[],
): Promise<ReadonlySet<Entry>> {
  if (entries.length === 0) return new Set();
  const clauses = entries.map(({ stream, version }) => ({ stream, version }));
  const found = await events.find({ $or: clauses }, { ...AT_MAJORITY, projection: { stream: 1, version: 1 } }).toArray();
  const taken = new Set(found.map(({ stream, version }) => `${version} ${stream}`));
  return new Set(entries.filter(({ stream, version }) => taken.has(`${version} ${stream}`)));
}

/**
 * Where some entries stand that another process may have recorded: their positions, or "another" where a different entry has
 * their version. Those that a majority does not have, yet or ever, are left out.
 */
export async function findRecorded<Entry extends EncodedEntry>(
  events: Collection<StoredEvent>,
  entries: readonly Entry[],
): Promise<ReadonlyMap<Entry, number | "another">> {
  const clauses = entries.map(({ stream, version }) => ({ stream, version }));
  const found = await events.find({ $or: clauses }, AT_MAJORITY).toArray();
  const byVersion = new Map(found.map((document) => [`${document.version} ${document.stream}`, document]));
  const places = new Map<Entry, number | "another">();
  for (const entry of entries) {
    const document = byVersion.get(`${entry.version} ${entry.stream}`);
    if (!document) continue;
    const isSame = Buffer.compare(document.body.value(), entry.body) === 0;
    places.set(entry, isSame ? Number(document._id) : "another");
  }
  return places;
}

/**
 * The newest position that a majority has; 0 when the log is empty. Where another process is known to have written at
 * `atLeast`, waits a moment for a majority to have that too; it may also be gone with a deposed primary. Throws LogDamaged
 * when there is no entry before the newest.
 */
export async function readTail(events: Collection<StoredEvent>, atLeast: number, session: ClientSession): Promise<number> {
  for (let tries = 1; ; tries++) {
    const [newest, before] = await events
      .find({ _id: { $lte: MAX_POSITION } }, { ...AT_MAJORITY, session, projection: { _id: 1 } })
      .sort({ _id: -1 })
      .limit(2)
      .toArray();
    const tail = newest ? Number(newest._id) : 0;
    if (tail !== (before ? Number(before._id) + 1 : Math.min(tail, 1))) throw new LogDamaged(tail - 1, "there is no entry");
    if (tail >= atLeast || tries === 10) return tail;
    await pause(tries);
  }
}

/**
 * Whether every position of a range has its entry; writes of this session have been told to be durable up to its end. A read
 * in it sees no less, also of a new primary: what is missing has been taken away.
 */
export async function isWhole(events: Collection<StoredEvent>, from: number, to: number, session: ClientSession): Promise<boolean> {
  const range: Filter<StoredEvent> = { _id: { $gte: Long.fromNumber(from), $lte: Long.fromNumber(to) } };
  return (await events.countDocuments(range, { ...AT_MAJORITY, session })) === Math.max(0, to - from + 1);
}
