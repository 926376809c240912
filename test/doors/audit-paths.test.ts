import { request } from "node:http";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { PERMISSIONS, type Permission } from "../../src/access/permissions.ts";
import { openCheckpoint } from "../../src/audit/checkpoint.ts";
import { HASH_BYTES, hashLeaf } from "../../src/audit/merkle.ts";
import { parseVerifierKey } from "../../src/audit/signed-note.ts";
import { logAtUrl, splitBundle } from "../../src/audit/tile-source.ts";
import { verifyTree } from "../../src/audit/verify-tree.ts";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { AuditService } from "../../src/gen/ordertrail/v1/audit_service_pb.js";
import { startTestApp, type TestApp, type TestCaller } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { anEntry } from "../support/log.ts";
import { openLog } from "../support/open-log.ts";

const AUDITOR: TestCaller = { role: Role.AUDITOR, subject: "auditor-1" };
const ENTRIES = 600;
const PATHS = ["/audit/checkpoint", "/audit/tile/0/000", "/audit/tile/1/000.p/2", "/audit/tile/entries/002.p/88"];

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp();
  await using log = openLog(inject("mongodbUrl"), app.databaseName);
  await Promise.all(Array.from({ length: ENTRIES }, (_, index) => log.appender.append(anEntry(`stream-${index}`, 1))));
  const audit = app.client(AuditService, "grpc", AUDITOR);
  await eventually(async () => expect((await audit.getCheckpoint({})).checkpoint?.size).toBe(BigInt(ENTRIES)));
});
afterAll(() => app[Symbol.asyncDispose]());

const get = async (path: string, caller: TestCaller | undefined = AUDITOR, init: RequestInit = {}) =>
  fetch(`${app.http}${path}`, {
    ...init,
    headers: { ...init.headers, ...(caller && { authorization: `Bearer ${await app.token(caller)}` }) },
  });
const bytesOf = async (response: Response) => new Uint8Array(await response.arrayBuffer());

describe("the log's published paths", () => {
  it("give a checkpoint that may not be cached, and hash tiles and entries that always may", async () => {
    const checkpoint = await get("/audit/checkpoint");
    expect(checkpoint.headers.get("content-type")).toBe("text/plain; charset=utf-8");
    expect(checkpoint.headers.get("cache-control")).toBe("no-cache");
    const tile = await get("/audit/tile/0/001");
    expect(tile.headers.get("content-type")).toBe("application/octet-stream");
    expect(tile.headers.get("cache-control")).toBe("private, max-age=31536000, immutable");
    expect((await bytesOf(tile)).length).toBe(8192);
    const partial = await bytesOf(await get("/audit/tile/0/002.p/88"));
    expect(partial.length).toBe(88 * HASH_BYTES);
    const entries = await get("/audit/tile/entries/002.p/88");
    expect(entries.headers.get("cache-control")).toBe("private, max-age=31536000, immutable");
    const bodies = splitBundle(await bytesOf(entries));
    expect(Buffer.concat(bodies.map(hashLeaf))).toEqual(Buffer.from(partial));
  });

  it("give the tiles of every size up to the checkpoint's, and none beyond", async () => {
    for (const path of ["0/000", "0/002.p/1", "0/002.p/88", "0/001.p/17", "1/000.p/1", "1/000.p/2", "entries/001", "entries/001.p/3"])
      expect((await get(`/audit/tile/${path}`)).status, path).toBe(200);
    for (const path of ["0/002", "0/002.p/89", "0/003.p/1", "1/000", "1/000.p/3", "2/000.p/1", "63/000", "entries/002", "entries/003.p/1"])
      expect((await get(`/audit/tile/${path}`)).status, path).toBe(404);
  });

  it.each(["tile/0/0", "tile/0/000.p/256", "tile/64/000", "tile/0/x000/001", "tile/data/000", "tile/0/000/", "tile/", "tile/0/..%2f000"])(
    "refuse %s as no path of a tile",
    async (path) => {
      const response = await get(`/audit/${path}`);
      expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([400, "MALFORMED_REQUEST"]);
    },
  );

  it("answer HEAD, name their methods, and refuse others", async () => {
    const head = await get("/audit/tile/0/000", AUDITOR, { method: "HEAD" });
    expect([head.status, head.headers.get("content-length"), (await bytesOf(head)).length]).toEqual([200, "8192", 0]);
    const put = await get("/audit/checkpoint", AUDITOR, { method: "PUT", body: "x" });
    expect([put.status, put.headers.get("allow")]).toEqual([405, "GET, HEAD"]);
    const options = await get("/audit/tile/0/000", AUDITOR, { method: "OPTIONS" });
    expect([options.status, options.headers.get("allow")]).toEqual([204, "GET, HEAD, OPTIONS"]);
    expect((await get("/audit/other")).status).toBe(404);
    expect((await get("/audit/checkpoint/")).status).toBe(404);
  });

  it("compress entries where that is understood", async () => {
    const raw = async (encoding: string) => {
      const headers = { authorization: `Bearer ${await app.token(AUDITOR)}`, "accept-encoding": encoding };
      return await new Promise<{ encoding: string | undefined; length: number }>((resolve, reject) => {
        request(`${app.http}/audit/tile/entries/000`, { headers }, (response) => {
          let length = 0;
          response.on("data", (chunk: Buffer) => {
            length += chunk.length;
          });
          response.on("end", () => resolve({ encoding: response.headers["content-encoding"], length }));
        })
          .on("error", reject)
          .end();
      });
    };
    const [plain, zipped] = [await raw("identity"), await raw("gzip, br")];
    expect([plain.encoding, zipped.encoding]).toEqual([undefined, "gzip"]);
    expect(zipped.length).toBeLessThan(plain.length);
  });

  it("are verified by the log's key alone", async () => {
    const { checkpoint } = await app.client(AuditService, "connect", AUDITOR).getCheckpoint({});
    const log = logAtUrl(new URL("/audit", app.http), { token: () => app.token(AUDITOR) });
    const head = openCheckpoint(await log.checkpoint(), (checkpoint?.verifierKeys ?? []).map(parseVerifierKey));
    const verifying = verifyTree(log, { head });
    let last = await verifying.next();
    while (!last.done) last = await verifying.next();
    expect(last.value).toBeUndefined();
    expect(head.size).toBe(ENTRIES);
  });
});

