import { type Db, Long } from "mongodb";
import { EVENTS_COLLECTION, MAX_POSITION, type StoredEvent } from "../log/log-entry.ts";
import { checkpointsOf, readCheckpoints } from "../projections/checkpoint.ts";
import type { CheckpointStore } from "./checkpoint-store.ts";
import { AUDIT_TREE } from "./tree-keeper.ts";

/** How the log's tree stands beside the log. */
export type TreeState = {
  /** The newest position of the log; 0 when it is empty. */
  readonly head: number;
  /** How many entries the tree's tiles cover. */
  readonly covered: number;
  /** How many entries the newest checkpoint covers. */
  readonly signed: number;
  /** Why what is new is not signed, in one sentence; undefined when it is, or soon will be. */
  readonly problem: string | undefined;
};

/** For how long an entry may wait to be signed. Usually it is half a second. */
const SIGNED_WITHIN_MS = 10_000;
/** In how many of the entries that wait a gap is looked for; beyond them VerifyLog finds it. */
const MOST_COUNTED = 10_000;
/** How long a look may take. */
const ROUND_TRIP_MS = 5000;

/** Looks how the tree stands. `clock` is that of this process, by which entries are recorded, too. */
export async function readTreeState(db: Db, checkpoints: Pick<CheckpointStore, "newest">, clock: () => Date): Promise<TreeState> {
  const events = db.collection<Pick<StoredEvent, "_id" | "at">>(EVENTS_COLLECTION, { readConcern: "majority", readPreference: "primary" });
  // What covers the log is looked at before the log: it never is ahead of it.
  const [[kept], newest] = await Promise.all([readCheckpoints(checkpointsOf(db), [AUDIT_TREE]), checkpoints.newest()]);
  const last = await events.findOne(
    { _id: { $lte: MAX_POSITION } },
    { sort: { _id: -1 }, projection: { _id: 1 }, maxTimeMS: ROUND_TRIP_MS },
  );
  // Above the last position there may stand a fraction.
  const head = last ? Math.ceil(Number(last._id)) : 0;
  const signed = newest?.size ?? 0;
  const covered = kept?.position ?? 0;

  async function findProblem(): Promise<string | undefined> {
    if (kept?.lastError) return kept.lastError;
    if (head < signed) return `the log ends at position ${head}, and is signed up to position ${signed}`;
    if (head < covered) return `the log ends at position ${head}, and its tree covers position ${covered}`;
    if (head === signed) return undefined;
    const next = await events.findOne({ _id: Long.fromNumber(signed + 1) }, { projection: { at: 1 }, maxTimeMS: ROUND_TRIP_MS });
    if (!next) return `the log is damaged at position ${signed + 1}: there is no entry`;
    const waiting = { _id: { $gt: Long.fromNumber(signed), $lte: Long.fromNumber(head) } };
    const counted = await events.countDocuments(waiting, { limit: MOST_COUNTED, maxTimeMS: ROUND_TRIP_MS });
    if (counted < Math.min(MOST_COUNTED, head - signed)) return `the log has a gap between positions ${signed + 1} and ${head}`;
    // Whoever changes the database need not write a time.
    if (!(next.at instanceof Date)) return `the log is damaged at position ${signed + 1}: its entry has no time`;
    const waitedMs = clock().getTime() - next.at.getTime();
    if (waitedMs <= SIGNED_WITHIN_MS) return undefined;
    const entries = `the entries at positions ${signed + 1} to ${head}`;
    return `${entries} are not signed; the first of them waits for ${Math.round(waitedMs / 1000)} s, and the tree has come to ${covered}`;
  }

  return { head, covered, signed, problem: await findProblem() };
}
