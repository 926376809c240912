import { type Collection, type Db, type Document, Long, MongoServerError } from "mongodb";

/** How far a rebuild of a projection has come. */
export type Rebuild = {
  /** Tells this rebuild from others. */
  readonly id: string;
  /** `requested`: nobody has begun. `building`: the copy is being written. `swapping`: it is complete and becomes the live one. */
  readonly phase: "requested" | "building" | "swapping";
  /** The collection that is being built; null before it is begun. No two attempts share a name. */
  readonly copy: string | null;
  /** The revision of the code that builds it; 0 before it is begun. */
  readonly revision: number;
  /** Every entry up to this position is in the copy. */
  readonly position: number;
  /** What keeps it from going on; null if nothing does. */
  readonly lastError: string | null;
};

/** Where a projection stands. It is never ahead of the work: every entry up to `position` is in the live copy, durable on a majority. */
export type Checkpoint = {
  readonly name: string;
  readonly position: number;
  /** The revision of the code that wrote the live copy. */
  readonly revision: number;
  /** The process that holds the lease, by the database's clock; null if none does. */
  readonly runner: string | null;
  readonly progressedAt: Date | null;
  /** What keeps it from going on; null if nothing does. */
  readonly lastError: string | null;
  readonly rebuild: Rebuild | null;
  /** The scratch copies of the comparisons now under way. */
  readonly scratchCopies: readonly string[];
};

/** A document of the `checkpoints` collection. */
export type CheckpointDocument = {
  readonly _id: string;
  /** Written as a 64-bit integer, read as a number. */
  readonly position: Long | number;
  readonly revision: number;
  readonly lease: { readonly owner: string | null; readonly fence: number; readonly expires_at: Date };
  readonly progressed_at: Date | null;
  readonly last_error: string | null;
  readonly rebuild: {
    readonly id: string;
    readonly phase: Rebuild["phase"];
    readonly copy: string | null;
    readonly revision: number;
    readonly position: Long | number;
    readonly last_error: string | null;
  } | null;
  readonly scratch_copies: readonly { readonly collection: string; readonly expires_at: Date }[];
};

/** How long one change or look may take before it counts as failed. */
const ROUND_TRIP_MS = 5000;

/** The `checkpoints` collection. Every change is durable on a majority, every read is of what is. */
export function checkpointsOf(db: Db): Collection<CheckpointDocument> {
  return db.collection<CheckpointDocument>("checkpoints", {
    readConcern: "majority",
    writeConcern: { w: "majority", journal: true },
    readPreference: "primary",
    timeoutMS: ROUND_TRIP_MS,
  });
}

/** Creates a projection's checkpoint before its first entry, if there is none. `revision` is that of what the collection holds. */
export async function createCheckpoint(checkpoints: Collection<CheckpointDocument>, name: string, revision: number): Promise<void> {
  const created: Omit<CheckpointDocument, "_id"> = {
    position: Long.ZERO,
    revision,
    lease: { owner: null, fence: 0, expires_at: new Date(0) },
    progressed_at: null,
    last_error: null,
    rebuild: null,
    scratch_copies: [],
  };
  try {
    await checkpoints.updateOne({ _id: name }, { $setOnInsert: created }, { upsert: true });
  } catch (error) {
    // Another process created it at the same moment.
    if (!(error instanceof MongoServerError && error.code === 11000)) throw error;
  }
}

/** The checkpoints of these projections, those that exist, as they are by the database's clock. */
export async function readCheckpoints(checkpoints: Collection<CheckpointDocument>, names: readonly string[]): Promise<Checkpoint[]> {
  const found = checkpoints.aggregate<CheckpointDocument>([
    { $match: { _id: { $in: [...names] } } },
    { $set: AS_OF_NOW },
    { $sort: { _id: 1 } },
  ]);
  return (await found.toArray()).map(toCheckpoint);
}

/** Leaves out what has expired, by the database's clock. */
export const AS_OF_NOW: Document = {
  "lease.owner": { $cond: [{ $gt: ["$lease.expires_at", "$$NOW"] }, "$lease.owner", null] },
  scratch_copies: { $filter: { input: "$scratch_copies", cond: { $gt: ["$$this.expires_at", "$$NOW"] } } },
};

/** The checkpoint of a document whose expired parts are left out. */
export function toCheckpoint({
  _id,
  lease,
  position,
  revision,
  progressed_at,
  last_error,
  rebuild,
  scratch_copies,
}: CheckpointDocument): Checkpoint {
  return {
    name: _id,
    position: Number(position),
    revision,
    runner: lease.owner,
    progressedAt: progressed_at,
    lastError: last_error,
    rebuild: rebuild && {
      id: rebuild.id,
      phase: rebuild.phase,
      copy: rebuild.copy,
      revision: rebuild.revision,
      position: Number(rebuild.position),
      lastError: rebuild.last_error,
    },
    scratchCopies: scratch_copies.map(({ collection }) => collection),
  };
}
