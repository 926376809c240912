import { randomBytes, type ScryptOptions, scrypt, timingSafeEqual } from "node:crypto";
import { Binary } from "mongodb";
import { Refusal } from "../domain/refusal.ts";

/** A secret as it is kept: its scrypt hash, and what it was made with. */
export type SecretHash = { readonly hash: Binary; readonly salt: Binary; readonly n: number; readonly r: number; readonly p: number };

/** Hashes and compares secrets. */
export type ClientSecrets = {
  /** A new secret, and its hash. */
  make(): Promise<{ readonly secret: string; readonly hash: SecretHash }>;
  /**
   * Whether the secret is the one with this hash. Takes as long when there is no hash. Throws a Refusal OVERLOADED when too
   * many wait; those who are known may still wait when strangers may not.
   */
  matches(secret: string, hash: SecretHash | undefined, isKnown: boolean): Promise<boolean>;
};

/** 16 MiB and some 30 ms. More would protect secrets that people choose; these are 32 random bytes, which nobody tries out. */
const COST = { n: 2 ** 14, r: 8, p: 1 };
const SECRET_BYTES = 32;
const HASH_BYTES = 32;
const SALT_BYTES = 16;
/** Tells people and secret scanners what it is. */
const PREFIX = "otc_";
/** Hashing shares four threads with all else that the process has done for it. */
const MOST_AT_ONCE = 32;
const MOST_STRANGERS_AT_ONCE = 24;

/** Secrets of 32 random bytes, hashed with scrypt. */
export function createClientSecrets(): ClientSecrets {
  let underWay = 0;
  /** What is compared with when there is no such client; nothing hashes to it. */
  const nobody: SecretHash = { ...COST, hash: new Binary(randomBytes(HASH_BYTES)), salt: new Binary(randomBytes(SALT_BYTES)) };

  return {
    async make() {
      const secret = `${PREFIX}${randomBytes(SECRET_BYTES).toString("base64url")}`;
      const salt = randomBytes(SALT_BYTES);
      return { secret, hash: { ...COST, salt: new Binary(salt), hash: new Binary(await derive(secret, salt, COST)) } };
    },

    async matches(secret, hash, isKnown) {
      if (underWay >= (isKnown ? MOST_AT_ONCE : MOST_STRANGERS_AT_ONCE))
        throw new Refusal("OVERLOADED", "too many ask for tokens at this moment: try again in a second");
      underWay++;
      try {
        const { salt, hash: expected, ...cost } = hash ?? nobody;
        const found = await derive(secret, salt.value(), cost);
        return timingSafeEqual(found, expected.value()) && hash !== undefined;
      } finally {
        underWay--;
      }
    },
  };
}

function derive(secret: string, salt: Uint8Array, { n, r, p }: { readonly n: number; readonly r: number; readonly p: number }) {
  const options: ScryptOptions = { N: n, r, p, maxmem: 256 * n * r };
  return new Promise<Buffer>((resolve, reject) =>
    scrypt(secret, salt, HASH_BYTES, options, (error, key) => (error ? reject(error) : resolve(key))),
  );
}
