import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { createRandom } from "../faults/random.ts";
import { testDatabase } from "../support/mongo.ts";
import { openAuth } from "./auth-database.ts";

const HOUR_SECONDS = 3600;
const refused = expect.objectContaining({ name: "Refusal", reason: "UNAUTHENTICATED" });

/** The refresh tokens that came of several attempts, and how many were refused. */
async function outcomes(attempts: readonly Promise<{ readonly refreshToken: string }>[]) {
  const settled = await Promise.allSettled(attempts);
  const tokens = settled.flatMap((result) => (result.status === "fulfilled" ? [result.value.refreshToken] : []));
  for (const result of settled) if (result.status === "rejected") expect(result.reason).toEqual(refused);
  return { tokens, refusals: settled.length - tokens.length };
}

describe("a refresh token", () => {
  it("gives the next one, of the same session, until the session ends", async () => {
    await using database = await testDatabase();
    let now = Date.now();
    await using auth = await openAuth(database.db, () => new Date(now));
    const first = await auth.sessions.begin("client-1", HOUR_SECONDS);
    const second = await auth.sessions.refresh(first.refreshToken, "");
    expect(second).toMatchObject({ sessionId: first.sessionId, clientId: "client-1", expiresAt: first.expiresAt });
    expect(second.refreshToken).not.toBe(first.refreshToken);
    now += HOUR_SECONDS * 1000 - 1;
    const third = await auth.sessions.refresh(second.refreshToken, "");
    now += 1;
    await expect(auth.sessions.refresh(third.refreshToken, "")).rejects.toEqual(refused);
  });

  it("brought by many at once, in several processes, is exchanged once, and then the session is revoked", async () => {
    await using database = await testDatabase();
    await using one = await openAuth(database.db);
    await using two = await openAuth(database.db);
    for (let round = 0; round < 10; round++) {
      const { refreshToken, sessionId } = await one.sessions.begin("client-1", HOUR_SECONDS);
      const attempts = Array.from({ length: 20 }, (_, index) =>
        (index % 2 === 0 ? one : two).sessions.refresh(refreshToken, index % 3 === 0 ? "" : `request-${index}`),
      );
      const { tokens } = await outcomes(attempts);
      expect(tokens.length).toBeLessThanOrEqual(1);
      expect(await one.revocations.find([`session:${sessionId}`])).toBe(true);
      for (const token of tokens) await expect(two.sessions.refresh(token, "")).rejects.toEqual(refused);
    }
  });

  it("brought by many at once with one request_id gives them all the same next one", async () => {
    await using database = await testDatabase();
    await using one = await openAuth(database.db);
    await using two = await openAuth(database.db);
    const { refreshToken } = await one.sessions.begin("client-1", HOUR_SECONDS);
    const attempts = Array.from({ length: 20 }, (_, index) => (index % 2 === 0 ? one : two).sessions.refresh(refreshToken, "same"));
    const { tokens, refusals } = await outcomes(attempts);
    expect(refusals).toBe(0);
    expect(new Set(tokens).size).toBe(1);
    await expect(two.sessions.refresh(tokens[0] ?? "", "next")).resolves.toBeDefined();
  });

  it.each<[string, (now: number) => number, string]>([
    ["after a minute", (now) => now + 60_000, "lost"],
    ["with another request_id", (now) => now, "other"],
    ["without a request_id", (now) => now, ""],
  ])("is not tried again %s: that ends the session", async (_, later, requestId) => {
    await using database = await testDatabase();
    let now = Date.now();
    await using auth = await openAuth(database.db, () => new Date(now));
    const first = await auth.sessions.begin("client-1", HOUR_SECONDS);
    const second = await auth.sessions.refresh(first.refreshToken, "lost");
    expect((await auth.sessions.refresh(first.refreshToken, "lost")).refreshToken).toBe(second.refreshToken);
    now = later(now);
    await expect(auth.sessions.refresh(first.refreshToken, requestId)).rejects.toEqual(refused);
    expect(auth.revocations.isRevoked([`session:${first.sessionId}`])).toBe(true);
    await expect(auth.sessions.refresh(second.refreshToken, "next")).rejects.toEqual(refused);
  });

  it("is not tried again once the one after it was used", async () => {
    await using database = await testDatabase();
    await using auth = await openAuth(database.db);
    const first = await auth.sessions.begin("client-1", HOUR_SECONDS);
    const second = await auth.sessions.refresh(first.refreshToken, "lost");
    const third = await auth.sessions.refresh(second.refreshToken, "lost");
    await expect(auth.sessions.refresh(first.refreshToken, "lost")).rejects.toEqual(refused);
    await expect(auth.sessions.refresh(third.refreshToken, "lost")).rejects.toEqual(refused);
  });

  it("that was never given out is refused and ends nobody's session", async () => {
    await using database = await testDatabase();
    await using auth = await openAuth(database.db);
    const { refreshToken, sessionId } = await auth.sessions.begin("client-1", HOUR_SECONDS);
    const bytes = Buffer.from(refreshToken.slice(4), "base64url");
    for (let at = 0; at < bytes.length; at += 5) {
      const forged = Buffer.from(bytes);
      forged[at] = (forged[at] ?? 0) ^ 1;
      await expect(auth.sessions.refresh(`otr_${forged.toString("base64url")}`, "")).rejects.toEqual(refused);
    }
    for (const text of ["", "otr_", "nonsense", refreshToken.slice(4), `${refreshToken}AAAA`]) {
      await expect(auth.sessions.refresh(text, "")).rejects.toEqual(refused);
    }
    expect(await auth.revocations.find([`session:${sessionId}`])).toBe(false);
    await expect(auth.sessions.refresh(refreshToken, "")).resolves.toBeDefined();
  });

  it("still ends the access tokens that came of its session when that has ended, used again or revoked", async () => {
    await using database = await testDatabase();
    let now = Date.now();
    await using auth = await openAuth(database.db, () => new Date(now));
    const begin = () => auth.sessions.begin("client-1", 60);
    const [used, byToken, byId, byClient, untouched] = await Promise.all([
      begin(),
      begin(),
      begin(),
      begin(),
      auth.sessions.begin("client-2", 60),
    ]);
    await auth.sessions.refresh(used.refreshToken, "");
    now += 61_000;
    for (const { refreshToken } of [used, untouched]) await expect(auth.sessions.refresh(refreshToken, "")).rejects.toEqual(refused);
    await auth.sessions.revokeBy(byToken.refreshToken);
    await auth.sessions.revoke(byId.sessionId);
    const isRevoked = ({ sessionId }: { readonly sessionId: string }) => auth.revocations.find([`session:${sessionId}`]);
    expect(await Promise.all([used, byToken, byId, byClient, untouched].map(isRevoked))).toEqual([true, true, true, false, false]);
    expect(await auth.sessions.revokeAll("client-1")).toBe(4);
    expect(await Promise.all([byClient, untouched].map(isRevoked))).toEqual([true, false]);
  });

  it("is nowhere in the database, nor what would make one", async () => {
    await using database = await testDatabase();
    await using auth = await openAuth(database.db);
    const { refreshToken } = await auth.sessions.begin("client-1", HOUR_SECONDS);
    const secret = Buffer.from(refreshToken.slice(4), "base64url").subarray(20, 52);
    const documents = await database.db.collection("auth_sessions").find({}, { promoteBuffers: true }).toArray();
    const bytes = Buffer.concat(documents.flatMap((document) => Object.values(document).filter((value) => Buffer.isBuffer(value))));
    expect(bytes.length).toBeGreaterThan(60);
    expect(bytes.includes(secret)).toBe(false);
  });

  it("goes from the database with the last access token of its session", async () => {
    await using database = await testDatabase();
    await using _ = await openAuth(database.db);
    for (const [name, count, until] of [
      ["auth_sessions", 3, "kept_until"],
      ["auth_revocations", 3, "expires_at"],
    ] as const) {
      const indexes = await database.db.collection(name).indexes();
      expect(indexes).toHaveLength(count);
      expect(indexes).toContainEqual(expect.objectContaining({ key: { [until]: 1 }, expireAfterSeconds: 0 }));
    }
  });
});

