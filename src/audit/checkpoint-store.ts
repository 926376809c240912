import { Binary, type Collection, type Db, Long, MongoServerError } from "mongodb";
import type { TreeHead } from "./checkpoint.ts";
import { sameHash } from "./merkle.ts";
import { parseSignatures } from "./signed-note.ts";

/** The collection of checkpoints that have been signed. */
export const CHECKPOINTS_COLLECTION = "audit_checkpoints";

/** A document of it. A size stands there before it is signed, so that no two roots are ever signed for one size. */
export type CheckpointDocument = {
  /** The size of the tree. */
  readonly _id: Long | number;
  readonly root: Binary;
  /** The signed checkpoint; null until it has been signed. */
  readonly note: string | null;
  /** Lines by which witnesses have signed it, too. */
  readonly cosignatures: readonly string[];
  readonly signed_at: Date | null;
  /** When it may go: a newer one has come, and it is not the first of its hour. */
  readonly expires_at?: Date;
};

/** A checkpoint as it was signed. */
export type SignedCheckpoint = TreeHead & {
  /** The note, with the cosignatures that have come in. */
  readonly signed: string;
  readonly signedAt: Date;
};

/** The log is not what was signed before: nothing may be signed until people have looked into it. */
export class HistoryChanged extends Error {
  override readonly name = "HistoryChanged";
  /** The size of the tree at which it shows. */
  readonly size: number;
  /** `path` names the file that tells so, where it is not the database. */
  constructor(size: number, path?: string) {
    super(
      path === undefined
        ? `the log's first ${size} entries are not those that were signed before; run: ordertrail audit verify --in-database`
        : `the log does not go on from the checkpoint over ${size} entries in ${path}; if a backup was restored, docs/audit.md says how to go on`,
    );
    this.size = size;
  }
}

/** The checkpoints of a log, as they were signed. All those of the last hour are kept, and of older ones one an hour. */
export type CheckpointStore = {
  ensureIndexes(): Promise<void>;
  /** The largest that has been signed or was about to be; undefined when nothing was. */
  newestRoot(): Promise<TreeHead | undefined>;
  /** Enters a root as the one of its size, once and for all. Throws HistoryChanged when the size has another. */
  reserve(head: TreeHead): Promise<void>;
  /** Keeps the note over a root that was reserved. */
  publish(size: number, note: string, signedAt: Date): Promise<void>;
  /** Adds witnesses' signatures to a checkpoint. */
  addCosignatures(size: number, lines: readonly string[]): Promise<void>;
  /** The newest one that is signed; undefined while there is none. */
  newest(): Promise<SignedCheckpoint | undefined>;
  /** All that are kept, the smallest first. */
  all(): AsyncGenerator<SignedCheckpoint, void, undefined>;
};

const DUPLICATE_KEY = 11000;
const HOUR_MS = 3600 * 1000;

/** The checkpoints in `db`. */
export function createCheckpointStore(db: Db): CheckpointStore {
  const collection: Collection<CheckpointDocument> = db.collection(CHECKPOINTS_COLLECTION, {
    readConcern: "majority",
    writeConcern: { w: "majority", journal: true },
    readPreference: "primary",
  });

  async function letGoOfThoseBefore(size: number, signedAt: Date): Promise<void> {
    const [last, before] = await collection
      .find({ _id: { $lt: Long.fromNumber(size) }, expires_at: { $exists: false } })
      .sort({ _id: -1 })
      .limit(2)
      .toArray();
    const hour = (date: Date | null | undefined) => Math.floor((date?.getTime() ?? 0) / HOUR_MS);
    if (!last || hour(last.signed_at) !== hour(before?.signed_at)) return;
    await collection.updateOne({ _id: last._id }, { $set: { expires_at: new Date(signedAt.getTime() + HOUR_MS) } });
  }

  return {
    async ensureIndexes() {
      await collection.createIndexes([{ key: { expires_at: 1 }, expireAfterSeconds: 0 }, { key: { expires_at: 1, _id: 1 } }]);
    },
    async newestRoot() {
      const [newest] = await collection.find().sort({ _id: -1 }).limit(1).toArray();
      return newest && { size: Number(newest._id), root: bytesOf(newest.root) };
    },
    async reserve({ size, root }) {
      const document = { _id: Long.fromNumber(size), root: new Binary(root), note: null, cosignatures: [], signed_at: null };
      try {
        await collection.insertOne(document);
      } catch (error) {
        if (!(error instanceof MongoServerError && error.code === DUPLICATE_KEY)) throw error;
        const there = await collection.findOne({ _id: Long.fromNumber(size) });
        if (!there || !sameHash(bytesOf(there.root), root)) throw new HistoryChanged(size);
      }
    },
    async publish(size, note, signedAt) {
      await collection.updateOne({ _id: Long.fromNumber(size) }, { $set: { note, signed_at: signedAt } });
      await letGoOfThoseBefore(size, signedAt);
    },
    async addCosignatures(size, lines) {
      await collection.updateOne({ _id: Long.fromNumber(size) }, { $addToSet: { cosignatures: { $each: [...lines] } } });
    },
    async newest() {
      const [newest] = await collection
        .find({ note: { $type: "string" } })
        .sort({ _id: -1 })
        .limit(1)
        .toArray();
      return newest && toSigned(newest);
    },
    async *all() {
      for await (const document of collection.find({ note: { $type: "string" } }).sort({ _id: 1 })) yield toSigned(document);
    },
  };
}

/** Somebody may have been at the document: what is not to be read makes no root, and no cosignature. */
function toSigned({ _id, root, note, cosignatures, signed_at }: Partial<CheckpointDocument>): SignedCheckpoint {
  const lines = Array.isArray(cosignatures) ? cosignatures.filter(isSignatureLine) : [];
  return { size: Number(_id), root: bytesOf(root), signed: (note ?? "") + lines.join(""), signedAt: signed_at ?? new Date(0) };
}

function bytesOf(value: unknown): Uint8Array {
  return value instanceof Binary ? value.value() : new Uint8Array();
}

function isSignatureLine(line: unknown): boolean {
  try {
    return typeof line === "string" && parseSignatures(line).length === 1;
  } catch {
    return false;
  }
}
