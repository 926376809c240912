import type { JSONWebKeySet, JWK } from "jose";

/** Reads a JSON Web Key Set, with or without private keys. Throws an Error that names `path` and shows nothing of the text. */
export function parseKeySet(text: string, path: string): JSONWebKeySet {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's own message quotes the text, which may be a private key.
  }
  if (!isKeySet(value)) throw new Error(`${path} does not hold a JSON Web Key Set; delete it, and a new one is made`);
  return value;
}

/** The public parts of keys. */
export function publicKeySet(keys: readonly JWK[]): JSONWebKeySet {
  return { keys: keys.map(publicKey) };
}

const PUBLIC_MEMBERS = ["kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"] as const;

function publicKey(jwk: JWK): JWK {
  return Object.fromEntries(PUBLIC_MEMBERS.filter((member) => jwk[member] !== undefined).map((member) => [member, jwk[member]]));
}

function isKeySet(value: unknown): value is JSONWebKeySet {
  return (
    typeof value === "object" &&
    value !== null &&
    "keys" in value &&
    Array.isArray(value.keys) &&
    value.keys.every((key) => typeof key === "object" && key !== null)
  );
}
