import { rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { JWK } from "jose";
import pino from "pino";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { fileKeys, type IssuerKeyMemory, type KeySource, remoteKeys } from "../../src/access/key-source.ts";
import { createTokenVerifier } from "../../src/access/tokens.ts";
import { Unavailable } from "../../src/domain/refusal.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { makeIssuerKey, trusting } from "./issuer.ts";

const older = await makeIssuerKey();
const newer = await makeIssuerKey();
const exp = Math.floor(Date.now() / 1000) + 24 * 3600;

/** Verifies without remembering anything between calls. */
const verify = (keys: KeySource, token: string) =>
  createTokenVerifier({ ...trusting(keys), clockSkewSeconds: 0, clock: () => new Date(), cacheSize: 1 }).verify(token);

const unknownKey = expect.objectContaining({ reason: "UNAUTHENTICATED", message: expect.stringContaining("a key that is not known here") });

describe("keys in a file", () => {
  it("are read again when a token names another", async () => {
    await using dir = await temporaryFolder();
    const path = join(dir.path, "jwks.json");
    await writeFile(path, JSON.stringify({ keys: [older.publicJwk] }));
    const keys = fileKeys(path);
    await expect(verify(keys, await older.sign({ exp }))).resolves.toBeDefined();
    await expect(verify(keys, await newer.sign({ exp }))).rejects.toEqual(unknownKey);
    await writeFile(path, JSON.stringify({ keys: [newer.publicJwk, older.publicJwk] }));
    await expect(verify(keys, await newer.sign({ exp }))).resolves.toBeDefined();
    await expect(verify(keys, await older.sign({ exp }))).resolves.toBeDefined();
  });

  it("that cannot be read are unavailable, until they can", async () => {
    await using dir = await temporaryFolder();
    const path = join(dir.path, "jwks.json");
    const keys = fileKeys(path);
    const token = await older.sign({ exp });
    await expect(verify(keys, token)).rejects.toBeInstanceOf(Unavailable);
    for (const text of ["", "{", "[]", '{"keys":1}', '{"keys":[1]}']) {
      await writeFile(path, text);
      await expect(verify(keys, token)).rejects.toBeInstanceOf(Unavailable);
    }
    await writeFile(path, JSON.stringify({ keys: [older.publicJwk] }));
    await expect(verify(keys, token)).resolves.toBeDefined();
    await rm(path);
    await expect(verify(keys, token)).resolves.toBeDefined();
    await expect(verify(keys, await newer.sign({ exp }))).rejects.toBeInstanceOf(Unavailable);
  });
});

describe("keys at an issuer's address", () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["Date"] });
  });
  afterEach(() => {
    vi.useRealTimers();
  });
  const pass = (seconds: number) => vi.setSystemTime(Date.now() + seconds * 1000);

  it("are fetched once for many tokens", async () => {
    await using issuer = await startIssuer(older.publicJwk);
    const keys = issuer.source();
    const token = await older.sign({ exp });
    await Promise.all(Array.from({ length: 20 }, () => verify(keys, token)));
    await verify(keys, token);
    expect(issuer.requests()).toBe(1);
  });

  it("are fetched again for an unknown key, which is good as soon as it is published", async () => {
    await using issuer = await startIssuer(older.publicJwk);
    const keys = issuer.source();
    await verify(keys, await older.sign({ exp }));
    issuer.publish(newer.publicJwk);
    const token = await newer.sign({ exp });
    await Promise.all(Array.from({ length: 20 }, () => verify(keys, token)));
    expect(issuer.requests()).toBe(2);
  });

  it("are fetched a few times for keys that there are not, then every half minute, and refused all the same", async () => {
    await using issuer = await startIssuer(older.publicJwk);
    const keys = issuer.source();
    const token = await newer.sign({ exp });
    for (let call = 0; call < 20; call++) await expect(verify(keys, token)).rejects.toEqual(unknownKey);
    expect(issuer.requests()).toBe(1 + 5);
    issuer.publish(newer.publicJwk);
    await expect(verify(keys, token)).rejects.toEqual(unknownKey);
    pass(31);
    await expect(verify(keys, token)).resolves.toBeDefined();
    expect(issuer.requests()).toBe(1 + 6);
  });

  it("that were withdrawn are forgotten after ten minutes", async () => {
    await using issuer = await startIssuer(older.publicJwk);
    const keys = issuer.source();
    const token = await older.sign({ exp });
    await verify(keys, token);
    issuer.publish(newer.publicJwk);
    pass(601);
    await vi.waitFor(async () => expect(await verify(keys, token).catch((error: unknown) => error)).toEqual(unknownKey), { timeout: 5000 });
    // Once as they are old, and once as the token's key is not known any more.
    expect(issuer.requests()).toBeLessThanOrEqual(3);
  });

  it("remain in use while the issuer is in trouble, and unknown ones are unavailable", async () => {
    await using issuer = await startIssuer(older.publicJwk);
    const keys = issuer.source();
    const token = await older.sign({ exp });
    await verify(keys, token);
    issuer.fail();
    pass(601);
    await expect(verify(keys, token)).resolves.toBeDefined();
    await vi.waitFor(() => expect(issuer.requests()).toBe(2), { timeout: 5000 });
    await expect(verify(keys, token)).resolves.toBeDefined();
    await expect(verify(keys, await newer.sign({ exp }))).rejects.toBeInstanceOf(Unavailable);
  });

  it("that were never had are unavailable, and asking does not become a flood", async () => {
    await using issuer = await startIssuer(older.publicJwk);
    issuer.fail();
    const keys = issuer.source();
    const token = await older.sign({ exp });
    for (let call = 0; call < 20; call++) await expect(verify(keys, token)).rejects.toBeInstanceOf(Unavailable);
    expect(issuer.requests()).toBe(1);
  });

  it("that were saved are in use from the start while the issuer is away, until it is back", async () => {
    await using issuer = await startIssuer(older.publicJwk);
    const saved = new Map<string, string>();
    const memory = {
      save: async ({ href }: URL, keySet: string) => void saved.set(href, keySet),
      load: async ({ href }: URL) => saved.get(href),
    };
    const token = await older.sign({ exp });
    await verify(issuer.source(memory), token);
    expect([...saved.values()].join()).toContain(older.publicJwk.kid);
    issuer.fail();
    await expect(verify(issuer.source(), token)).rejects.toBeInstanceOf(Unavailable);
    const restarted = issuer.source(memory);
    await expect(verify(restarted, token)).resolves.toBeDefined();
    // Whether there is such a key, only the issuer can tell.
    for (let call = 0; call < 10; call++) await expect(verify(restarted, await newer.sign({ exp }))).rejects.toBeInstanceOf(Unavailable);
    expect(issuer.requests()).toBeLessThanOrEqual(5);
    issuer.recover();
    issuer.publish(newer.publicJwk);
    const verifyLater = async () => {
      pass(31);
      return await verify(restarted, token).catch((error: unknown) => error);
    };
    await vi.waitFor(async () => expect(await verifyLater()).toEqual(unknownKey), { timeout: 5000 });
    expect([...saved.values()].join()).toContain(newer.publicJwk.kid);
  });

  it("that are unknown are unavailable while the issuer is away, and known again soon after", async () => {
    await using issuer = await startIssuer(older.publicJwk);
    const keys = issuer.source();
    await verify(keys, await older.sign({ exp }));
    const [known, unknown] = await Promise.all([older.sign({ exp }), newer.sign({ exp })]);
    issuer.fail();
    for (let call = 0; call < 10; call++) await expect(verify(keys, unknown)).rejects.toBeInstanceOf(Unavailable);
    await expect(verify(keys, known)).resolves.toBeDefined();
    expect(issuer.requests()).toBeLessThanOrEqual(4);
    issuer.recover();
    await vi.waitFor(() => expect(verify(keys, unknown)).rejects.toEqual(unknownKey), { timeout: 5000 });
    issuer.publish(newer.publicJwk);
    await expect(verify(keys, unknown)).resolves.toBeDefined();
  });

  it("are unavailable when nobody answers at that address", async () => {
    const issuer = await startIssuer(older.publicJwk);
    await issuer[Symbol.asyncDispose]();
    await expect(verify(issuer.source(), await older.sign({ exp }))).rejects.toBeInstanceOf(Unavailable);
  });
});

/** A server that publishes keys, counts the requests for them, and can be made to fail. */
async function startIssuer(first: JWK) {
  let body = JSON.stringify({ keys: [first] });
  let status = 200;
  let requests = 0;
  const server = createServer((_, response) => {
    requests++;
    response.writeHead(status, { "content-type": "application/json" }).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    source: (memory?: IssuerKeyMemory) =>
      remoteKeys(new URL(`http://127.0.0.1:${port}/jwks.json`), () => new Date(), pino({ level: "silent" }), memory),
    publish(key: JWK) {
      body = JSON.stringify({ keys: [key] });
    },
    fail() {
      status = 503;
    },
    recover() {
      status = 200;
    },
    requests: () => requests,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
