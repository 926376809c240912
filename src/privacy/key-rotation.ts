import type { Db } from "mongodb";
import type { KeyWrapper } from "./key-wrapper.ts";
import { bindingOf, ensureKeyIndexes, personalKeysOf, type StoredKey, unwrapStored, wrappedFields } from "./stored-key.ts";

/** How far a rotation has come. */
export type RotationProgress = {
  /** The newest master key. */
  readonly masterKeyId: string;
  readonly rewrapped: number;
  /** How many personal keys are left under each older master key, most first. */
  readonly left: readonly { readonly masterKeyId: string; readonly keys: number }[];
  /** True in the last one. What is left then could not be wrapped anew. */
  readonly done: boolean;
};

const BATCH_KEYS = 200;

/**
 * Wraps every personal key under the newest master key, in batches; the secrets stay as they are, and so does all that
 * they have sealed. May be broken off and done again, by several processes at a time. A key that is destroyed meanwhile
 * does not come back. One that does not unwrap is passed over, and left.
 */
export async function* rotateKeys(db: Db, wrapper: KeyWrapper, signal: AbortSignal): AsyncGenerator<RotationProgress, void, undefined> {
  const keys = personalKeysOf(db);
  await ensureKeyIndexes(keys);
  const masterKeyId = await wrapper.newest();
  let rewrapped = 0;

  async function left(): Promise<RotationProgress["left"]> {
    const counted = keys.aggregate<{ _id: string; keys: number }>([
      { $match: { master_key_id: { $ne: masterKeyId } } },
      { $group: { _id: "$master_key_id", keys: { $sum: 1 } } },
      { $sort: { keys: -1, _id: 1 } },
    ]);
    return (await counted.toArray()).map(({ _id, keys: count }) => ({ masterKeyId: _id, keys: count }));
  }

  /** Answers how many of them now stand under the newest master key because of this. */
  async function rewrap(batch: readonly StoredKey[]): Promise<number> {
    const updates = await Promise.all(
      batch.map(async (stored) => {
        const { _id, person, generation, wrapped } = stored;
        try {
          const secret = await unwrapStored(wrapper, stored);
          const anew = await wrapper.wrap(secret, bindingOf(_id.value(), person, generation));
          secret.fill(0);
          // No upsert, and only as it was read: what was destroyed or wrapped anew meanwhile is left alone.
          return [{ updateOne: { filter: { _id, wrapped }, update: { $set: wrappedFields(anew) } } }];
        } catch {
          // Its master key is missing, or it was altered: told by what is left.
          return [];
        }
      }),
    );
    const writes = updates.flat();
    return writes.length === 0 ? 0 : (await keys.bulkWrite(writes, { ordered: false })).modifiedCount;
  }

  // Older master keys one by one, each in the order of its index, so that those passed over are not met again.
  for (const older of await left()) {
    let after: StoredKey["_id"] | undefined;
    for (;;) {
      signal.throwIfAborted();
      const batch = await keys
        .find({ master_key_id: older.masterKeyId, ...(after && { _id: { $gt: after } }) })
        .sort({ _id: 1 })
        .limit(BATCH_KEYS)
        .toArray();
      after = batch.at(-1)?._id;
      if (after === undefined) break;
      rewrapped += await rewrap(batch);
      yield { masterKeyId, rewrapped, left: await left(), done: false };
    }
  }
  yield { masterKeyId, rewrapped, left: await left(), done: true };
}
