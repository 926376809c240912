import { createHmac, randomBytes } from "node:crypto";
import { LRUCache } from "lru-cache";
import { Binary, type Db, MongoServerError } from "mongodb";
import type { KeyWrapper } from "./key-wrapper.ts";

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
  /** Wraps the digests' key under the newest master key. */
  rewrap(): Promise<void>;
};

type IndexKey = { readonly _id: "key"; readonly wrapped: Binary; readonly nonce: Binary; readonly master_key_id: string };
type Noted = { readonly _id: string; readonly digest: string; readonly customer_id: string };

type Inbound = { readonly _id: string; readonly at: Date };

const BINDING = "contact-index";
const KEY_BYTES = 32;
const MOST_CUSTOMERS = 20;
const REMEMBERED = 50_000;
const CONVERSATION_SECONDS = 24 * 3600;
const DUPLICATE_KEY = 11000;

/** The index in the collection `contact_index` of `db`; its key is made when it is first needed. */
export async function createContactIndex(db: Db, wrapper: KeyWrapper): Promise<ContactIndex> {
  const noted = db.collection<Noted>("contact_index", { writeConcern: { w: "majority", journal: true }, readPreference: "primary" });
  const keys = db.collection<IndexKey>("contact_index_key", { writeConcern: { w: "majority", journal: true }, readPreference: "primary" });
  const inbound = db.collection<Inbound>("contact_conversations", { readPreference: "primary" });
  const known = new LRUCache<string, true>({ max: REMEMBERED });
  let key: Promise<Uint8Array> | undefined;
  await noted.createIndexes([{ key: { digest: 1 } }, { key: { customer_id: 1 } }]);
  await inbound.createIndex({ at: 1 }, { expireAfterSeconds: CONVERSATION_SECONDS });

  async function makeKey(): Promise<void> {
    const { wrapped, nonce, masterKeyId } = await wrapper.wrap(randomBytes(KEY_BYTES), BINDING);
    const document: IndexKey = { _id: "key", wrapped: new Binary(wrapped), nonce: new Binary(nonce), master_key_id: masterKeyId };
    await keys.insertOne(document).catch((error: unknown) => {
      if (!(error instanceof MongoServerError && error.code === DUPLICATE_KEY)) throw error;
    });
  }

  async function readKey(): Promise<Uint8Array> {
    if (!(await keys.findOne({ _id: "key" }))) await makeKey();
    const found = await keys.findOne({ _id: "key" });
    if (!found) throw new Error("the key of contact_index cannot be read again");
    return await wrapper.unwrap({ wrapped: found.wrapped.value(), nonce: found.nonce.value(), masterKeyId: found.master_key_id }, BINDING);
  }

  async function digestOf(address: string): Promise<string> {
    key ??= readKey().catch((error: unknown) => {
      key = undefined;
      throw error;
    });
    return createHmac("sha256", await key)
      .update(address)
      .digest("base64url");
  }

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
    async rewrap() {
      const found = await keys.findOne({ _id: "key" });
      if (!found || found.master_key_id === (await wrapper.newest())) return;
      const secret = await readKey();
      const { wrapped, nonce, masterKeyId } = await wrapper.wrap(secret, BINDING);
      await keys.updateOne(
        { _id: "key", wrapped: found.wrapped },
        { $set: { wrapped: new Binary(wrapped), nonce: new Binary(nonce), master_key_id: masterKeyId } },
      );
    },
  };
}
