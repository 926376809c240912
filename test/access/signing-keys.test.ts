import { randomBytes } from "node:crypto";
import { decodeProtectedHeader } from "jose";
import type { Db } from "mongodb";
import { describe, expect, it } from "vitest";
import {
  createSigningKeys,
  MAX_LIFETIME_SECONDS,
  PUBLISHED_AHEAD_SECONDS,
  type SigningKeys,
  type Wrapping,
} from "../../src/access/signing-keys.ts";
import { createTokenVerifier } from "../../src/access/tokens.ts";
import { createLogger } from "../../src/logger.ts";
import { type MasterKeys, parseMasterKeys, unwrapKey, wrapKey } from "../../src/privacy/master-key.ts";
import { testDatabase } from "../support/mongo.ts";
import { AUDIENCE, ISSUER, trusting } from "./issuer.ts";

const masterKeys = parseMasterKeys(randomBytes(32).toString("base64"));
const claims = { iss: ISSUER, aud: AUDIENCE, sub: "operator-1", role: "operator" };

let nowMs = Date.now();
const clock = () => new Date(nowMs);
const pass = (seconds: number) => {
  nowMs += seconds * 1000;
};

const wrappingUnder = (keys: MasterKeys): Wrapping => ({
  wrap: async (secret, binding) => wrapKey(keys, secret, binding),
  unwrap: async (wrapped, binding) => unwrapKey(keys, wrapped, binding),
});

/** The keys as one process has them. */
const open = (db: Db, keys = masterKeys, isRevoked: (kid: string) => boolean = () => false) =>
  createSigningKeys({ db, wrapping: wrappingUnder(keys), clock, logger: createLogger("silent"), isRevoked });
const kidOf = (token: string) => decodeProtectedHeader(token).kid ?? "";
const published = async (keys: SigningKeys) => (await keys.jwks()).keys.map(({ kid }) => kid);
const verify = (keys: SigningKeys, token: string) =>
  createTokenVerifier({ ...trusting(keys.source), clockSkewSeconds: 0, clock, cacheSize: 1 }).verify(token);

describe("signing keys", () => {
  it("are made once, whichever of several processes comes first, and all of them verify what each signs", async () => {
    await using database = await testDatabase();
    const processes = Array.from({ length: 5 }, () => open(database.db));
    const tokens = await Promise.all(processes.map((keys) => keys.sign(claims, 60)));
    expect(new Set(tokens.map(kidOf)).size).toBe(1);
    for (const keys of processes) await expect(verify(keys, tokens[0] ?? "")).resolves.toMatchObject({ subject: "operator-1" });
  });

  it("are published before they sign, and as long as what they signed may be valid", async () => {
    await using database = await testDatabase();
    const keys = open(database.db);
    const other = open(database.db);
    const old = await keys.sign(claims, MAX_LIFETIME_SECONDS);
    await verify(other, old);
    const next = await keys.rotate();
    expect(next.phase).toBe("next");
    expect(await published(keys)).toEqual([next.kid, kidOf(old)]);
    expect(kidOf(await keys.sign(claims, 60))).toBe(kidOf(old));
    pass(PUBLISHED_AHEAD_SECONDS + 1);
    const young = await keys.sign(claims, 60);
    expect(kidOf(young)).toBe(next.kid);
    await expect(verify(other, young)).resolves.toBeDefined();
    pass(MAX_LIFETIME_SECONDS - PUBLISHED_AHEAD_SECONDS - 10);
    await expect(verify(open(database.db), old)).resolves.toBeDefined();
    pass(PUBLISHED_AHEAD_SECONDS + 3600 + 10);
    expect(await published(open(database.db))).toEqual([next.kid]);
    await keys.rotate();
    expect((await keys.list()).map(({ phase }) => phase)).toEqual(["next", "signing"]);
  });

  it("have one next at a time, however many rotate", async () => {
    await using database = await testDatabase();
    const processes = Array.from({ length: 5 }, () => open(database.db));
    await processes[0]?.sign(claims, 60);
    const nexts = await Promise.all(processes.map((keys) => keys.rotate()));
    expect(new Set(nexts.map(({ kid }) => kid)).size).toBe(1);
    expect((await processes[1]?.list())?.map(({ phase }) => phase)).toEqual(["next", "signing"]);
    expect((await processes[2]?.rotate())?.kid).toBe(nexts[0]?.kid);
  });

  it("that are withdrawn verify nothing, and another signs at once", async () => {
    await using database = await testDatabase();
    const keys = open(database.db);
    const token = await keys.sign(claims, 60);
    const signing = await keys.withdraw(kidOf(token));
    expect(signing?.phase).toBe("signing");
    expect(kidOf(await keys.sign(claims, 60))).toBe(signing?.kid);
    await expect(verify(keys, token)).rejects.toThrow("a key that is not known here");
    expect(await published(keys)).toEqual([signing?.kid]);
    expect(await keys.withdraw("none")).toBeUndefined();
  });

  it("that another process has withdrawn sign nothing more, nor do those that it does not know to be followed", async () => {
    await using database = await testDatabase();
    const revoked = new Set<string>();
    const keys = open(database.db, masterKeys, (kid) => revoked.has(kid));
    const other = open(database.db);
    const first = kidOf(await keys.sign(claims, 60));
    await other.withdraw(first);
    revoked.add(first);
    const second = kidOf(await keys.sign(claims, 60));
    expect(second).not.toBe(first);
    const { kid } = await other.rotate();
    pass(PUBLISHED_AHEAD_SECONDS + 1);
    expect(kidOf(await keys.sign(claims, 60))).toBe(kid);
  });

  it("are wrapped under a new master key, after which the old one is not needed", async () => {
    await using database = await testDatabase();
    const [old, young] = [randomBytes(32), randomBytes(32)].map((bytes) => bytes.toString("base64"));
    const token = await open(database.db, parseMasterKeys(`${old}`)).sign(claims, 60);
    const both = open(database.db, parseMasterKeys(`${young},${old}`));
    expect([await both.rewrap(), await both.rewrap()]).toEqual([1, 0]);
    expect(kidOf(await open(database.db, parseMasterKeys(`${young}`)).sign(claims, 60))).toBe(kidOf(token));
  });

  it("do not hold up the others when the master key of one is missing", async () => {
    await using database = await testDatabase();
    const [lost, old, young] = [randomBytes(32), randomBytes(32), randomBytes(32)].map((bytes) => bytes.toString("base64"));
    const first = kidOf(await open(database.db, parseMasterKeys(`${lost}`)).sign(claims, 60));
    await open(database.db, parseMasterKeys(`${old},${lost}`)).withdraw(first);
    await database.db.collection<{ _id: string }>("auth_signing_keys").updateOne({ _id: first }, { $unset: { withdrawn_at: 1 } });
    expect(await open(database.db, parseMasterKeys(`${young},${old}`)).rewrap()).toBe(1);
  });

  it("are private under the master key: the database alone signs nothing", async () => {
    await using database = await testDatabase();
    const keys = open(database.db);
    const token = await keys.sign(claims, 60);
    const stranger = open(database.db, parseMasterKeys(randomBytes(32).toString("base64")));
    await expect(verify(stranger, token)).resolves.toBeDefined();
    await expect(stranger.sign(claims, 60)).rejects.toThrow("not among those configured");
    for (const key of (await keys.jwks()).keys) expect(Object.keys(key).sort()).toEqual(["alg", "crv", "kid", "kty", "use", "x", "y"]);
    const [document] = await database.db.collection("auth_signing_keys").find().toArray();
    expect(JSON.stringify(document)).not.toContain('"d"');
  });
});
