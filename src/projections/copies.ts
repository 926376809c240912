import { randomBytes } from "node:crypto";
import { type Db, MongoServerError } from "mongodb";
import type { Checkpoint } from "./checkpoint.ts";
import type { Lease } from "./lease.ts";
import type { Projection } from "./projection.ts";

const NAMESPACE_NOT_FOUND = 26;

/**
 * A name for a copy of a projection's collection. Never used twice: so a late write or rename of a process that was given
 * up can reach what it was meant for, or nothing.
 */
export function copyName(projection: Projection, purpose: "rebuild" | "verify"): string {
  return `${projection.collection}_${purpose}_${randomBytes(8).toString("hex")}`;
}

/** Whether a collection exists. */
export async function exists(db: Db, collection: string): Promise<boolean> {
  return await db.listCollections({ name: collection }, { nameOnly: true }).hasNext();
}

/** Creates a collection, empty, ready to be written. */
export async function createCopy(db: Db, projection: Projection, collection: string): Promise<void> {
  await db.collection(collection).createIndexes([{ ...projection.keyIndex }]);
}

/** Gives a collection all the indexes of the projection. */
export async function ensureIndexes(db: Db, projection: Projection, collection: string): Promise<void> {
  await db.collection(collection).createIndexes([projection.keyIndex, ...projection.indexes].map((index) => ({ ...index })));
}

/** Puts a copy in the place of the live collection. Done again after an unknown outcome, it changes nothing. */
export async function swapIn(db: Db, projection: Projection, copy: string): Promise<void> {
  try {
    await db.collection(copy).rename(projection.collection, { dropTarget: true, writeConcern: { w: "majority" } });
  } catch (error) {
    if (!(error instanceof MongoServerError && error.code === NAMESPACE_NOT_FOUND)) throw error;
  }
}

/** Drops the copies that no rebuild and no comparison uses: what processes that were killed have left. */
export async function dropLeftOvers(db: Db, projection: Projection, lease: Lease): Promise<void> {
  const pattern = new RegExp(`^${projection.collection}_(rebuild|verify)_[0-9a-f]{16}$`);
  const found = await db.listCollections({ name: pattern }, { nameOnly: true }).toArray();
  if (found.length === 0) return;
  // A copy is entered in the checkpoint before it is created: one that was there before this look, and is not in it, is nobody's.
  const used = copiesInUse(await lease.write({}));
  for (const { name } of found) {
    if (!used.has(name)) await db.dropCollection(name);
  }
}

function copiesInUse({ rebuild, scratchCopies }: Checkpoint): ReadonlySet<string | null | undefined> {
  return new Set([rebuild?.copy, ...scratchCopies]);
}
