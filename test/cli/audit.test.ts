import { appendFile, cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { toBinary } from "@bufbuild/protobuf";
import { Command, type CommanderError } from "commander";
import { Binary, type Document, Long } from "mongodb";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { partialTiles, type TileAddress, tilePath } from "../../src/audit/tile.ts";
import { registerAudit } from "../../src/cli/audit.ts";
import { claimInstance } from "../../src/cli/instance.ts";
import { registerStatus } from "../../src/cli/status.ts";
import { LogEntrySchema } from "../../src/gen/ordertrail/events/v1/log_entry_pb.js";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { decodeBody } from "../../src/log/log-entry.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { dumpOf, restore } from "../support/dump.ts";
import { eventually } from "../support/eventually.ts";
import { testDatabase } from "../support/mongo.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
const path = (name: string) => join(folder.path, name);
beforeEach(async () => {
  folder = await temporaryFolder();
  vi.stubEnv("NODE_ENV", "development");
  vi.stubEnv("DATA_DIR", folder.path);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  process.exitCode = undefined;
  await folder[Symbol.asyncDispose]();
});

const ORIGIN = "ordertrail.localhost/audit";

describe("ordertrail audit key", () => {
  it("prints the verifier key in note form and nothing else, without an instance, always the same", async () => {
    const { out, err, exitCode } = await audit("key");
    expect(out).toMatch(/^ordertrail\.localhost\/audit\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{44}\n$/);
    expect([err, exitCode]).toEqual(["", 0]);
    expect((await audit("key")).out).toBe(out);
  });

  it("is another after rotate-key; the old one goes on signing until it is retired, and stays known", async () => {
    await using app = await startInstance();
    const old = (await audit("key")).out.trim();
    await covered(app, 0);
    const next = (await audit("rotate-key")).out.trim();
    expect((await audit("key")).out.trim()).toBe(next);
    await submit(app, "one");
    await covered(app, 1);
    for (const key of [old, next]) expect(await audit("verify", "--key", key)).toMatchObject({ exitCode: 0 });
    await audit("rotate-key", "--retire");
    await submit(app, "two");
    await eventually(async () => expect((await audit("verify", "--key", old)).err).toContain("not signed with the key"));
    expect((await audit("verify")).exitCode).toBe(0);
    const all = (await audit("key", "--all")).out.trim().split("\n");
    expect(all).toEqual([old, next, (await audit("key")).out.trim()]);
  });

  it("cannot be rotated where it comes from the environment, and can where it comes from a file", async () => {
    vi.stubEnv("AUDIT_KEYS", Buffer.alloc(32, 1).toString("base64"));
    expect((await audit("rotate-key")).err).toContain("AUDIT_KEYS");
    vi.stubEnv("AUDIT_KEYS", "");
    await writeFile(path("seeds"), `${Buffer.alloc(32, 1).toString("base64")}\n`);
    vi.stubEnv("AUDIT_KEYS_FILE", path("seeds"));
    const before = (await audit("key")).out;
    expect((await audit("rotate-key")).out).not.toBe(before);
    expect((await readFile(path("seeds"), "utf8")).trim().split("\n")).toHaveLength(2);
  });
});

describe("ordertrail audit verify", () => {
  it("verifies the running instance, and names the first position that is wrong with exit code 1", async () => {
    await using app = await startInstance();
    await submit(app, "one", "two", "three");
    await covered(app, 3);
    const fine = { out: "verified: 3 entries are what was signed\n", err: "", exitCode: 0 };
    expect(await audit("verify")).toEqual(fine);
    expect(await audit("verify", "--in-database")).toEqual(fine);
    expect(JSON.parse((await audit("verify", "--json")).out)).toEqual({ size: 3 });
    await edit(app, 2);
    const found = "THE LOG IS NOT WHAT WAS SIGNED. first wrong position 2: its entry is not the one that was recorded\n";
    expect(await audit("verify")).toEqual({ out: found, err: "", exitCode: 1 });
    expect(await audit("verify", "--in-database")).toEqual({ out: found, err: "", exitCode: 1 });
    expect(JSON.parse((await audit("verify", "--json")).out)).toMatchObject({ size: 3, difference: { position: 2, to: 2 } });
  });

  it("fails when what was signed is right, and what came after it is not signed", async () => {
    await using app = await startInstance();
    await submit(app, "one", "two");
    await covered(app, 2);
    const events = app.database.db(app.databaseName).collection("events");
    await events.insertOne({ _id: Long.fromNumber(1_000_000), stream: "zz", version: 1 } as Document);
    const problem = "LogDamaged: the log is damaged at position 3: there is no entry";
    const unsigned = `WHAT CAME AFTER THEM IS NOT SIGNED: ${problem}\n`;
    const verified = "verified: 2 entries are what was signed\n";
    await eventually(async () => expect(await audit("verify")).toEqual({ out: verified + unsigned, err: "", exitCode: 1 }));
    expect(JSON.parse((await audit("verify", "--json")).out)).toEqual({ size: 2, treeProblem: problem });
    const damaged = "THE LOG IS DAMAGED AFTER WHAT WAS SIGNED. first wrong position 3: there is no entry\n";
    expect(await audit("verify", "--in-database")).toEqual({ out: damaged + unsigned, err: "", exitCode: 1 });
    expect(await status()).toMatchObject({ out: expect.stringMatching(/^ready {4}yes\nfailing {2}audit_tree$/m), exitCode: 0 });
    expect(JSON.parse((await status("--json")).out)).toMatchObject({ ready: true, failing: ["audit_tree"] });
  });

  it("needs nothing but an address and the key, or a folder of tiles and the key", async () => {
    await using app = await startInstance();
    await submit(app, "one", "two");
    await covered(app, 2);
    const key = (await audit("key")).out.trim();
    const token = await app.token({ role: Role.AUDITOR, subject: "a" });
    vi.stubEnv("DATA_DIR", path("elsewhere"));
    const where = ["--url", `${app.http}/audit/`, "--token", token];
    expect(await audit("verify", ...where, "--key", key)).toEqual({
      ...{ exitCode: 0, err: "" },
      out: expect.stringMatching(/^verified: 2 entries .*\nthat is how far the newest checkpoint reaches; .*\n$/),
    });
    expect(await audit("verify", ...where)).toMatchObject({ exitCode: 2, err: expect.stringContaining("--key is needed") });
    expect((await audit("verify", "--url", `${app.http}/audit`, "--key", key)).err).toContain("needs a token");

    const copy = path("copy");
    await download(app, 2, copy);
    expect(await audit("verify", "--dir", copy, "--key", key)).toMatchObject({ exitCode: 0 });
    const bundle = join(copy, "tile/entries/000.p/2");
    const bytes = await readFile(bundle);
    bytes[bytes.length - 3] = (bytes.at(-3) ?? 0) ^ 1;
    await writeFile(bundle, bytes);
    expect(await audit("verify", "--dir", copy, "--key", key)).toMatchObject({ exitCode: 1, out: expect.stringContaining("position 2") });
    await cp(copy, path("none"), { recursive: true });
    expect((await audit("verify", "--dir", path("nowhere"), "--key", key)).err).toContain("there is no checkpoint");
    const stranger = "log.example+8f1b4e3d+AXr/";
    expect((await audit("verify", "--dir", copy, "--key", stranger)).exitCode).not.toBe(0);
  });

  it("remembers a checkpoint, and finds a log that does not go on from it", async () => {
    await using app = await startInstance();
    await submit(app, "one", "two", "three");
    await covered(app, 3);
    expect((await audit("verify", "--remember", path("seen"))).exitCode).toBe(0);
    expect(await readFile(path("seen"), "utf8")).toBe((await audit("checkpoint")).out);
    await submit(app, "four");
    await covered(app, 4);
    expect((await audit("verify", "--remember", path("seen"))).exitCode).toBe(0);
    expect(await readFile(path("seen"), "utf8")).toContain(`${ORIGIN}\n4\n`);

    // An operator who has the key puts a whole other log, and its tree, in the place of this one.
    vi.stubEnv("AUDIT_KEYS_FILE", path("keys/audit.key"));
    await using other = await startTestApp({ AUDIT_KEYS_FILE: path("keys/audit.key") });
    await submit(other, "other");
    await covered(other, 1);
    const token = await other.token({ role: Role.AUDITOR, subject: "a" });
    const where = ["--url", `${other.http}/audit`, "--token", token, "--key", (await audit("key")).out.trim()];
    const shrunk = await audit("verify", ...where, "--remember", path("seen"));
    expect(shrunk).toMatchObject({ exitCode: 1, out: expect.stringContaining("first wrong position 2: the log had 4 entries") });
    await submit(other, "a", "b", "c", "d");
    await covered(other, 5);
    const rewritten = await audit("verify", ...where, "--remember", path("seen"));
    expect(rewritten).toMatchObject({ exitCode: 1, out: expect.stringContaining("first wrong position in 1 to 4") });
    expect(await readFile(path("seen"), "utf8")).toContain(`${ORIGIN}\n4\n`);
  });
});

describe("ordertrail audit verify --remember", () => {
  it("goes on from a checkpoint that only a retired key has signed, or says which key that is", async () => {
    await using app = await startInstance();
    await submit(app, "one");
    await covered(app, 1);
    const old = (await audit("key")).out.trim();
    expect((await audit("verify", "--remember", path("seen"))).exitCode).toBe(0);
    await cp(path("seen"), path("seen before"));
    await audit("rotate-key", "--retire");
    const key = (await audit("key")).out.trim();
    await submit(app, "two");
    await covered(app, 2);
    await eventually(async () => expect(await audit("verify", "--key", key)).toMatchObject({ exitCode: 0 }));
    const told = await audit("verify", "--key", key, "--remember", path("seen"));
    expect(told).toMatchObject({ exitCode: 1, err: expect.stringContaining(`begins with ${old.split("+").slice(0, 2).join("+")}`) });
    expect(await audit("verify", "--remember", path("seen"))).toMatchObject({ exitCode: 0 });
    expect(await readFile(path("seen"), "utf8")).toContain(`${ORIGIN}\n2\n`);
    const both = ["--key", old, "--key", key, "--remember", path("seen before")];
    expect(await audit("verify", ...both)).toMatchObject({ exitCode: 0 });
  });
});

describe("ordertrail audit verify of a database that a backup has put back", () => {
  it("says that the log has shrunk, or is not the one that was signed", async () => {
    await using database = await testDatabase();
    vi.stubEnv("DATABASE_NAME", database.name);
    const environment = { DATA_DIR: folder.path, DATABASE_NAME: database.name };
    const dump = await (async () => {
      await using app = await startTestApp(environment);
      await submit(app, "one");
      await covered(app, 1);
      const dump = await dumpOf(database.db);
      await submit(app, "two", "three");
      await covered(app, 3);
      return dump;
    })();
    await restore(database.db, dump);

    await using app = await startInstance(environment);
    const shrunk = { exitCode: 1, out: expect.stringContaining("position 2: the log had 3 entries when it was last looked at, and has 1") };
    expect(await audit("verify")).toMatchObject(shrunk);
    await submit(app, "other", "another", "third");
    await eventually(() => expect(app.log.join("")).toContain("THE LOG HAS BEEN CHANGED"));
    expect(await audit("verify")).toMatchObject(shrunk);
    expect(await readFile(path(`${database.name}.checkpoint`), "utf8")).toContain(`${ORIGIN}\n3\n`);
  });
});

describe("ordertrail audit verify --dir", () => {
  it("takes no tile, and no bundle of entries, with anything after its end", async () => {
    const key = await (async () => {
      await using app = await startInstance();
      await submit(app, "one", "two");
      await covered(app, 2);
      await download(app, 2, path("copy"));
      return (await audit("key")).out.trim();
    })();
    for (const [name, found] of [
      ["tile/0/000.p/2", "position 1: its hash tile is missing, or is none"],
      ["tile/entries/000.p/2", "position 2: its bundle of entries goes on after the last one"],
    ] as const) {
      await cp(path("copy"), path(name), { recursive: true });
      await appendFile(join(path(name), name), "!");
      expect(await audit("verify", "--dir", path(name), "--key", key)).toMatchObject({ exitCode: 1, out: expect.stringContaining(found) });
    }
    expect(await audit("verify", "--dir", path("copy"), "--key", key)).toMatchObject({ exitCode: 0 });
  });
});

describe("ordertrail audit prove", () => {
  it("writes nothing when an entry of the order is gone, or is another one", async () => {
    await using app = await startInstance();
    const client = app.client(OrderTrackingService, "grpc", { role: Role.SERVICE, subject: "checkout" });
    await submit(app, "one", "two");
    await client.cancelOrder({ orderId: "one", reason: "closed" });
    await client.cancelOrder({ orderId: "two", reason: "closed" });
    await covered(app, 4);
    const events = app.database.db(app.databaseName).collection("events");
    await events.deleteOne({ _id: Long.fromNumber(1) } as Document);
    const gone = await audit("prove", "one", "-o", path("one.json"));
    expect(gone).toMatchObject({ exitCode: 1, out: "", err: expect.stringContaining("the log is damaged at position 3") });
    const [second] = await events.find({ _id: Long.fromNumber(2) } as Document).toArray();
    const entry = decodeBody(second?.["body"].value());
    const body = new Binary(toBinary(LogEntrySchema, { ...entry, method: "other" }));
    await events.updateOne({ _id: Long.fromNumber(2) } as Document, { $set: { body } });
    const other = await audit("prove", "two", "-o", path("two.json"));
    expect(other).toMatchObject({
      exitCode: 1,
      out: "",
      err: expect.stringContaining("NOT PROVED, nothing is written: the entry at position 2"),
    });
    expect((await readdir(folder.path)).filter((name) => name.endsWith(".json") && /^(one|two)/.test(name))).toEqual([]);
  });
});

describe("ordertrail audit prove and check", () => {
  it("prove an order's history to somebody who has the log's key, and no server", async () => {
    const { key, file } = await (async () => {
      await using app = await startInstance();
      await submit(app, "one", "two");
      await covered(app, 2);
      const proved = await audit("prove", "two", "-o", path("two.json"));
      expect(proved).toMatchObject({ exitCode: 0, out: expect.stringContaining("1 entries of order two") });
      expect((await audit("prove", "none", "-o", path("none.json"))).err).toBe("error: there is no such order\n");
      return { key: (await audit("key")).out.trim(), file: path("two.json") };
    })();
    vi.stubEnv("DATA_DIR", path("elsewhere"));
    const checked = await audit("check", file, "--key", key);
    expect(checked).toMatchObject({ exitCode: 0, err: "" });
    expect(checked.out).toMatch(
      /^proved: these 1 entries of order two are in the log .* of 2 entries\n +2 {2}20\S+Z {2}OrderSubmitted {2}by service checkout\n$/,
    );
    expect((await audit("check", file)).exitCode).toBe(2);

    const bundle = JSON.parse(await readFile(file, "utf8")) as {
      order_id: string;
      entries: { position: number; body: string; inclusion: string[] }[];
    };
    const [entry] = bundle.entries;
    const altered = [
      { ...bundle, order_id: "three" },
      { ...bundle, entries: [] },
      { ...bundle, entries: [{ ...entry, position: 1 }] },
      { ...bundle, entries: [{ ...entry, body: Buffer.from("other").toString("base64") }] },
      { ...bundle, entries: [{ ...entry, inclusion: [] }] },
      { ...bundle, entries: [{ ...entry, body: `${entry?.body}!!!!` }] },
      { ...bundle, entries: [{ ...entry, inclusion: entry?.inclusion.map((node) => `${node}!!!!`) }] },
      { ...bundle, entries: [entry, entry] },
      { ...bundle, checkpoint: "nonsense" },
      { format: "other" },
      [],
    ];
    for (const [index, value] of altered.entries()) {
      await writeFile(file, JSON.stringify(value));
      expect(await audit("check", file, "--key", key), String(index)).toMatchObject({
        exitCode: 1,
        out: "",
        err: expect.stringContaining("NOT PROVED"),
      });
    }
  });
});

describe("every verb of ordertrail audit", () => {
  it.each(["key", "rotate-key", "checkpoint", "verify", "prove", "check"])("%s explains itself", async (verb) => {
    const { out, exitCode } = await audit(verb, "--help");
    expect(out).toContain(`Usage:`);
    expect(exitCode).toBe(0);
  });

  it("says when no instance is running", async () => {
    for (const args of [["checkpoint"], ["verify"], ["verify", "--in-database"], ["prove", "one", "-o", path("x")]])
      expect(await audit(...args)).toMatchObject({
        exitCode: 3,
        err: `error: no instance runs with the data in ${folder.path}: npm start\n`,
      });
  });
});

/** The application, entered in DATA_DIR as the running instance. */
async function startInstance(environment: NodeJS.ProcessEnv = {}): Promise<TestApp> {
  const app = await startTestApp({ DATA_DIR: folder.path, ...environment });
  const lock = await claimInstance(folder.path);
  await lock.publish({ grpc: app.grpc, http: app.http, mongodb: "", nats: "" });
  return app;
}

async function submit(app: TestApp, ...orderIds: readonly string[]): Promise<void> {
  const client = app.client(OrderTrackingService, "grpc", { role: Role.SERVICE, subject: "checkout" });
  for (const orderId of orderIds) await client.initTracking({ orderId, storeId: "s", customerId: "c" });
}

async function covered(app: TestApp, size: number): Promise<void> {
  const authorization = `Bearer ${await app.token({ role: Role.AUDITOR, subject: "a" })}`;
  await eventually(async () => {
    const response = await fetch(`${app.http}/audit/checkpoint`, { headers: { authorization } });
    expect((await response.text()).split("\n")[1]).toBe(String(size));
  });
}

async function edit(app: TestApp, position: number): Promise<void> {
  const events = app.database.db(app.databaseName).collection("events");
  await events.updateOne({ _id: Long.fromNumber(position) } as Document, { $set: { body: new Binary(Buffer.from("other")) } });
}

/** Puts what is published into a folder, as any web client could. */
async function download(app: TestApp, size: number, into: string): Promise<void> {
  const authorization = `Bearer ${await app.token({ role: Role.AUDITOR, subject: "a" })}`;
  const edge: TileAddress[] = partialTiles(size);
  const paths = ["checkpoint", ...[...edge, { level: "entries" as const, index: 0, width: size }].map(tilePath)];
  for (const name of paths) {
    const response = await fetch(`${app.http}/audit/${name}`, { headers: { authorization } });
    await mkdir(dirname(join(into, name)), { recursive: true });
    await writeFile(join(into, name), new Uint8Array(await response.arrayBuffer()));
  }
}

type Ran = { out: string; err: string; exitCode: number };

/** Runs `ordertrail audit` with these arguments. */
const audit = (...args: string[]) => run(registerAudit, "audit", ...args);
/** Runs `ordertrail status` with these arguments. */
const status = (...args: string[]) => run(registerStatus, "status", ...args);

async function run(register: (program: Command) => void, ...args: string[]): Promise<Ran> {
  let out = "";
  let err = "";
  process.exitCode = 0;
  const program = new Command().exitOverride().configureOutput({ writeOut: (text) => (out += text), writeErr: (text) => (err += text) });
  register(program);
  const thrown = await program.parseAsync(args, { from: "user" }).then(
    () => undefined,
    (error: CommanderError | Error) => {
      if (!("exitCode" in error)) err += `error: ${error.message}\n`;
      // As main.ts has it.
      if (!("exitCode" in error)) return 1;
      return error.exitCode === 0 || error.code === "commander.error" ? error.exitCode : 2;
    },
  );
  return { out, err, exitCode: thrown ?? Number(process.exitCode) };
}
