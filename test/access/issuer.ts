import { calculateJwkThumbprint, exportJWK, generateKeyPair, type JWK, SignJWT } from "jose";
import { ownIssuer } from "../../src/access/issuers.ts";
import type { KeySource } from "../../src/access/key-source.ts";
import type { TokenVerifierOptions } from "../../src/access/tokens.ts";

/** A key pair of an issuer of tokens, for tests. */
export type IssuerKey = { readonly publicJwk: JWK; sign(claims: Readonly<Record<string, unknown>>): Promise<string> };

/** What the verifiers of these tests demand. */
export const ISSUER = "https://issuer.test";
export const AUDIENCE = "ordertrail";

/** Makes a key pair; what it signs is from ISSUER, for AUDIENCE, for a customer, unless the claims say otherwise. */
export async function makeIssuerKey(alg = "ES256"): Promise<IssuerKey> {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
  const jwk = await exportJWK(publicKey);
  const publicJwk = { ...jwk, kid: await calculateJwkThumbprint(jwk), alg, use: "sig" };
  return {
    publicJwk,
    sign: (claims) =>
      new SignJWT({ iss: ISSUER, aud: AUDIENCE, sub: "customer-1", role: "customer", ...claims })
        .setProtectedHeader({ alg, kid: publicJwk.kid })
        .sign(privateKey),
  };
}

/** What a verifier needs that trusts one issuer; nothing is revoked. */
export function trusting(keys: KeySource, issuer = ISSUER, audience = AUDIENCE): Pick<TokenVerifierOptions, "issuers" | "revocations"> {
  return {
    issuers: [ownIssuer({ issuer, audience, keys })],
    revocations: { isRevoked: () => false, isFresh: () => true, refresh: async () => undefined },
  };
}
