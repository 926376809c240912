import { createLocalJWKSet, errors, importJWK, type JSONWebKeySet, type JWK, type JWTPayload, SignJWT } from "jose";
import { Binary, type Db, MongoServerError } from "mongodb";
import type { Logger } from "pino";
import { Unavailable } from "../domain/refusal.ts";
import { publicKeySet } from "./key-set.ts";
import type { KeySource } from "./key-source.ts";
import { makeKeyPair } from "./keys.ts";

/** The keys with which Ordertrail signs the tokens that it issues; all its processes share them. */
export type SigningKeys = {
  /** Signs claims with the current key; adds `iat` and `exp`. */
  sign(claims: JWTPayload, lifetimeSeconds: number): Promise<string>;
  /** The public halves of all that may verify a token, and of the next. */
  jwks(): Promise<JSONWebKeySet>;
  /** Finds these keys by a token's header. */
  readonly source: KeySource;
  /** All keys, newest first. */
  list(): Promise<SigningKeyState[]>;
  /** Makes the next key, published at once, that signs after PUBLISHED_AHEAD_SECONDS; returns the one there is if there is one. Deletes keys that verify nothing any more. */
  rotate(): Promise<SigningKeyState>;
  /** Wraps all keys under the newest master key, and answers how many were not yet; passes over those that do not unwrap, and says so. `rotate` does so, too. */
  rewrap(): Promise<number>;
  /** Takes a key out of use at once, with a new one in its place. Tokens signed by it have to be revoked besides. Undefined if there is none of this name. */
  withdraw(kid: string): Promise<SigningKeyState | undefined>;
};

/** What a key is for at a moment. `retired` keys are not published any more. */
export type KeyPhase = "next" | "signing" | "verifying" | "retired" | "withdrawn";
export type SigningKeyState = { readonly kid: string; readonly phase: KeyPhase; readonly signsFrom: Date; readonly createdAt: Date };

/** Encrypts secrets so that whoever has the database alone cannot read them. Every call may go over a network, and may fail. */
export type Wrapping = {
  wrap(secret: Uint8Array, binding: string): Promise<WrappedSecret>;
  unwrap(wrapped: WrappedSecret, binding: string): Promise<Uint8Array>;
};
type WrappedSecret = { readonly wrapped: Uint8Array; readonly nonce: Uint8Array; readonly masterKeyId: string };

/** A document of `auth_signing_keys`: generation 1 signs first. */
type StoredKey = {
  readonly _id: string;
  readonly generation: number;
  readonly public_key: JWK;
  readonly wrapped: Binary;
  readonly nonce: Binary;
  readonly master_key_id: string;
  readonly created_at: Date;
  readonly signs_from: Date;
  readonly withdrawn_at?: Date;
};

/** How long a key is published before it signs: longer than whoever reads the keys may remember them (KEYS_MAX_AGE_SECONDS). */
export const PUBLISHED_AHEAD_SECONDS = 600;
/** For how long others may remember the published keys. */
export const KEYS_MAX_AGE_SECONDS = 300;
/** The longest that a token lives: a tracking link, plus an hour for the clocks. So long a key is published after it has signed last. */
export const MAX_LIFETIME_SECONDS = 7 * 86_400;
const RETAINED_MS = (MAX_LIFETIME_SECONDS + 3600) * 1000;
const ALGORITHM = "ES256";
/** How old what this process knows may be. */
const REMEMBERED_MS = 30_000;
/** How old it may be when something is signed by it. */
const OLD_MS = 300_000;
/** How often a token with an unknown key may make it look again. */
const LOOK_AGAIN_MS = 1000;
const ROUND_TRIP_MS = 5000;
const DUPLICATE_KEY = 11_000;

type PrivateKey = Awaited<ReturnType<typeof importJWK>>;
type Known = { readonly keys: readonly StoredKey[]; readonly atMs: number };

export type SigningKeysOptions = {
  readonly db: Db;
  readonly wrapping: Wrapping;
  readonly clock: () => Date;
  readonly logger: Logger;
  /** Whether what a key signed is refused: another process may have withdrawn it just now. */
  readonly isRevoked: (kid: string) => boolean;
};

