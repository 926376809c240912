import { Binary, type Collection, type Db } from "mongodb";
import type { KeyWrapper } from "./key-wrapper.ts";
import type { WrappedKey } from "./master-key.ts";

/** A document of `personal_keys`: one key of a person, wrapped. */
export type StoredKey = {
  readonly _id: Binary;
  readonly person: string;
  /** The day on which it seals, in days since 1970 (UTC). Keys of old have small numbers, and seal nothing any more. */
  readonly generation: number;
  readonly wrapped: Binary;
  /** Empty where `wrapped` has a nonce of its own, as the answers of key services do. */
  readonly nonce: Binary;
  readonly master_key_id: string;
  readonly created_at: Date;
};

/** How long one round trip about keys may take. */
export const ROUND_TRIP_MS = 5000;

/** What is written is durable on a majority. */
const DURABLE = { w: "majority", journal: true } as const;

export function personalKeysOf(db: Db): Collection<StoredKey> {
  return db.collection<StoredKey>("personal_keys", { readPreference: "primary", writeConcern: DURABLE, timeoutMS: ROUND_TRIP_MS });
}

/** Without the first index, two processes could each make a key for the same person and day. */
export async function ensureKeyIndexes(keys: Collection<StoredKey>): Promise<void> {
  await keys.createIndexes([
    { key: { person: 1, generation: 1 }, unique: true },
    { key: { generation: 1, _id: 1 } },
    { key: { master_key_id: 1, _id: 1 } },
  ]);
}

/** The fields of a wrapped key. */
export function wrappedFields({ wrapped, nonce, masterKeyId }: WrappedKey): Pick<StoredKey, "wrapped" | "nonce" | "master_key_id"> {
  return { wrapped: new Binary(wrapped), nonce: new Binary(nonce), master_key_id: masterKeyId };
}

/** The secret of a stored key. Rejects as `unwrap` does. */
export function unwrapStored(wrapper: KeyWrapper, { _id, person, generation, wrapped, nonce, master_key_id }: StoredKey) {
  return wrapper.unwrap(
    { wrapped: wrapped.value(), nonce: nonce.value(), masterKeyId: master_key_id },
    bindingOf(_id.value(), person, generation),
  );
}

/** Ties a wrapped key to its document, so that moving it into another person's is noticed. */
export function bindingOf(id: Uint8Array, person: string, generation: number): string {
  return `personal-key/${hex(id)}/${person}/${generation}`;
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex");
}