describe("who may read them", () => {
  it("is in the table of permissions", () => {
    expect([...PERMISSIONS.keys()].filter((name) => name.includes("/audit/"))).toEqual([
      "GET /audit/checkpoint",
      "GET /audit/tile/{level}/{index}",
      "GET /audit/tile/entries/{index}",
    ]);
  });

  it("must be in it: no server starts without", async () => {
    const table = PERMISSIONS as Map<string, Permission>;
    const name = "GET /audit/tile/entries/{index}";
    const line = table.get(name) as Permission;
    table.delete(name);
    try {
      await expect(startTestApp()).rejects.toThrow(`nobody is given permission to call ${name}`);
    } finally {
      table.set(name, line);
    }
  });

  it.each(PATHS)("of %s: auditors and operators", async (path) => {
    for (const role of [Role.SERVICE, Role.CUSTOMER, Role.STORE, Role.DRIVER, Role.PARTNER, Role.AUDITOR, Role.OPERATOR]) {
      const caller = { role, subject: role === Role.PARTNER ? "uber" : "somebody", ...(role === Role.STORE && { storeId: "store-1" }) };
      const expected = role === Role.AUDITOR || role === Role.OPERATOR ? 200 : 403;
      expect((await get(path, caller)).status, Role[role]).toBe(expected);
    }
    const without = await fetch(`${app.http}${path}`);
    expect([without.status, without.headers.get("www-authenticate")]).toEqual([401, 'Bearer realm="ordertrail"']);
    expect((await fetch(`${app.http}${path}`, { headers: { authorization: "Bearer nonsense" } })).status).toBe(401);
  });

  it("is anybody, but for the entries, where that is configured", async () => {
    await using open = await startTestApp({ AUDIT_PUBLIC: "true" });
    await using log = openLog(inject("mongodbUrl"), open.databaseName);
    await log.appender.append(anEntry("stream", 1));
    await eventually(async () => expect((await fetch(`${open.http}/audit/tile/0/000.p/1`)).status).toBe(200));
    const tile = await fetch(`${open.http}/audit/tile/0/000.p/1`);
    expect(tile.headers.get("cache-control")).toBe("public, max-age=31536000, immutable");
    expect((await fetch(`${open.http}/audit/checkpoint`)).status).toBe(200);
    expect((await fetch(`${open.http}/audit/tile/entries/000.p/1`)).status).toBe(401);
  });
});
