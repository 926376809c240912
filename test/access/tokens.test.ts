import { createHmac, createPublicKey } from "node:crypto";
import fc from "fast-check";
import { createLocalJWKSet } from "jose";
import { beforeEach, describe, expect, it } from "vitest";
import type { KeySource } from "../../src/access/key-source.ts";
import { createTokenVerifier, type TokenVerifier } from "../../src/access/tokens.ts";
import { Unavailable } from "../../src/domain/refusal.ts";
import { DeliveryProvider, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { AUDIENCE, ISSUER, makeIssuerKey, trusting } from "./issuer.ts";

const START_SECONDS = 1_800_000_000;
const SKEW_SECONDS = 30;
const issuerKey = await makeIssuerKey();
const exp = START_SECONDS + 600;

let nowSeconds: number;
let lookups: number;
let verifier: TokenVerifier;

function makeVerifier(keys: KeySource, cacheSize = 100): TokenVerifier {
  const counted: KeySource = (header, token) => {
    lookups++;
    return keys(header, token);
  };
  return createTokenVerifier({
    ...trusting(counted),
    clockSkewSeconds: SKEW_SECONDS,
    clock: () => new Date(nowSeconds * 1000),
    cacheSize,
  });
}

const refusal = (message: string | RegExp) =>
  expect.objectContaining({ name: "Refusal", reason: "UNAUTHENTICATED", message: expect.stringMatching(message) });

beforeEach(() => {
  nowSeconds = START_SECONDS;
  lookups = 0;
  verifier = makeVerifier(createLocalJWKSet({ keys: [issuerKey.publicJwk] }));
});

describe("a token", () => {
  it.each([
    ["service", { role: "service", sub: "checkout" }, { role: Role.SERVICE, subject: "checkout" }],
    ["customer", { role: "customer", sub: "customer-1" }, { role: Role.CUSTOMER, subject: "customer-1" }],
    ["store", { role: "store", sub: "clerk-1", store_id: "store-1" }, { role: Role.STORE, subject: "clerk-1", storeId: "store-1" }],
    ["driver", { role: "driver", sub: "driver-1" }, { role: Role.DRIVER, subject: "driver-1" }],
    ["partner", { role: "partner", sub: "UBER" }, { role: Role.PARTNER, subject: "UBER", provider: DeliveryProvider.UBER }],
    [
      "partner with a longer name",
      { role: "partner", sub: "In_House" },
      { role: Role.PARTNER, subject: "In_House", provider: DeliveryProvider.IN_HOUSE },
    ],
    ["auditor", { role: "auditor", sub: "auditor-1" }, { role: Role.AUDITOR, subject: "auditor-1" }],
    ["operator", { role: "operator", sub: "operator-1" }, { role: Role.OPERATOR, subject: "operator-1" }],
  ])("names a %s", async (_, claims, caller) => {
    expect(await verifier.verify(await issuerKey.sign({ exp, ...claims }))).toEqual(caller);
  });

  it.each(["ES256", "ES384", "ES512", "EdDSA", "PS256", "RS256"])("may be signed by %s", async (alg) => {
    const key = await makeIssuerKey(alg);
    const caller = await makeVerifier(createLocalJWKSet({ keys: [key.publicJwk] })).verify(await key.sign({ exp }));
    expect(caller.subject).toBe("customer-1");
  });

  it.each<[string, Readonly<Record<string, unknown>>, RegExp]>([
    ["of an unknown role", { exp, role: "admin" }, /claim role must be one of service, customer/],
    ["of Ordertrail's own role", { exp, role: "system" }, /claim role/],
    ["of no role", { exp, role: undefined }, /claim role/],
    ["of a role in capitals", { exp, role: "OPERATOR" }, /claim role/],
    ["of several roles", { exp, role: ["operator"] }, /claim role/],
    ["of a role that every object has", { exp, role: "constructor" }, /claim role/],
    ["without subject", { exp, sub: undefined }, /claim sub must be/],
    ["with an empty subject", { exp, sub: "" }, /claim sub/],
    ["with a subject that is no identifier", { exp, sub: "ada@example.com" }, /claim sub/],
    ["with a subject of two lines", { exp, sub: "customer-1\n" }, /claim sub/],
    ["with a subject that is too long", { exp, sub: "x".repeat(65) }, /claim sub/],
    ["of a store without store_id", { exp, role: "store" }, /claim store_id/],
    ["of a store with a wrong store_id", { exp, role: "store", store_id: "a b" }, /claim store_id/],
    ["of a store with two", { exp, role: "store", store_id: ["store-1"] }, /claim store_id/],
    ["of an unknown partner", { exp, role: "partner", sub: "acme" }, /claim sub must be the provider/],
    ["of no provider in particular", { exp, role: "partner", sub: "unspecified" }, /claim sub must be the provider/],
    ["of another issuer", { exp, iss: "https://other.test" }, /issuer/],
    ["of no issuer", { exp, iss: undefined }, /issuer/],
    ["for another audience", { exp, aud: "payments" }, /audience/],
    ["for no audience", { exp, aud: undefined }, /audience/],
    ["without time of expiry", {}, /expiry/],
    ["with a time of expiry in words", { exp: "tomorrow" }, /expiry/],
    ["that has expired", { exp: START_SECONDS - SKEW_SECONDS }, /expired/],
    ["that is not valid yet", { exp, nbf: START_SECONDS + SKEW_SECONDS + 1 }, /not valid yet/],
  ])("%s is refused", async (_, claims, message) => {
    const token = await issuerKey.sign(claims);
    await expect(verifier.verify(token)).rejects.toEqual(refusal(message));
  });

  it("may be for several audiences", async () => {
    const token = await issuerKey.sign({ exp, aud: ["payments", AUDIENCE] });
    await expect(verifier.verify(token)).resolves.toMatchObject({ subject: "customer-1" });
  });

  it("may be off by the clock skew", async () => {
    const token = await issuerKey.sign({ exp: START_SECONDS - SKEW_SECONDS + 1, nbf: START_SECONDS - SKEW_SECONDS });
    await expect(verifier.verify(token)).resolves.toMatchObject({ subject: "customer-1" });
    const early = await issuerKey.sign({ exp, nbf: START_SECONDS + SKEW_SECONDS });
    await expect(verifier.verify(early)).resolves.toMatchObject({ subject: "customer-1" });
  });

  it("is refused when the public key was used as a shared secret", async () => {
    const header = { alg: "HS256", kid: issuerKey.publicJwk.kid };
    const payload = { iss: ISSUER, aud: AUDIENCE, sub: "operator-1", role: "operator", exp };
    const pem = createPublicKey({ key: issuerKey.publicJwk, format: "jwk" }).export({ type: "spki", format: "pem" });
    for (const secret of [pem, JSON.stringify(issuerKey.publicJwk), ""]) {
      const unsigned = `${encode(header)}.${encode(payload)}`;
      const token = `${unsigned}.${createHmac("sha256", secret).update(unsigned).digest("base64url")}`;
      await expect(verifier.verify(token)).rejects.toEqual(refusal(/signed with one of ES256/));
    }
  });

  it("is refused without signature", async () => {
    const payload = encode({ iss: ISSUER, aud: AUDIENCE, sub: "operator-1", role: "operator", exp });
    for (const alg of ["none", "None", "NONE", ""]) {
      await expect(verifier.verify(`${encode({ alg })}.${payload}.`)).rejects.toEqual(refusal(/token/));
    }
    await expect(verifier.verify(`${encode({ alg: "ES256", kid: issuerKey.publicJwk.kid })}.${payload}.`)).rejects.toEqual(
      refusal(/signature/),
    );
  });

  it("is refused when it brings its own key", async () => {
    const other = await makeIssuerKey();
    const [, payload, signature] = (await other.sign({ exp, role: "operator" })).split(".");
    const header = encode({ alg: "ES256", jwk: other.publicJwk, kid: issuerKey.publicJwk.kid });
    await expect(verifier.verify(`${header}.${payload}.${signature}`)).rejects.toEqual(refusal(/signature/));
  });

  it("is refused when its claims were exchanged", async () => {
    const [header, , signature] = (await issuerKey.sign({ exp })).split(".");
    const forged = encode({ iss: ISSUER, aud: AUDIENCE, sub: "operator-1", role: "operator", exp });
    await expect(verifier.verify(`${header}.${forged}.${signature}`)).rejects.toEqual(refusal(/signature/));
  });

  it("is refused, never a fault, whatever it is, and is not repeated in the message", async () => {
    const part = fc.oneof(
      fc.string(),
      fc.base64String(),
      fc.json().map((json) => Buffer.from(json).toString("base64url")),
    );
    const garbage = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.array(part, { minLength: 1, maxLength: 6 }).map((parts) => parts.join(".")),
      fc.constant("x".repeat(5000)),
    );
    await fc.assert(
      fc.asyncProperty(garbage, async (token) => {
        const error = await verifier.verify(token).catch((thrown: unknown) => thrown);
        expect(error).toEqual(refusal(/./));
        if (token.length > 40) expect(String(error)).not.toContain(token);
      }),
    );
  });

  it("is neither accepted nor refused while the keys cannot be had", async () => {
    const token = await issuerKey.sign({ exp });
    const away = makeVerifier(() => Promise.reject(new Unavailable("away")));
    await expect(away.verify(token)).rejects.toBeInstanceOf(Unavailable);
  });
});

