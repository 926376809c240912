import { errors, jwtVerify } from "jose";
import { LRUCache } from "lru-cache";
import type { Caller } from "../domain/caller.ts";
import { Refusal } from "../domain/refusal.ts";
import { callerOf } from "./claims.ts";
import type { KeySource } from "./key-source.ts";

export type TokenVerifierOptions = {
  readonly keys: KeySource;
  /** What a token's `iss` must be. */
  readonly issuer: string;
  /** What a token's `aud` must be or contain. */
  readonly audience: string;
  /** By how much the issuer's clock may differ from this one. */
  readonly clockSkewSeconds: number;
  readonly clock: () => Date;
  /** How many verified tokens are remembered. */
  readonly cacheSize: number;
};

/** Tells who calls from the token that they bring. */
export type TokenVerifier = {
  /**
   * The caller whom a token names. Throws a Refusal UNAUTHENTICATED that says what to do, or Unavailable when the keys
   * that verify tokens cannot be had.
   */
  verify(token: string): Promise<Caller>;
};

/** Signatures that need a private key to make. A secret shared with the verifier ("HS256") would be known to too many. */
const ALGORITHMS = ["ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];
/** Longer ones are refused unread: what is remembered must be bounded in bytes, too. */
const MAX_TOKEN_CHARS = 4096;

type Verified = { readonly caller: Caller; readonly untilMs: number };

/** A verifier that remembers verified tokens until they expire, as verifying a signature costs 100 µs and more. */
export function createTokenVerifier(options: TokenVerifierOptions): TokenVerifier {
  const { keys, issuer, audience, clockSkewSeconds, clock } = options;
  const verified = new LRUCache<string, Verified>({ max: options.cacheSize });
  const expectations = { algorithms: ALGORITHMS, issuer, audience, clockTolerance: clockSkewSeconds, requiredClaims: ["exp"] };

  return {
    async verify(token) {
      const known = verified.get(token);
      if (known && clock().getTime() < known.untilMs) return known.caller;
      if (token.length > MAX_TOKEN_CHARS) throw refused(`the token is longer than ${MAX_TOKEN_CHARS} characters`);
      try {
        const { payload } = await jwtVerify(token, keys, { ...expectations, currentDate: clock() });
        const caller = callerOf(payload);
        verified.set(token, { caller, untilMs: ((payload.exp ?? 0) + clockSkewSeconds) * 1000 });
        return caller;
      } catch (error) {
        if (error instanceof errors.JOSEError) throw refused(explain(error));
        throw error;
      }
    },
  };
}

function explain(error: errors.JOSEError): string {
  if (error instanceof errors.JWTExpired) return "the token has expired: get a new one";
  if (error instanceof errors.JWTClaimValidationFailed) return explainClaim(error.claim);
  if (error instanceof errors.JOSEAlgNotAllowed) return `the token must be signed with one of ${ALGORITHMS.join(", ")}`;
  if (error instanceof errors.JWKSNoMatchingKey)
    return "the token is signed with a key that is not known here: get a new one from the issuer that this server trusts";
  if (error instanceof errors.JWKSMultipleMatchingKeys) return "the token's header must name its key (kid)";
  if (error instanceof errors.JWSSignatureVerificationFailed)
    return "the token's signature does not match: send the token as it was issued";
  return "the token is not a signed JWT: send the header Authorization: Bearer <token>";
}

function explainClaim(claim: string): string {
  switch (claim) {
    case "iss":
      return "the token is not from the issuer that this server trusts";
    case "aud":
      return "the token is for another audience: get one for this server";
    case "nbf":
      return "the token is not valid yet: wait, or set the issuer's clock right";
    case "exp":
      return "the token has no time of expiry: get one with the claim exp";
    default:
      return `the token's claim ${claim} is not what it must be`;
  }
}

function refused(message: string): Refusal {
  return new Refusal("UNAUTHENTICATED", message);
}
