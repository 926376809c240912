import { randomBytes } from "node:crypto";
import { Binary, type Db, MongoServerError } from "mongodb";
import type { KeyWrapper } from "./key-wrapper.ts";

/** Secrets of Ordertrail's own that all its processes share: 32 random bytes each, wrapped under the master key. */
export type WrappedSecrets = {
  /** The secret of a name, made when it is first needed. */
  get(name: SecretName): Promise<Uint8Array>;
  /** Wraps all of them under the newest master key. */
  rewrap(): Promise<void>;
};

/** What there are secrets for: digests of addresses, calls to stores' systems, links to unsubscribe. */
export type SecretName = "contact-index" | "store-webhooks" | "unsubscribe";

type StoredSecret = { readonly _id: SecretName; readonly wrapped: Binary; readonly nonce: Binary; readonly master_key_id: string };

const BYTES = 32;
const DUPLICATE_KEY = 11000;

/** The secrets in the collection `wrapped_secrets` of `db`. */
export function createWrappedSecrets(db: Db, wrapper: KeyWrapper): WrappedSecrets {
  const stored = db.collection<StoredSecret>("wrapped_secrets", {
    ...{ writeConcern: { w: "majority", journal: true }, readPreference: "primary" },
  });
  const known = new Map<SecretName, Promise<Uint8Array>>();

  const unwrap = ({ _id, wrapped, nonce, master_key_id: masterKeyId }: StoredSecret) =>
    wrapper.unwrap({ wrapped: wrapped.value(), nonce: nonce.value(), masterKeyId }, bindingOf(_id));

  async function wrap(name: SecretName, secret: Uint8Array): Promise<Omit<StoredSecret, "_id">> {
    const { wrapped, nonce, masterKeyId } = await wrapper.wrap(secret, bindingOf(name));
    return { wrapped: new Binary(wrapped), nonce: new Binary(nonce), master_key_id: masterKeyId };
  }

  async function readOrMake(name: SecretName): Promise<Uint8Array> {
    const before = await stored.findOne({ _id: name });
    if (before) return await unwrap(before);
    const made = { _id: name, ...(await wrap(name, randomBytes(BYTES))) };
    await stored.insertOne(made).catch((error: unknown) => {
      // Another process was faster: its secret is everybody's.
      if (!(error instanceof MongoServerError && error.code === DUPLICATE_KEY)) throw error;
    });
    const after = await stored.findOne({ _id: name });
    if (!after) throw new Error(`the secret ${name} cannot be read again`);
    return await unwrap(after);
  }

  return {
    get(name) {
      const found = known.get(name) ?? readOrMake(name);
      known.set(name, found);
      found.catch(() => known.delete(name));
      return found;
    },
    async rewrap() {
      const newest = await wrapper.newest();
      for (const document of await stored.find({ master_key_id: { $ne: newest } }).toArray()) {
        const anew = await wrap(document._id, await unwrap(document));
        await stored.updateOne({ _id: document._id, wrapped: document.wrapped }, { $set: anew });
      }
    },
  };
}

const bindingOf = (name: SecretName): string => `secret/${name}`;
