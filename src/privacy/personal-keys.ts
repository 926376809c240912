import { create } from "@bufbuild/protobuf";
import { LRUCache } from "lru-cache";
import { Binary, type Db } from "mongodb";
import { type Sealed, SealedSchema } from "../gen/ordertrail/events/v1/values_pb.js";
import { batched } from "../log/batched.ts";
import { erasuresOf } from "./erasure-document.ts";
import type { KeyWrapper } from "./key-wrapper.ts";
import { findOrMakeKeys, type WantedKey } from "./make-keys.ts";
import { type DataKey, deriveDataKey, open, seal } from "./sealing.ts";
import { ensureKeyIndexes, hex, personalKeysOf, ROUND_TRIP_MS, type StoredKey, unwrapStored } from "./stored-key.ts";

/**
 * Seals and opens personal data, each person's under keys of their own, one for each day: whoever deletes all of them
 * erases the person, whoever deletes those of a day what was sealed on that day.
 * A person is named like "customer-1" or "driver-1"; a context names the place of the data, like "order-1/recipient".
 */
export type PersonalKeys = {
  /**
   * Seals under the person's key of today, which is made, durably on a majority, if there is none; undefined when the
   * person has been erased. Equal data in the same context seals to equal bytes on the same day.
   */
  seal(person: string, plaintext: Uint8Array, context: string): Promise<Sealed | undefined>;
  /** As `seal`, under a key that stays until the person is erased: for what is not of a day, such as how to reach them. Equal data seals to equal bytes always. */
  sealLasting(person: string, plaintext: Uint8Array, context: string): Promise<Sealed | undefined>;
  /** Opens what was sealed for this context; undefined when its key has been destroyed. Throws SealBroken if it was altered. */
  open(sealed: Sealed, context: string): Promise<Uint8Array | undefined>;
  /** Opens many as `open` does, in order, with at most one query. */
  openMany(items: readonly { readonly sealed: Sealed; readonly context: string }[]): Promise<(Uint8Array | undefined)[]>;
  /** Forgets the person's keys here, in this process. To be called when they are destroyed. */
  forget(person: string): void;
  /** Takes keys that have been remembered for too long out of memory, where they are of no use; answers how many stay. */
  forgetOld(): number;
};

type PersonalKey = {
  readonly id: Uint8Array;
  readonly person: string;
  readonly dataKey: DataKey;
  /** What the key has opened of messages that are still in memory; forgotten with it. */
  readonly opened: WeakMap<Sealed, { readonly context: string; readonly plaintext: Uint8Array }>;
};

const DAY_MS = 86_400_000;
const REMEMBERED_KEYS = 10_000;
/** For how long a key is remembered unsealed; destroyed ones are forgotten sooner (see `Erasures.learn`). */
const REMEMBERED_MS = 5 * 60 * 1000;

/** The generation of keys that are of no day. */
export const LASTING_GENERATION = -1;

/** The generation that seals at a time. */
export function generationAt(time: Date): number {
  return Math.floor(time.getTime() / DAY_MS);
}

