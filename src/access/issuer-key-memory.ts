import type { Db } from "mongodb";
import type { IssuerKeyMemory } from "./key-source.ts";

/** A document of `auth_issuer_keys`: `_id` is the address, `key_set` the public keys as JSON. */
type StoredKeys = { readonly _id: string; readonly key_set: string; readonly saved_at: Date };

/** How long keys are of use that their issuer has not confirmed. */
const USABLE_MS = 7 * 86_400 * 1000;
const ROUND_TRIP_MS = 3000;

/** What issuers published last, in the collection `auth_issuer_keys` of `db`. */
export function createIssuerKeyMemory(db: Db, clock: () => Date): IssuerKeyMemory {
  const stored = db.collection<StoredKeys>("auth_issuer_keys");
  return {
    async save({ href }, keySet) {
      await stored.updateOne({ _id: href }, { $set: { key_set: keySet, saved_at: clock() } }, { upsert: true, timeoutMS: ROUND_TRIP_MS });
    },
    async load({ href }) {
      const since = new Date(clock().getTime() - USABLE_MS);
      return (await stored.findOne({ _id: href, saved_at: { $gt: since } }, { timeoutMS: ROUND_TRIP_MS }))?.key_set;
    },
  };
}