/** The signing keys in the collection `auth_signing_keys` of `db`; the first is made when it is first needed. */
export function createSigningKeys({ db, wrapping, clock, logger, isRevoked }: SigningKeysOptions): SigningKeys {
  const stored = db.collection<StoredKey>("auth_signing_keys");
  let privateKey: { readonly kid: string; readonly key: PrivateKey } | undefined;
  let known: Known | undefined;
  let loading: Promise<Known> | undefined;

  async function load(): Promise<Known> {
    const atMs = clock().getTime();
    const options = { readConcern: "majority", readPreference: "primary", timeoutMS: ROUND_TRIP_MS, sort: { generation: -1 } } as const;
    let keys = await stored.find({}, options).toArray();
    if (keys.every(({ withdrawn_at }) => withdrawn_at !== undefined)) {
      await add((keys[0]?.generation ?? 0) + 1, clock());
      keys = await stored.find({}, options).toArray();
    }
    known = { keys, atMs };
    return known;
  }

  function loadOnce(): Promise<Known> {
    loading ??= load().finally(() => {
      loading = undefined;
    });
    return loading;
  }

  /** The keys, perhaps some seconds old; while the database is away, those known remain in use. */
  async function current(): Promise<readonly StoredKey[]> {
    if (!known) return (await loadOnce()).keys;
    if (clock().getTime() - known.atMs >= REMEMBERED_MS) {
      loadOnce().catch((error: unknown) => logger.warn({ err: error }, "the signing keys cannot be read; those known remain in use"));
    }
    return known.keys;
  }

  /** The key that signs now. What this process knows must not be old: a key is published for a certain time after it has signed last. */
  async function signingKey(): Promise<StoredKey> {
    if (known && clock().getTime() - known.atMs >= OLD_MS) await loadOnce();
    const find = (keys: readonly StoredKey[]) => phasesOf(keys, clock()).find(({ phase }) => phase === "signing")?.key;
    let signing = find(await current());
    if (signing && isRevoked(signing._id)) signing = find((await loadOnce()).keys);
    if (!signing) throw new Error("there is no key that signs tokens");
    return signing;
  }

  /** Adds a key, unless another process has added one of this generation. */
  async function add(generation: number, signsFrom: Date): Promise<void> {
    await stored.createIndex({ generation: 1 }, { unique: true });
    const jwk = await makeKeyPair();
    const kid = jwk.kid ?? "";
    const { wrapped, nonce, masterKeyId } = await wrapping.wrap(Buffer.from(JSON.stringify(jwk)), bindingOf(kid));
    try {
      await stored.insertOne(
        {
          _id: kid,
          generation,
          public_key: publicKeySet([jwk]).keys[0] as JWK,
          wrapped: new Binary(wrapped),
          nonce: new Binary(nonce),
          master_key_id: masterKeyId,
          created_at: clock(),
          signs_from: signsFrom,
        },
        { writeConcern: { w: "majority", journal: true }, timeoutMS: ROUND_TRIP_MS },
      );
    } catch (error) {
      if (!(error instanceof MongoServerError && error.code === DUPLICATE_KEY)) throw error;
    }
  }

  /** Lets the next key sign before its time, or a new one. */
  async function signAtOnce(phases: ReturnType<typeof phasesOf>): Promise<void> {
    const next = phases.find(({ phase }) => phase === "next")?.key;
    if (!next) return await add((phases[0]?.key.generation ?? 0) + 1, clock());
    await stored.updateOne(
      { _id: next._id },
      { $set: { signs_from: clock() } },
      { writeConcern: { w: "majority", journal: true }, timeoutMS: ROUND_TRIP_MS },
    );
  }

  async function privateKeyOf({ _id: kid, wrapped, nonce, master_key_id: masterKeyId }: StoredKey): Promise<PrivateKey> {
    if (privateKey?.kid === kid) return privateKey.key;
    const bytes = await wrapping.unwrap({ wrapped: wrapped.value(), nonce: nonce.value(), masterKeyId }, bindingOf(kid));
    const key = await importJWK(JSON.parse(Buffer.from(bytes).toString()) as JWK, ALGORITHM);
    privateKey = { kid, key };
    return key;
  }

  async function rewrap(): Promise<number> {
    let rewrapped = 0;
    for (const { _id: kid, wrapped, nonce, master_key_id: masterKeyId } of (await loadOnce()).keys) {
      let newest: WrappedSecret;
      try {
        const secret = await wrapping.unwrap({ wrapped: wrapped.value(), nonce: nonce.value(), masterKeyId }, bindingOf(kid));
        newest = await wrapping.wrap(secret, bindingOf(kid));
      } catch (error) {
        logger.error({ err: error, kid, master_key_id: masterKeyId }, "a key that signs tokens cannot be wrapped anew");
        continue;
      }
      if (newest.masterKeyId === masterKeyId) continue;
      const { modifiedCount } = await stored.updateOne(
        { _id: kid, master_key_id: masterKeyId },
        { $set: { wrapped: new Binary(newest.wrapped), nonce: new Binary(newest.nonce), master_key_id: newest.masterKeyId } },
        { writeConcern: { w: "majority", journal: true }, timeoutMS: ROUND_TRIP_MS },
      );
      rewrapped += modifiedCount;
    }
    return rewrapped;
  }

  function published(keys: readonly StoredKey[]): JSONWebKeySet {
    const shown = phasesOf(keys, clock()).filter(({ phase }) => phase === "next" || phase === "signing" || phase === "verifying");
    return { keys: shown.map(({ key }) => key.public_key) };
  }

  async function states(): Promise<SigningKeyState[]> {
    const { keys } = await loadOnce();
    return phasesOf(keys, clock()).map(({ key, phase }) => ({
      kid: key._id,
      phase,
      signsFrom: key.signs_from,
      createdAt: key.created_at,
    }));
  }

  const source: KeySource = async (header, token) => {
    try {
      return await createLocalJWKSet(published(await current()))(header, token);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw unavailableUnlessJose(error);
      if (known && clock().getTime() - known.atMs < LOOK_AGAIN_MS) throw error;
      try {
        return await createLocalJWKSet(published((await loadOnce()).keys))(header, token);
      } catch (again) {
        throw unavailableUnlessJose(again);
      }
    }
  };

  return {
    source,
    list: states,
    rewrap,
    jwks: async () => published(await current()),

    async sign(claims, lifetimeSeconds) {
      const signing = await signingKey();
      const issuedAt = Math.floor(clock().getTime() / 1000);
      return await new SignJWT({ ...claims, iat: issuedAt, exp: issuedAt + lifetimeSeconds })
        .setProtectedHeader({ alg: ALGORITHM, kid: signing._id, typ: "JWT" })
        .sign(await privateKeyOf(signing));
    },

    async rotate() {
      const before = (await loadOnce()).keys;
      const now = clock();
      const phases = phasesOf(before, now);
      const waiting = phases.some(({ phase }) => phase === "next");
      if (!waiting) await add((before[0]?.generation ?? 0) + 1, new Date(now.getTime() + PUBLISHED_AHEAD_SECONDS * 1000));
      const retired = phases.filter(({ phase, key }) => phase === "retired" || isLongWithdrawn(key, now)).map(({ key }) => key._id);
      await stored.deleteMany({ _id: { $in: retired } }, { timeoutMS: ROUND_TRIP_MS });
      await rewrap();
      const next = (await states()).find(({ phase }) => phase === "next");
      if (!next) throw new Error("the next signing key could not be read back");
      return next;
    },

    async withdraw(kid) {
      const withdrawn = await stored.updateOne(
        { _id: kid },
        { $set: { withdrawn_at: clock() } },
        { writeConcern: { w: "majority", journal: true }, timeoutMS: ROUND_TRIP_MS },
      );
      if (withdrawn.matchedCount === 0) return undefined;
      const phases = phasesOf((await loadOnce()).keys, clock());
      if (!phases.some(({ phase }) => phase === "signing")) await signAtOnce(phases);
      return (await states()).find(({ phase }) => phase === "signing");
    },
  };
}

/** What each key is for at a moment; `keys` are sorted by generation, the newest first. */
function phasesOf(keys: readonly StoredKey[], now: Date): { readonly key: StoredKey; readonly phase: KeyPhase }[] {
  let followedAt: Date | undefined;
  return keys.map((key) => {
    if (key.withdrawn_at) return { key, phase: "withdrawn" };
    if (key.signs_from > now) return { key, phase: "next" };
    const phase = followedAt === undefined ? "signing" : followedAt.getTime() + RETAINED_MS > now.getTime() ? "verifying" : "retired";
    followedAt = key.signs_from;
    return { key, phase };
  });
}

function isLongWithdrawn({ withdrawn_at }: StoredKey, now: Date): boolean {
  return withdrawn_at !== undefined && withdrawn_at.getTime() + RETAINED_MS < now.getTime();
}

function bindingOf(kid: string): string {
  return `signing-key/${kid}`;
}

function unavailableUnlessJose(error: unknown): unknown {
  if (error instanceof errors.JOSEError) return error;
  return new Unavailable("the keys that verify tokens cannot be had at present; try again", { cause: error });
}
