import type { JWTPayload } from "jose";
import type { Caller } from "../domain/caller.ts";
import { Refusal } from "../domain/refusal.ts";
import { DeliveryProvider, Role } from "../gen/ordertrail/events/v1/values_pb.js";

/** The roles that a token may name, whoever issued it: all but SYSTEM, which is Ordertrail itself, and LINK, which only it gives. */
export const TOKEN_ROLES: readonly Role[] = [
  Role.SERVICE,
  Role.CUSTOMER,
  Role.STORE,
  Role.DRIVER,
  Role.PARTNER,
  Role.AUDITOR,
  Role.OPERATOR,
];

/** A role as tokens name it, such as "customer". */
export const roleName = (role: Role): string => Role[role].toLowerCase();

const ROLES = new Map(TOKEN_ROLES.map((role) => [roleName(role), role]));
const PROVIDERS = new Map(
  [DeliveryProvider.UBER, DeliveryProvider.DOORDASH, DeliveryProvider.IN_HOUSE].map((provider) => [
    DeliveryProvider[provider].toLowerCase(),
    provider,
  ]),
);
const IDENTIFIER = /^[A-Za-z0-9_-]{1,64}$/;
const IDENTIFIER_RULE = "1 to 64 letters, digits, _ and -";

/** Who a token's claims say is calling. Throws a Refusal UNAUTHENTICATED that names the claim to correct, but none of its contents. */
export function callerOf(claims: JWTPayload): Caller {
  const { sub: subject, role: name, store_id: storeId } = claims;
  if (!isIdentifier(subject)) throw wrongClaim("sub", IDENTIFIER_RULE);
  const role = typeof name === "string" ? ROLES.get(name) : undefined;
  if (role === undefined) throw wrongClaim("role", `one of ${Array.from(ROLES.keys()).join(", ")}`);
  if (role === Role.STORE) {
    if (!isIdentifier(storeId)) throw wrongClaim("store_id", `the store that a caller of role store acts for: ${IDENTIFIER_RULE}`);
    return { role, subject, storeId };
  }
  if (role === Role.PARTNER) {
    const provider = PROVIDERS.get(subject.toLowerCase());
    if (provider === undefined)
      throw wrongClaim("sub", `the provider that a caller of role partner is: one of ${Array.from(PROVIDERS.keys()).join(", ")}`);
    return { role, subject, provider };
  }
  return { role, subject };
}

/** The role that a tracking link's token names. */
export const LINK_ROLE = roleName(Role.LINK);

/** Who the claims of one of Ordertrail's own tokens say is calling: as `callerOf`, or the holder of a tracking link. */
export function ownCallerOf(claims: JWTPayload): Caller {
  const { role, sub: subject, order_id: orderId } = claims;
  if (role !== LINK_ROLE) return callerOf(claims);
  if (!isIdentifier(subject)) throw wrongClaim("sub", IDENTIFIER_RULE);
  if (!isIdentifier(orderId)) throw wrongClaim("order_id", IDENTIFIER_RULE);
  return { role: Role.LINK, subject, orderId };
}

function isIdentifier(value: unknown): value is string {
  return typeof value === "string" && IDENTIFIER.test(value);
}

function wrongClaim(claim: string, rule: string): Refusal {
  return new Refusal("UNAUTHENTICATED", `the token's claim ${claim} must be ${rule}`, { claim });
}
