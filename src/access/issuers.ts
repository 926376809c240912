import type { JWTPayload } from "jose";
import type { Caller } from "../domain/caller.ts";
import { Refusal } from "../domain/refusal.ts";
import { callerOf, ownCallerOf, roleName, TOKEN_ROLES } from "./claims.ts";
import type { KeySource } from "./key-source.ts";
import type { RevocationId } from "./revocations.ts";

/** Somebody whose tokens are accepted. */
export type TrustedIssuer = {
  /** What a token's `iss` must be. */
  readonly issuer: string;
  /** What a token's `aud` must be or contain. */
  readonly audience: string;
  readonly keys: KeySource;
  /** Who the claims say is calling. Throws a Refusal UNAUTHENTICATED. */
  callerOf(claims: JWTPayload): Caller;
  /** By what a token of this `jti` can be revoked: another issuer may give the same one. */
  tokenId(jti: string): RevocationId;
  /** By what else a token with these claims, signed by the key of this name, can be revoked. */
  revocableBy(claims: JWTPayload, kid: string | undefined): readonly RevocationId[];
};

/** By what a token of another issuer can be revoked. */
export function tokenIdOf(issuer: string, jti: string): RevocationId {
  return `token:${issuer}#${jti}`;
}

/** Another issuer, as TOKEN_ISSUERS tells of it. */
export type IssuerSettings = {
  readonly issuer: string;
  readonly jwksUrl: URL;
  readonly audience: string;
  /** Where a token names the role; dots lead into objects. */
  readonly roleClaim: string;
  readonly subjectClaim: string;
  readonly storeClaim: string;
  /** What the issuer calls a role, and the role that this is here. What is not listed, the issuer cannot give. */
  readonly roles: ReadonlyMap<string, string>;
};

/** Ordertrail as an issuer of tokens. */
export function ownIssuer(settings: { readonly issuer: string; readonly audience: string; readonly keys: KeySource }): TrustedIssuer {
  return {
    ...settings,
    callerOf: ownCallerOf,
    tokenId: (jti) => `token:${jti}`,
    revocableBy: ({ sid }, kid) => [
      ...(typeof sid === "string" ? [`session:${sid}` as const] : []),
      ...(kid === undefined ? [] : [`key:${kid}` as const]),
    ],
  };
}

/** Another issuer, whose claims may be called otherwise. */
export function otherIssuer(settings: IssuerSettings, keys: KeySource): TrustedIssuer {
  const { issuer, audience, roles, roleClaim, subjectClaim, storeClaim } = settings;
  return {
    issuer,
    audience,
    keys,
    callerOf(claims) {
      const named = claimAt(claims, roleClaim);
      const given = (Array.isArray(named) ? named : [named]).flatMap((name) => (typeof name === "string" ? (roles.get(name) ?? []) : []));
      const [role, ...others] = new Set(given);
      if (role === undefined || others.length > 0) {
        throw new Refusal("UNAUTHENTICATED", `the token's claim ${roleClaim} must name exactly one role that its issuer may give`, {
          claim: roleClaim,
        });
      }
      const subject = claimAt(claims, subjectClaim);
      const storeId = claimAt(claims, storeClaim);
      const { sub: _, store_id: __, ...rest } = claims;
      return callerOf({
        ...rest,
        role,
        ...(typeof subject === "string" && { sub: subject }),
        ...(storeId !== undefined && { store_id: storeId }),
      });
    },
    tokenId: (jti) => tokenIdOf(issuer, jti),
    revocableBy: () => [],
  };
}

/** A claim by its name, or else by a path into objects: claims may have dots in their names, as those that are URLs do. */
function claimAt(claims: JWTPayload, path: string): unknown {
  if (path in claims) return claims[path];
  let value: unknown = claims;
  for (const name of path.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) return undefined;
    value = Reflect.get(value, name);
  }
  return value;
}

const MEMBERS: readonly string[] = ["issuer", "jwks_url", "audience", "role_claim", "subject_claim", "store_claim", "roles"];

/** Reads TOKEN_ISSUERS. Throws an Error that goes on after its name: "must be …". */
export function parseIssuers(text: string): readonly IssuerSettings[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error("must be JSON");
  }
  if (!Array.isArray(value)) throw new Error("must be a JSON array, with an object for each issuer");
  const issuers = value.map(parseIssuer);
  if (new Set(issuers.map(({ issuer }) => issuer)).size < issuers.length) throw new Error("must name each issuer once");
  return issuers;
}

function parseIssuer(value: unknown): IssuerSettings {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error("must have an object for each issuer");
  const members = new Map<string, unknown>(Object.entries(value));
  const unknown = [...members.keys()].find((name) => !MEMBERS.includes(name));
  if (unknown !== undefined) throw new Error(`must not have the member ${unknown}; there are ${MEMBERS.join(", ")}`);
  const text = (name: string, byDefault?: string): string => {
    const found = members.get(name) ?? byDefault;
    if (typeof found !== "string" || found === "") throw new Error(`must say the ${name} of each issuer`);
    return found;
  };
  const jwksUrl = text("jwks_url");
  if (!URL.canParse(jwksUrl) || !["https:", "http:"].includes(new URL(jwksUrl).protocol)) {
    throw new Error("must have an address that begins with https:// as jwks_url");
  }
  return {
    issuer: text("issuer"),
    jwksUrl: new URL(jwksUrl),
    audience: text("audience"),
    roleClaim: text("role_claim", "role"),
    subjectClaim: text("subject_claim", "sub"),
    storeClaim: text("store_claim", "store_id"),
    roles: parseRoles(members.get("roles")),
  };
}

const ROLE_NAMES: readonly string[] = TOKEN_ROLES.map(roleName);
const ROLES_RULE = `must say in roles which of ${ROLE_NAMES.join(", ")} each issuer may give: a list, or an object from its names to these`;

function parseRoles(value: unknown): ReadonlyMap<string, string> {
  if (typeof value !== "object" || value === null) throw new Error(ROLES_RULE);
  const pairs: [unknown, unknown][] = Array.isArray(value) ? value.map((role: unknown) => [role, role]) : Object.entries(value);
  const roles = new Map<string, string>();
  for (const [name, role] of pairs) {
    if (typeof name !== "string" || typeof role !== "string" || !ROLE_NAMES.includes(role)) throw new Error(ROLES_RULE);
    roles.set(name, role);
  }
  if (roles.size === 0) throw new Error(ROLES_RULE);
  return roles;
}
