import { randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { LRUCache } from "lru-cache";
import { Binary, type Db } from "mongodb";
import { type Sealed, SealedSchema } from "../gen/ordertrail/events/v1/values_pb.js";
import { type MasterKeys, unwrapKey, wrapKey } from "./master-key.ts";
import { type DataKey, deriveDataKey, open, seal } from "./sealing.ts";

/**
 * Seals and opens personal data, each person's under keys of their own: whoever deletes those keys erases the person.
 * A person is named like "customer-1" or "driver-1"; a context names the place of the data, like "order-1/recipient".
 */
export type PersonalKeys = {
  /**
   * Seals under the person's newest key, which is made, durably on a majority, if there is none.
   * Equal data in the same context seals to equal bytes until the person's key changes.
   */
  seal(person: string, plaintext: Uint8Array, context: string): Promise<Sealed>;
  /** Opens what was sealed for this context; undefined when its key has been destroyed. Throws SealBroken if it was altered. */
  open(sealed: Sealed, context: string): Promise<Uint8Array | undefined>;
  /** Opens many as `open` does, in order, with at most one query. */
  openMany(items: readonly { readonly sealed: Sealed; readonly context: string }[]): Promise<(Uint8Array | undefined)[]>;
};

/** A document of `personal_keys`. The newest generation of a person's key seals; all of them open. */
type StoredKey = {
  readonly _id: Binary;
  readonly person: string;
  readonly generation: number;
  readonly wrapped: Binary;
  readonly nonce: Binary;
  readonly master_key_id: string;
  readonly created_at: Date;
};

type PersonalKey = { readonly id: Uint8Array; readonly dataKey: DataKey };

const KEY_ID_BYTES = 16;
const SECRET_BYTES = 32;
const FIRST_GENERATION = 1;
const REMEMBERED_KEYS = 10_000;
/** For how long a process may still use a key that another has destroyed. */
const REMEMBERED_MS = 5 * 60 * 1000;
const ROUND_TRIP_MS = 5000;

/** The personal keys in the collection `personal_keys` of `db`, wrapped under the master keys. */
export function createPersonalKeys(db: Db, masterKeys: MasterKeys, clock: () => Date): PersonalKeys {
  const keys = db.collection<StoredKey>("personal_keys");
  const bounds = { max: REMEMBERED_KEYS, ttl: REMEMBERED_MS, ttlResolution: 0, perf: { now: () => clock().getTime() } };
  const byId = new LRUCache<string, DataKey>(bounds);
  /** Promises, so that calls for the same person at the same time ask once. */
  const newestOf = new LRUCache<string, Promise<PersonalKey>>(bounds);
  let indexed: Promise<unknown> | undefined;

  function newestKey(person: string): Promise<PersonalKey> {
    const known = newestOf.get(person);
    if (known) return known;
    const loading = loadNewest(person);
    newestOf.set(person, loading);
    loading.catch(() => {
      if (newestOf.peek(person) === loading) newestOf.delete(person);
    });
    return loading;
  }

  async function loadNewest(person: string): Promise<PersonalKey> {
    // At majority: a key that is taken back with a deposed primary would leave what it sealed closed for ever.
    const stored = await keys.findOne(
      { person },
      { sort: { generation: -1 }, readConcern: "majority", readPreference: "primary", timeoutMS: ROUND_TRIP_MS },
    );
    return remember(stored ?? (await createFirst(person)));
  }

  /** The person's first key: made here, or by another process that was faster; on a majority in either case. */
  async function createFirst(person: string): Promise<StoredKey> {
    await ensureIndex();
    const id = randomBytes(KEY_ID_BYTES);
    const { wrapped, nonce, masterKeyId } = wrapKey(masterKeys, randomBytes(SECRET_BYTES), bindingOf(id, person, FIRST_GENERATION));
    const stored = await keys.findOneAndUpdate(
      { person, generation: FIRST_GENERATION },
      {
        $setOnInsert: {
          _id: new Binary(id),
          wrapped: new Binary(wrapped),
          nonce: new Binary(nonce),
          master_key_id: masterKeyId,
          created_at: clock(),
        },
      },
      { upsert: true, returnDocument: "after", writeConcern: { w: "majority", journal: true }, timeoutMS: ROUND_TRIP_MS },
    );
    if (!stored) throw new Error("an upsert into personal_keys returned no document");
    return stored;
  }

  /** Without the index, two processes could each make a first key for the same person. */
  async function ensureIndex(): Promise<void> {
    indexed ??= keys.createIndex({ person: 1, generation: 1 }, { unique: true, timeoutMS: ROUND_TRIP_MS });
    try {
      await indexed;
    } catch (error) {
      indexed = undefined;
      throw error;
    }
  }

  function remember(stored: StoredKey): PersonalKey {
    const id = stored._id.value();
    const wrapped = { wrapped: stored.wrapped.value(), nonce: stored.nonce.value(), masterKeyId: stored.master_key_id };
    const dataKey = deriveDataKey(unwrapKey(masterKeys, wrapped, bindingOf(id, stored.person, stored.generation)));
    byId.set(hex(id), dataKey);
    return { id, dataKey };
  }

  /** The keys with these identifiers, by identifier in hexadecimal; those destroyed are absent, and are asked for again each time. */
  async function findKeys(ids: readonly Uint8Array[]): Promise<Map<string, DataKey>> {
    const found = new Map<string, DataKey>();
    const unknown = new Map<string, Uint8Array>();
    for (const id of ids) {
      const name = hex(id);
      const dataKey = byId.get(name);
      if (dataKey) found.set(name, dataKey);
      else unknown.set(name, id);
    }
    if (unknown.size === 0) return found;
    // Not at majority: a new primary has every key that was used, a little before it counts them as its majority's.
    const cursor = keys.find(
      { _id: { $in: Array.from(unknown.values(), (id) => new Binary(id)) } },
      { readConcern: "local", readPreference: "primary", timeoutMS: ROUND_TRIP_MS },
    );
    for await (const stored of cursor) {
      const { id, dataKey } = remember(stored);
      found.set(hex(id), dataKey);
    }
    return found;
  }

  async function openMany(items: readonly { readonly sealed: Sealed; readonly context: string }[]): Promise<(Uint8Array | undefined)[]> {
    const found = await findKeys(items.map(({ sealed }) => sealed.keyId));
    return items.map(({ sealed, context }) => {
      const dataKey = found.get(hex(sealed.keyId));
      return dataKey && open(dataKey, sealed, context);
    });
  }

  return {
    async seal(person, plaintext, context) {
      const { id, dataKey } = await newestKey(person);
      return create(SealedSchema, { keyId: id, ...seal(dataKey, plaintext, context) });
    },
    async open(sealed, context) {
      const [plaintext] = await openMany([{ sealed, context }]);
      return plaintext;
    },
    openMany,
  };
}

/** Ties a wrapped key to its document, so that moving it into another person's is noticed. */
function bindingOf(id: Uint8Array, person: string, generation: number): string {
  return `personal-key/${hex(id)}/${person}/${generation}`;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex");
}
