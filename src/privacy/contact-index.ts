import { createHmac } from "node:crypto";
import { LRUCache } from "lru-cache";
import type { Db } from "mongodb";

/**
 * Whose an address may be: how somebody who writes back is found, although addresses are sealed. Holds keyed digests of addresses that were written
 * to, which tell nothing without the key. May name people who have the address no more: whoever asks looks at what they have now.
 */
export type ContactIndex = {
  /** Notes that an address is a customer's. */
  note(customerId: string, address: string): Promise<void>;
  /** The customers who have or had an address. */
  find(address: string): Promise<string[]>;
  /** Notes that somebody wrote to us from an address. */
  noteInbound(address: string, at: Date): Promise<void>;
  /** When somebody last wrote to us from an address, within the last 24 hours. */
  lastInbound(address: string): Promise<Date | undefined>;
};

type Noted = { readonly _id: string; readonly digest: string; readonly customer_id: string };

type Inbound = { readonly _id: string; readonly at: Date };

const MOST_CUSTOMERS = 20;
const REMEMBERED = 50_000;
const CONVERSATION_SECONDS = 24 * 3600;

/** The index in the collection `contact_index` of `db`, its digests keyed by `secret`. */
export async function createContactIndex(db: Db, secret: () => Promise<Uint8Array>): Promise<ContactIndex> {
  const noted = db.collection<Noted>("contact_index", { writeConcern: { w: "majority", journal: true }, readPreference: "primary" });
  const inbound = db.collection<Inbound>("contact_conversations", { readPreference: "primary" });
  const known = new LRUCache<string, true>({ max: REMEMBERED });
  await noted.createIndexes([{ key: { digest: 1 } }, { key: { customer_id: 1 } }]);
  await inbound.createIndex({ at: 1 }, { expireAfterSeconds: CONVERSATION_SECONDS });

  const digestOf = async (address: string) =>
    createHmac("sha256", await secret())
      .update(address)
      .digest("base64url");

  return {
    async note(customerId, address) {
      const digest = await digestOf(address);
      const _id = `${digest}/${customerId}`;
      if (known.has(_id)) return;
      await noted.updateOne({ _id }, { $setOnInsert: { digest, customer_id: customerId } }, { upsert: true });
      known.set(_id, true);
    },
    async find(address) {
      const found = await noted
        .find({ digest: await digestOf(address) })
        .limit(MOST_CUSTOMERS)
        .toArray();
      return found.map(({ customer_id }) => customer_id);
    },
    async noteInbound(address, at) {
      await inbound.updateOne({ _id: await digestOf(address) }, { $max: { at } }, { upsert: true });
    },
    async lastInbound(address) {
      return (await inbound.findOne({ _id: await digestOf(address) }))?.at;
    },
  };
}
