import { hash } from "node:crypto";
import { decodeJwt, errors, type JWTPayload, jwtVerify } from "jose";
import { LRUCache } from "lru-cache";
import type { Caller } from "../domain/caller.ts";
import { Refusal } from "../domain/refusal.ts";
import type { TrustedIssuer } from "./issuers.ts";
import type { RevocationId, Revocations } from "./revocations.ts";

export type TokenVerifierOptions = {
  /** Whose tokens are accepted; each has a name of its own. */
  readonly issuers: readonly TrustedIssuer[];
  readonly revocations: Pick<Revocations, "isRevoked" | "isFresh" | "refresh">;
  /** By how much an issuer's clock may differ from this one. */
  readonly clockSkewSeconds: number;
  readonly clock: () => Date;
  /** How many verified tokens are remembered. */
  readonly cacheSize: number;
};

/** A token that is good. */
export type VerifiedToken = {
  readonly caller: Caller;
  /** From when on it is refused. */
  readonly untilMs: number;
  /** What it is known by; the first is its own and no other token's. */
  readonly revocableBy: readonly [RevocationId, ...RevocationId[]];
};

/** Tells who calls from the token that they bring. */
export type TokenVerifier = {
  /**
   * The caller whom a token names. Throws a Refusal UNAUTHENTICATED that says what to do, or Unavailable when the keys
   * that verify tokens, or what is revoked, cannot be had.
   */
  verify(token: string): Promise<Caller>;
  /** As `verify`, with all that is known of the token. */
  read(token: string): Promise<VerifiedToken>;
};

/** Signatures that need a private key to make. A secret shared with the verifier ("HS256") would be known to too many. */
const ALGORITHMS = ["ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];
/** Longer ones are refused unread: what is remembered must be bounded in bytes, too. */
const MAX_TOKEN_CHARS = 4096;

/** A verifier that remembers verified tokens until they expire, as verifying a signature costs 100 µs and more. What is revoked is asked every time. */
export function createTokenVerifier(options: TokenVerifierOptions): TokenVerifier {
  const { revocations, clockSkewSeconds, clock } = options;
  const issuers = new Map(options.issuers.map((issuer) => [issuer.issuer, issuer]));
  const verified = new LRUCache<string, VerifiedToken>({ max: options.cacheSize });

  async function verifySignature(token: string): Promise<VerifiedToken> {
    if (token.length > MAX_TOKEN_CHARS) throw refused(`the token is longer than ${MAX_TOKEN_CHARS} characters`);
    try {
      const { iss } = decodeJwt(token);
      const issuer = issuers.get(iss ?? "");
      if (!issuer) throw refused(explainClaim("iss"));
      const { payload, protectedHeader } = await jwtVerify(token, issuer.keys, {
        algorithms: ALGORITHMS,
        issuer: issuer.issuer,
        audience: issuer.audience,
        clockTolerance: clockSkewSeconds,
        requiredClaims: ["exp"],
        currentDate: clock(),
      });
      return {
        caller: issuer.callerOf(payload),
        untilMs: ((payload.exp ?? 0) + clockSkewSeconds) * 1000,
        revocableBy: [idOf(issuer, payload, token), ...issuer.revocableBy(payload, protectedHeader.kid)],
      };
    } catch (error) {
      if (error instanceof errors.JOSEError) throw refused(explain(error));
      throw error;
    }
  }

  async function read(token: string): Promise<VerifiedToken> {
    const known = verified.get(token);
    const found = known && clock().getTime() < known.untilMs ? known : await verifySignature(token);
    if (!revocations.isFresh()) await revocations.refresh();
    if (revocations.isRevoked(found.revocableBy)) {
      verified.delete(token);
      throw refused("the token has been revoked: get a new one");
    }
    if (found !== known) verified.set(token, found);
    return found;
  }

  return { read, verify: async (token) => (await read(token)).caller };
}

/** Without a `jti` it is known by what was signed. Not by all of the token: of an ECDSA signature anybody can make a second one. */
function idOf({ tokenId }: TrustedIssuer, { jti }: JWTPayload, token: string): RevocationId {
  if (typeof jti === "string" && jti !== "") return tokenId(jti);
  return `digest:${hash("sha256", token.slice(0, token.lastIndexOf(".")), "base64url")}`;
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
      return "the token is not from an issuer that this server trusts";
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