describe("a verified token", () => {
  it("is verified once", async () => {
    const token = await issuerKey.sign({ exp });
    const first = await verifier.verify(token);
    expect(await verifier.verify(token)).toEqual(first);
    expect(lookups).toBe(1);
  });

  it("is refused as soon as it has expired, though it is remembered", async () => {
    const token = await issuerKey.sign({ exp });
    await verifier.verify(token);
    nowSeconds = exp + SKEW_SECONDS - 1;
    await expect(verifier.verify(token)).resolves.toMatchObject({ subject: "customer-1" });
    expect(lookups).toBe(1);
    nowSeconds = exp + SKEW_SECONDS;
    await expect(verifier.verify(token)).rejects.toEqual(refusal(/expired/));
  });

  it("gives way to newer ones when there are too many", async () => {
    const small = makeVerifier(createLocalJWKSet({ keys: [issuerKey.publicJwk] }), 2);
    const tokens = await Promise.all(["a", "b", "c"].map((sub) => issuerKey.sign({ exp, sub })));
    for (const token of tokens) await small.verify(token);
    expect(lookups).toBe(3);
    await small.verify(tokens[2] ?? "");
    expect(lookups).toBe(3);
    await small.verify(tokens[0] ?? "");
    expect(lookups).toBe(4);
  });

  it("is remembered only if it was accepted", async () => {
    const early = await issuerKey.sign({ exp, nbf: START_SECONDS + 60 });
    await expect(verifier.verify(early)).rejects.toEqual(refusal(/not valid yet/));
    nowSeconds = START_SECONDS + 60;
    await expect(verifier.verify(early)).resolves.toMatchObject({ subject: "customer-1" });
  });
});

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}