/** The personal keys in the collection `personal_keys` of `db`, wrapped by `wrapper`. */
export function createPersonalKeys(db: Db, wrapper: KeyWrapper, clock: () => Date): PersonalKeys {
  const keys = personalKeysOf(db);
  const bounds = { max: REMEMBERED_KEYS, ttl: REMEMBERED_MS, ttlResolution: 0, perf: { now: () => clock().getTime() } };
  const byId = new LRUCache<string, PersonalKey>(bounds);
  /** By person and generation. Promises, so that calls for the same person at the same time ask once. */
  const sealing = new LRUCache<string, Promise<PersonalKey>>(bounds);
  let indexed: Promise<unknown> | undefined;

  /** From the primary as it is, for a new primary may not show at majority yet what was acknowledged before. */
  const isErased = batched<string, boolean>(async (people) => {
    const found = await erasuresOf(db)
      .find({ _id: { $in: [...new Set(people)] } }, { projection: { _id: 1 }, readConcern: "local", timeoutMS: ROUND_TRIP_MS })
      .toArray();
    const erased = new Set(found.map(({ _id }) => _id));
    return people.map((person) => erased.has(person));
  });

  const today = () => generationAt(clock());

  function keyOf(person: string, generation: number): Promise<PersonalKey> {
    const name = `${person}/${generation}`;
    const known = sealing.get(name);
    if (known) return known;
    const making = findOrMake({ person, generation }).then(remember);
    sealing.set(name, making);
    making.catch(() => {
      if (sealing.peek(name) === making) sealing.delete(name);
    });
    return making;
  }

  async function sealUnder(generation: number, person: string, plaintext: Uint8Array, context: string): Promise<Sealed | undefined> {
    const known = sealing.get(`${person}/${generation}`);
    // No key is made for one who is erased.
    if (!known && (await isErased(person))) return undefined;
    const { id, dataKey } = await (known ?? keyOf(person, generation));
    // With the key at hand: an erasure that is not seen even now destroys the key after it was made, not before.
    if (!(await isErased(person))) return create(SealedSchema, { keyId: id, ...seal(dataKey, plaintext, context) });
    forget(person);
    if (!known) await keys.deleteOne({ _id: new Binary(id) });
    return undefined;
  }

  /** Those that are asked for while a batch is away go with the next: orders of many people at a time share round trips. */
  const findOrMake = batched<WantedKey, StoredKey>(async (wanted) => {
    await ensureIndexes();
    return await findOrMakeKeys(keys, wrapper, wanted, clock());
  });

  async function ensureIndexes(): Promise<void> {
    indexed ??= ensureKeyIndexes(keys);
    try {
      await indexed;
    } catch (error) {
      indexed = undefined;
      throw error;
    }
  }

  async function remember(stored: StoredKey): Promise<PersonalKey> {
    const id = stored._id.value();
    const dataKey = deriveDataKey(await unwrapStored(wrapper, stored));
    const key = { id, person: stored.person, dataKey, opened: new WeakMap() };
    byId.set(hex(id), key);
    return key;
  }

  /** The keys with these identifiers, in order; undefined for those destroyed, which are asked for again each time. */
  async function findKeys(ids: readonly Uint8Array[]): Promise<(PersonalKey | undefined)[]> {
    const names = ids.map(hex);
    const known = names.map((name) => byId.get(name));
    if (!known.includes(undefined)) return known;
    const unknown = new Map(names.flatMap((name, index) => (known[index] ? [] : [[name, ids[index] as Uint8Array] as const])));
    // Not at majority: a new primary has every key that was used, a little before it counts them as its majority's.
    const stored = await keys
      .find({ _id: { $in: Array.from(unknown.values(), (id) => new Binary(id)) } }, { readConcern: "local" })
      .toArray();
    const found = new Map((await Promise.all(stored.map(remember))).map((key) => [hex(key.id), key]));
    return names.map((name, index) => known[index] ?? found.get(name));
  }

  async function openMany(items: readonly { readonly sealed: Sealed; readonly context: string }[]): Promise<(Uint8Array | undefined)[]> {
    const found = await findKeys(items.map(({ sealed }) => sealed.keyId));
    return items.map(({ sealed, context }, index) => {
      const key = found[index];
      return key && openWith(key, sealed, context);
    });
  }

  /** An order is shown again and again, and opening all of it takes a tenth of the time of an answer. */
  function openWith({ dataKey, opened }: PersonalKey, sealed: Sealed, context: string): Uint8Array {
    const known = opened.get(sealed);
    if (known?.context === context) return known.plaintext;
    const plaintext = open(dataKey, sealed, context);
    opened.set(sealed, { context, plaintext });
    return plaintext;
  }

  function forget(person: string): void {
    for (const [name, key] of byId.entries()) if (key.person === person) byId.delete(name);
    for (const name of sealing.keys()) if (name.startsWith(`${person}/`)) sealing.delete(name);
  }

  return {
    seal: (person, plaintext, context) => sealUnder(today(), person, plaintext, context),
    sealLasting: (person, plaintext, context) => sealUnder(LASTING_GENERATION, person, plaintext, context),
    async open(sealed, context) {
      const [plaintext] = await openMany([{ sealed, context }]);
      return plaintext;
    },
    openMany,
    forget,
    forgetOld() {
      byId.purgeStale();
      sealing.purgeStale();
      return byId.size + sealing.size;
    },
  };
}
