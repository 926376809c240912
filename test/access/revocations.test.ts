import { createLocalJWKSet } from "jose";
import { MongoClient } from "mongodb";
import { describe, expect, it } from "vitest";
import { ownIssuer } from "../../src/access/issuers.ts";
import { STALE_MS } from "../../src/access/revocations.ts";
import { createTokenVerifier } from "../../src/access/tokens.ts";
import { Unavailable } from "../../src/domain/refusal.ts";
import { eventually } from "../support/eventually.ts";
import { startReplicaSet, testDatabase } from "../support/mongo.ts";
import { openAuth } from "./auth-database.ts";
import { AUDIENCE, ISSUER, makeIssuerKey } from "./issuer.ts";

const soon = () => new Date(Date.now() + 3_600_000);

describe("a revocation", () => {
  it("holds at once where it is said, and in other processes within two seconds", async () => {
    await using database = await testDatabase();
    await using one = await openAuth(database.db);
    await using two = await openAuth(database.db);
    expect(two.revocations.isRevoked(["token:a"])).toBe(false);
    const saidAt = performance.now();
    await one.revocations.revoke(["token:a", "session:b"], soon());
    expect(one.revocations.isRevoked(["token:x", "session:b"])).toBe(true);
    await eventually(() => expect(two.revocations.isRevoked(["token:a"])).toBe(true));
    // A busy machine may take longer than the two seconds that are promised for one that is not.
    expect(performance.now() - saidAt).toBeLessThan(4000);
    expect(two.revocations.isRevoked(["token:c", "session:d", "key:e"])).toBe(false);
  });

  it("holds in a process that starts later, and may be said again", async () => {
    await using database = await testDatabase();
    await using one = await openAuth(database.db);
    for (let time = 0; time < 2; time++) await one.revocations.revoke(["token:a"], soon());
    await Promise.all(Array.from({ length: 10 }, () => one.revocations.revoke(["token:b"], soon())));
    await using later = await openAuth(database.db);
    expect(later.revocations.isRevoked(["token:a"]) && later.revocations.isRevoked(["token:b"])).toBe(true);
  });

  it("is never cut short by another that ends earlier, and is forgotten when it has ended", async () => {
    await using database = await testDatabase();
    let now = Date.now();
    await using auth = await openAuth(database.db, () => new Date(now));
    await auth.revocations.revoke(["token:a"], new Date(now + 60_000));
    await auth.revocations.revoke(["token:a"], new Date(now + 1000));
    now += 59_000;
    await auth.revocations.refresh();
    expect(auth.revocations.isRevoked(["token:a"])).toBe(true);
    now += 2000;
    await auth.revocations.refresh();
    expect(auth.revocations.isRevoked(["token:a"])).toBe(false);
  });

  it("that is written late, with an older date, is still seen", async () => {
    await using database = await testDatabase();
    await using auth = await openAuth(database.db);
    await auth.revocations.revoke(["token:new"], soon());
    await auth.revocations.refresh();
    await database.db
      .collection<{ _id: string }>("auth_revocations")
      .insertOne({ _id: "token:late", revoked_at: new Date(Date.now() - 30_000), expires_at: soon() } as { _id: string });
    await auth.revocations.refresh();
    expect(auth.revocations.isRevoked(["token:late"])).toBe(true);
  });
});

describe("a process that cannot read what is revoked", () => {
  it("accepts no token after ten seconds, and does again when it can", async () => {
    await using set = await startReplicaSet({ members: 1, electionTimeoutMillis: 1000 });
    await using client = await new MongoClient(set.url, { serverSelectionTimeoutMS: 1000 }).connect();
    let now = Date.now();
    const clock = () => new Date(now);
    await using auth = await openAuth(client.db("test"), clock);
    // From here on it reads only when it must.
    await auth.revocations.stop();
    const key = await makeIssuerKey();
    const { verify } = createTokenVerifier({
      issuers: [ownIssuer({ issuer: ISSUER, audience: AUDIENCE, keys: createLocalJWKSet({ keys: [key.publicJwk] }) })],
      revocations: auth.revocations,
      clockSkewSeconds: 0,
      clock,
      cacheSize: 10,
    });
    const token = await key.sign({ exp: Math.floor(now / 1000) + 600, jti: "a" });
    await expect(verify(token)).resolves.toBeDefined();
    const [member] = set.members;
    if (!member) throw new Error("the set has no member");
    await set.kill(member);
    now += STALE_MS - 1;
    await expect(verify(token)).resolves.toBeDefined();
    now += 1;
    await expect(verify(token)).rejects.toBeInstanceOf(Unavailable);
    await set.restart(member);
    await set.primary();
    await eventually(() => verify(token));
    await auth.revocations.revoke(["token:a"], soon());
    await expect(verify(token)).rejects.toThrow("revoked");
  });
});
