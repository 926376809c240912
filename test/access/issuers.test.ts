import { createLocalJWKSet } from "jose";
import { describe, expect, it } from "vitest";
import { otherIssuer, ownIssuer, parseIssuers, type TrustedIssuer } from "../../src/access/issuers.ts";
import { createTokenVerifier } from "../../src/access/tokens.ts";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { AUDIENCE, ISSUER, makeIssuerKey } from "./issuer.ts";

const ownKey = await makeIssuerKey();
const otherKey = await makeIssuerKey();
const exp = Math.floor(Date.now() / 1000) + 600;
const LOGIN = "https://login.test/";

/** A verifier that trusts Ordertrail, and another issuer as TOKEN_ISSUERS tells of it. */
function verifierOf(other: object, revoked: readonly string[] = []) {
  const [settings] = parseIssuers(
    JSON.stringify([{ issuer: LOGIN, jwks_url: "https://login.test/keys", audience: "shop", roles: ["customer"], ...other }]),
  );
  if (!settings) throw new Error("there is no issuer");
  const issuers: TrustedIssuer[] = [
    ownIssuer({ issuer: ISSUER, audience: AUDIENCE, keys: createLocalJWKSet({ keys: [ownKey.publicJwk] }) }),
    otherIssuer(settings, createLocalJWKSet({ keys: [otherKey.publicJwk] })),
  ];
  const revocations = {
    isRevoked: (ids: readonly string[]) => ids.some((id) => revoked.includes(id)),
    isFresh: () => true,
    refresh: async () => undefined,
  };
  return createTokenVerifier({ issuers, revocations, clockSkewSeconds: 0, clock: () => new Date(), cacheSize: 10 });
}

const login = (claims: object) => otherKey.sign({ exp, iss: LOGIN, aud: "shop", ...claims });
const refused = (message: RegExp) => expect.objectContaining({ reason: "UNAUTHENTICATED", message: expect.stringMatching(message) });

describe("another issuer", () => {
  it("may name callers in its own words", async () => {
    const { verify } = verifierOf({
      role_claim: "realm_access.roles",
      subject_claim: "https://login.test/id",
      store_claim: "shop.id",
      roles: { clerk: "store", courier: "driver" },
    });
    const base = { sub: "auth0|1", "https://login.test/id": "clerk-1" };
    await expect(verify(await login({ ...base, realm_access: { roles: ["clerk", "offline"] }, shop: { id: "store-7" } }))).resolves.toEqual(
      {
        role: Role.STORE,
        subject: "clerk-1",
        storeId: "store-7",
      },
    );
    await expect(verify(await login({ ...base, realm_access: { roles: ["courier"] } }))).resolves.toEqual({
      role: Role.DRIVER,
      subject: "clerk-1",
    });
    await expect(verify(await login({ ...base, realm_access: { roles: ["clerk", "courier"] } }))).rejects.toEqual(
      refused(/exactly one role/),
    );
    await expect(verify(await login({ ...base, realm_access: { roles: ["clerk"] } }))).rejects.toEqual(refused(/store_id/));
    await expect(verify(await login({ sub: "customer-1", realm_access: { roles: ["courier"] } }))).rejects.toEqual(refused(/claim sub/));
  });

  it.each(["operator", "service", "link", "system", "constructor", ""])(
    "cannot give the role %j, which is not among its own",
    async (role) => {
      await expect(verifierOf({}).verify(await login({ role, order_id: "order-1" }))).rejects.toEqual(refused(/exactly one role/));
    },
  );

  it("cannot speak for Ordertrail or for its other audiences, nor anybody for it", async () => {
    const { verify } = verifierOf({});
    await expect(verify(await otherKey.sign({ exp }))).rejects.toEqual(refused(/a key that is not known/));
    await expect(verify(await ownKey.sign({ exp, iss: LOGIN, aud: "shop" }))).rejects.toEqual(refused(/a key that is not known/));
    await expect(verify(await login({ aud: AUDIENCE, role: "customer" }))).rejects.toEqual(refused(/audience/));
    await expect(verify(await login({ iss: "https://elsewhere.test/" }))).rejects.toEqual(refused(/issuer/));
  });

  it("is not taken for a client of Ordertrail's by its claims, but its tokens can be revoked by jti", async () => {
    const { verify, read } = verifierOf({}, ["token:https://login.test/#bad", "token:good", "session:mine"]);
    const { revocableBy } = await read(await login({ role: "customer", jti: "good", sid: "mine" }));
    expect(revocableBy).toEqual(["token:https://login.test/#good"]);
    await expect(verify(await login({ role: "customer", jti: "bad" }))).rejects.toEqual(refused(/revoked/));
  });
});

describe("a token without a jti", () => {
  it.each([{}, { jti: 7 }, { jti: "" }])("is revoked by what was signed, whatever signature it comes with: %j", async (claims) => {
    const revoked: string[] = [];
    const { verify, read } = verifierOf({}, revoked);
    const token = await login({ role: "customer", ...claims });
    const [own] = (await read(token)).revocableBy;
    revoked.push(own);
    await expect(verify(token)).rejects.toEqual(refused(/revoked/));
    // ECDSA signs with another random number each time, and whoever has one signature can make a second.
    const again = await login({ role: "customer", ...claims });
    expect(again).not.toBe(token);
    await expect(verify(again)).rejects.toEqual(refused(/revoked/));
    await expect(verify(await login({ role: "customer", ...claims, other: true }))).resolves.toBeDefined();
  });
});

describe("Ordertrail's own tokens", () => {
  it("name the holder of a tracking link, for one order", async () => {
    const { verify } = verifierOf({});
    const link = { exp, role: "link", sub: "link-1", order_id: "order-1" };
    await expect(verify(await ownKey.sign(link))).resolves.toEqual({ role: Role.LINK, subject: "link-1", orderId: "order-1" });
    for (const orderId of [undefined, "", "a b", ["order-1"]]) {
      await expect(verify(await ownKey.sign({ ...link, order_id: orderId }))).rejects.toEqual(refused(/order_id/));
    }
  });

  it.each([["token:a"], ["session:b"], [`key:${ownKey.publicJwk.kid}`]])(
    "are revoked by %s, also when they were verified before",
    async (id) => {
      const revoked: string[] = [];
      const { verify } = verifierOf({}, revoked);
      const token = await ownKey.sign({ exp, jti: "a", sid: "b" });
      await verify(token);
      revoked.push(id);
      await expect(verify(token)).rejects.toEqual(refused(/revoked/));
      revoked.length = 0;
      await expect(verify(token)).resolves.toBeDefined();
    },
  );
});
