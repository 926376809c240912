import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type Db, MongoServerError } from "mongodb";
import type { Role } from "../gen/ordertrail/events/v1/values_pb.js";
import { eventType, type RecordedEntry } from "./log-entry.ts";
import { MOST_DISORDER_MS, positionBefore } from "./position-at.ts";
import type { LogReader, ReadFilter } from "./reader.ts";

/** What to look through, and what to take of it. */
export type ScanOptions = ReadFilter & {
  readonly after: number;
  /** The last position; 0 for the head of the log. */
  readonly to: number;
  readonly recordedFrom?: Date | undefined;
  readonly recordedBefore?: Date | undefined;
  /** UNSPECIFIED for anybody. */
  readonly actorRole: Role;
  /** Empty for anybody. */
  readonly actorSubject: string;
  /** Goes on with what comes. */
  readonly follow: boolean;
  readonly signal: AbortSignal;
};

/** What matched, and how far the log has been looked through towards `target`. */
export type Scanned = { readonly entries: readonly RecordedEntry[]; readonly position: number; readonly target: number };

/** So many positions are looked through between two signs of life. */
const STEP_POSITIONS = 10_000;
const BATCH_ENTRIES = 200;
const CURSOR_NOT_FOUND = 43;

/**
 * Looks through the log, oldest first. The first message comes at once; where nothing matches, one comes every 10,000
 * positions, and the last one says that the end has been reached. Reads no faster than it is asked to, and holds one
 * batch at a time. Ends by throwing the signal's reason.
 */
export async function* scanLog(db: Db, reader: LogReader, options: ScanOptions): AsyncGenerator<Scanned, void, undefined> {
  const { follow, signal } = options;
  // A new primary may know less than the old one did. In one session no read sees less than the one before it: without
  // that, the end could lie beyond what is read, and what is between would be passed over.
  await using session = db.client.startSession({ causalConsistency: true });
  const head = await reader.head(session);
  const last = options.to > 0 ? Math.min(options.to, head) : head;
  const { recordedFrom, recordedBefore } = options;
  const skipTo = recordedFrom ? await positionBefore(db, new Date(recordedFrom.getTime() - MOST_DISORDER_MS), head) : 0;
  const ends = recordedBefore ? await positionBefore(db, new Date(recordedBefore.getTime() + MOST_DISORDER_MS), head) : head;
  const target = Math.max(options.after, Math.min(last, ends));
  let position = Math.max(options.after, Math.min(skipTo, target));
  yield { entries: [], position, target };

  const { types, stream } = options;
  // Of a stream all is read, so that it shows when something is missing between what is asked for.
  const filter: ReadFilter = stream === undefined ? { ...(types && { types }) } : { stream };
  const matching = matcherOf(options);
  // A stream is found by its own index, however far apart its entries are.
  const step = stream === undefined ? STEP_POSITIONS : Number.MAX_SAFE_INTEGER;
  while (position < target) {
    signal.throwIfAborted();
    const to = Math.min(target, position + step);
    const read = reader.readForward({ ...filter, after: position, to, batchSize: BATCH_ENTRIES, signal }, session);
    try {
      for await (const batch of read) {
        position = batch.at(-1)?.position ?? position;
        const entries = batch.filter(matching);
        if (entries.length > 0) yield { entries, position, target };
      }
    } catch (error) {
      // The database drops a cursor that nobody has asked for ten minutes: a slow reader goes on with a new one.
      if (!(error instanceof MongoServerError && error.code === CURSOR_NOT_FOUND)) throw error;
      continue;
    }
    position = to;
    yield { entries: [], position, target };
  }
  if (!follow) return;

  for await (const { entries: found, position: reached } of reader.follow({
    ...filter,
    after: position,
    batchSize: BATCH_ENTRIES,
    signal,
  })) {
    yield { entries: found.filter(matching), position: reached, target: reached };
  }
}

function matcherOf({
  stream,
  types,
  recordedFrom,
  recordedBefore,
  actorRole,
  actorSubject,
}: ScanOptions): (recorded: RecordedEntry) => boolean {
  const from = recordedFrom?.getTime() ?? Number.NEGATIVE_INFINITY;
  const before = recordedBefore?.getTime() ?? Number.POSITIVE_INFINITY;
  const wanted = stream === undefined ? undefined : types;
  return ({ entry: { recordedAt, actor, events } }) => {
    if (wanted && !events.some((event) => wanted.includes(eventType(event)))) return false;
    const at = recordedAt ? timestampMs(recordedAt) : 0;
    if (at < from || at >= before) return false;
    return (actorRole === 0 || actor?.role === actorRole) && (actorSubject === "" || actor?.subject === actorSubject);
  };
}
