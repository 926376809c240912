import type { Collection, Document } from "mongodb";

const DUPLICATE_KEY = 11000;

/** Updates by a key and an older version, each an upsert; durable on a majority when it resolves. A document that is as new already stays. */
export async function writeDocuments<Schema extends Document>(target: Collection<Schema>, updates: readonly object[]): Promise<void> {
  if (updates.length === 0) return;
  const command = { update: target.collectionName, updates, ordered: false, writeConcern: { w: "majority", j: true } };
  const { writeErrors = [] } = await target.db.command(command);
  // A document that is as new already is there under the same key.
  const failed = writeErrors.find(({ code }: { code: number }) => code !== DUPLICATE_KEY);
  if (failed) throw new Error(`${target.collectionName} cannot be updated: ${failed.errmsg}`);
}
