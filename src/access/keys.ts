import { randomUUID } from "node:crypto";
import { join } from "node:path";
import {
  calculateJwkThumbprint,
  exportJWK,
  generateKeyPair,
  importJWK,
  type JSONWebKeySet,
  type JWK,
  type JWTPayload,
  SignJWT,
} from "jose";
import { readOrCreateSecret } from "../secret-file.ts";
import { parseKeySet, publicKeySet } from "./key-set.ts";

/** The keys with which a development instance signs its own tokens. */
export type DevelopmentKeys = {
  /** The public halves. */
  readonly jwks: JSONWebKeySet;
  /** Signs claims; adds `iat`, `exp` and `jti`. */
  sign(claims: JWTPayload, options: { readonly expiresInSeconds: number }): Promise<string>;
};

/** The file of a development instance's key pairs: a JSON Web Key Set. The first key signs, all of them verify. */
export const developmentKeyFile = (dataDir: string): string => join(dataDir, "keys", "jwt.json");

/** The development keys of the instance in `dataDir`; made on first use, readable by their owner only. */
export async function createDevelopmentKeys(dataDir: string): Promise<DevelopmentKeys> {
  const path = developmentKeyFile(dataDir);
  const text = await readOrCreateSecret(path, async () => `${JSON.stringify({ keys: [await makeKeyPair()] }, undefined, 2)}\n`);
  const { keys } = parseKeySet(text, path);
  const [signing] = keys;
  if (!signing?.d) throw new Error(`${path} does not begin with a private key; delete it, and a new one is made`);
  const { alg = ALGORITHM, kid = "" } = signing;
  const privateKey = await importJWK(signing, alg);
  return {
    jwks: publicKeySet(keys),
    sign(claims, { expiresInSeconds }) {
      const issuedAt = Math.floor(Date.now() / 1000);
      return new SignJWT({ ...claims, iat: issuedAt, exp: issuedAt + expiresInSeconds, jti: randomUUID() })
        .setProtectedHeader({ alg, kid, typ: "JWT" })
        .sign(privateKey);
    },
  };
}

const ALGORITHM = "ES256";

/** A new key pair with which tokens are signed, as a private JSON Web Key. Its name never looks like an option of a command. */
export async function makeKeyPair(): Promise<JWK> {
  const { privateKey } = await generateKeyPair(ALGORITHM, { extractable: true });
  const jwk = await exportJWK(privateKey);
  const kid = await calculateJwkThumbprint(jwk);
  return kid.startsWith("-") ? await makeKeyPair() : { ...jwk, kid, alg: ALGORITHM, use: "sig" };
}
