import { randomBytes } from "node:crypto";
import { Binary, type Collection, MongoBulkWriteError } from "mongodb";
import type { KeyWrapper } from "./key-wrapper.ts";
import { bindingOf, type StoredKey, wrappedFields } from "./stored-key.ts";

/** Whose key of which day is wanted. */
export type WantedKey = { readonly person: string; readonly generation: number };

const KEY_ID_BYTES = 16;
const SECRET_BYTES = 32;
const DUPLICATE_KEY = 11000;
const MAX_ATTEMPTS = 5;

/**
 * The keys that are wanted, in order, with a round trip or two for all: made here, or by another process that was faster.
 * In either case they are on a majority: what is sealed under a key that is taken back could stay closed for ever.
 */
export async function findOrMakeKeys(
  keys: Collection<StoredKey>,
  wrapper: KeyWrapper,
  wanted: readonly WantedKey[],
  now: Date,
): Promise<StoredKey[]> {
  const found = new Map<string, StoredKey>();
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    const missing = new Map(wanted.filter((one) => !found.has(nameOf(one))).map((one) => [nameOf(one), one]));
    if (missing.size === 0) break;
    for (const key of await makeMissing(keys, wrapper, [...missing.values()], now)) {
      found.set(nameOf(key), key);
      missing.delete(nameOf(key));
    }
    if (missing.size === 0) break;
    const stored = keys.find(
      { $or: Array.from(missing.values(), ({ person, generation }) => ({ person, generation })) },
      { readConcern: "majority" },
    );
    for await (const key of stored) found.set(nameOf(key), key);
  }
  return wanted.map((one) => {
    const key = found.get(nameOf(one));
    if (!key) throw new Error("a personal key was made and is not there");
    return key;
  });
}

/** Makes those that are not there; answers the ones it made, as far as that is known. */
async function makeMissing(
  keys: Collection<StoredKey>,
  wrapper: KeyWrapper,
  missing: readonly WantedKey[],
  now: Date,
): Promise<StoredKey[]> {
  const made = await Promise.all(
    missing.map(async ({ person, generation }): Promise<StoredKey> => {
      const id = randomBytes(KEY_ID_BYTES);
      const wrapped = await wrapper.wrap(randomBytes(SECRET_BYTES), bindingOf(id, person, generation));
      return { _id: new Binary(id), person, generation, ...wrappedFields(wrapped), created_at: now };
    }),
  );
  const upserts = made.map(({ person, generation, ...rest }) => ({
    updateOne: { filter: { person, generation }, update: { $setOnInsert: rest }, upsert: true },
  }));
  try {
    const { upsertedIds } = await keys.bulkWrite(upserts, { ordered: false });
    return made.filter((_, index) => index in upsertedIds);
  } catch (error) {
    if (!(error instanceof MongoBulkWriteError) || error.result.getWriteConcernError()) throw error;
    const failures = Array.isArray(error.writeErrors) ? error.writeErrors : [error.writeErrors];
    // Another process made the same key, between the server's look and its insert: the next attempt waits until a majority has it.
    if (failures.length === 0 || failures.some(({ code }) => code !== DUPLICATE_KEY)) throw error;
    return [];
  }
}

function nameOf({ person, generation }: WantedKey): string {
  return `${person}/${generation}`;
}