const KILLS = 8;
const SEED = Date.now() % 1_000_000;

describe(`a client whose server is killed ${KILLS} times in the middle of a refresh (seed ${SEED})`, () => {
  it("goes on with its session by trying again", { timeout: 120_000 }, async () => {
    await using database = await testDatabase();
    await using auth = await openAuth(database.db);
    const random = createRandom(SEED);
    const { refreshToken, sessionId } = await auth.sessions.begin("client-1", HOUR_SECONDS);
    let open = { token: refreshToken, requestId: "first" };
    for (let kill = 0; kill < KILLS; kill++) open = await refreshUntilKilled(database.url, database.name, open, 1 + random(20), random(8));
    await expect(auth.sessions.refresh(open.token, open.requestId)).resolves.toMatchObject({ sessionId });
    expect(await auth.revocations.find([`session:${sessionId}`])).toBe(false);
  });
});

type Open = { readonly token: string; readonly requestId: string };

/** Refreshes in another process that is killed after so many answers and milliseconds; answers what it had asked for last. */
async function refreshUntilKilled(url: string, database: string, from: Open, answers: number, afterMs: number): Promise<Open> {
  const script = fileURLToPath(new URL("./refresher.ts", import.meta.url));
  const child = spawn(process.execPath, [script, url, database, from.token, from.requestId], { stdio: ["pipe", "pipe", "inherit"] });
  const exited = once(child, "exit");
  let open = from;
  let answered = 0;
  const { promise: enough, resolve } = Promise.withResolvers<void>();
  const lines = createInterface({ input: child.stdout });
  lines.on("line", (line) => {
    // A line that a kill has cut short says nothing.
    const [what, token = "", requestId = "", end] = line.split(" ");
    if (what === "try" && end === ".") open = { token, requestId };
    if (what === "got" && ++answered === answers) resolve();
  });
  const read = once(lines, "close");
  await Promise.race([enough, exited.then(() => Promise.reject(new Error(`the process ended by itself after ${answered} answers`)))]);
  // Not to wait for something: the moment of the kill is what varies.
  await pause(afterMs);
  child.kill("SIGKILL");
  await Promise.all([exited, read]);
  return open;
}
