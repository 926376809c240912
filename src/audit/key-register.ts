import type { Db } from "mongodb";

/** The public keys that have ever signed checkpoints, so that old checkpoints stay verifiable when their keys are gone. */
export type KeyRegister = {
  /** Enters keys in note form that sign from now on. */
  enter(verifierKeys: readonly string[]): Promise<void>;
  /** All of them, the oldest first. */
  all(): Promise<string[]>;
};

type KeyDocument = { readonly _id: string; readonly first_used_at: Date };

/** The keys in the collection `audit_keys` of `db`. */
export function createKeyRegister(db: Db, clock: () => Date): KeyRegister {
  const collection = db.collection<KeyDocument>("audit_keys", {
    readPreference: "primary",
    writeConcern: { w: "majority", journal: true },
  });
  const entered = new Set<string>();
  return {
    async enter(verifierKeys) {
      for (const _id of verifierKeys) {
        if (entered.has(_id)) continue;
        await collection.updateOne({ _id }, { $setOnInsert: { first_used_at: clock() } }, { upsert: true });
        entered.add(_id);
      }
    },
    async all() {
      return (await collection.find().sort({ first_used_at: 1, _id: 1 }).toArray()).map(({ _id }) => _id);
    },
  };
}
