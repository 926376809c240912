import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { clone } from "@bufbuild/protobuf";
import { Binary, type Db } from "mongodb";
import { beforeEach, describe, expect, it } from "vitest";
import { SealedSchema } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { SealBroken } from "../../src/privacy/aes-gcm.ts";
import { type MasterKeys, parseMasterKeys, wrapKey } from "../../src/privacy/master-key.ts";
import { createPersonalKeys } from "../../src/privacy/personal-keys.ts";
import { testDatabase } from "../support/mongo.ts";

const masterKeyText = randomBytes(32).toString("base64");
const masterKeys = parseMasterKeys(masterKeyText);
const ada = Buffer.from("Ada Lovelace");
const FIVE_MINUTES_MS = 5 * 60 * 1000;

let now: number;
beforeEach(() => {
  now = 1_800_000_000_000;
});

/** What one process would use; another call is another process with nothing remembered. */
const keysOf = (db: Db, keys: MasterKeys = masterKeys) => createPersonalKeys(db, keys, () => new Date(now));
const text = (bytes: Uint8Array | undefined) => bytes && Buffer.from(bytes).toString();

describe("personal keys", () => {
  it("open in any process what one has sealed", async () => {
    await using database = await testDatabase();
    const sealed = await keysOf(database.db).seal("customer-1", ada, "order-1/recipient");
    expect(text(await keysOf(database.db).open(sealed, "order-1/recipient"))).toBe("Ada Lovelace");
  });

  it("seal equal data in the same place to equal bytes, in any process", async () => {
    await using database = await testDatabase();
    const keys = keysOf(database.db);
    const sealed = await keys.seal("customer-1", ada, "order-1/recipient");
    expect(await keys.seal("customer-1", ada, "order-1/recipient")).toEqual(sealed);
    expect(await keysOf(database.db).seal("customer-1", ada, "order-1/recipient")).toEqual(sealed);
    expect((await keys.seal("customer-1", ada, "order-2/recipient")).ciphertext).not.toEqual(sealed.ciphertext);
    const other = await keys.seal("customer-2", ada, "order-1/recipient");
    expect(other.keyId).not.toEqual(sealed.keyId);
    expect(other.ciphertext).not.toEqual(sealed.ciphertext);
  });

  it("are stored wrapped, one for a person", async () => {
    await using database = await testDatabase();
    const keys = keysOf(database.db);
    const sealed = await Promise.all(Array.from({ length: 20 }, (_, order) => keys.seal("customer-1", ada, `order-${order}/recipient`)));
    const documents = await database.db.collection<{ wrapped: Binary }>("personal_keys").find().toArray();
    expect(documents).toEqual([
      {
        _id: new Binary(sealed[0]?.keyId),
        person: "customer-1",
        generation: 1,
        wrapped: expect.any(Binary),
        nonce: expect.any(Binary),
        master_key_id: masterKeys.newest.id,
        created_at: new Date(now),
      },
    ]);
    expect(documents[0]?.wrapped.length()).toBe(32 + 16);
    expect(await database.db.collection("personal_keys").indexes()).toContainEqual(
      expect.objectContaining({ key: { person: 1, generation: 1 }, unique: true }),
    );
  });

  it("open many at once, in order", async () => {
    await using database = await testDatabase();
    const keys = keysOf(database.db);
    const items = await Promise.all(
      Array.from({ length: 30 }, async (_, index) => {
        const context = `order-${index}/recipient`;
        return { context, sealed: await keys.seal(`customer-${index % 10}`, Buffer.from(`person ${index}`), context) };
      }),
    );
    const opened = await keysOf(database.db).openMany(items);
    expect(opened.map(text)).toEqual(items.map((_, index) => `person ${index}`));
    expect(await keysOf(database.db).openMany([])).toEqual([]);
  });

  it("that are destroyed open nothing, and the other ones still do", async () => {
    await using database = await testDatabase();
    const keys = keysOf(database.db);
    const erased = { sealed: await keys.seal("customer-1", ada, "order-1/recipient"), context: "order-1/recipient" };
    const kept = { sealed: await keys.seal("customer-2", ada, "order-2/recipient"), context: "order-2/recipient" };
    await database.db.collection("personal_keys").deleteMany({ person: "customer-1" });
    expect((await keysOf(database.db).openMany([erased, kept])).map(text)).toEqual([undefined, "Ada Lovelace"]);
    expect(await keysOf(database.db).open(erased.sealed, erased.context)).toBeUndefined();
  });

  it("that are destroyed are forgotten within five minutes, and a new one seals from then on", async () => {
    await using database = await testDatabase();
    const keys = keysOf(database.db);
    const sealed = await keys.seal("customer-1", ada, "order-1/recipient");
    await database.db.collection("personal_keys").deleteMany({ person: "customer-1" });
    now += FIVE_MINUTES_MS - 1;
    expect(text(await keys.open(sealed, "order-1/recipient"))).toBe("Ada Lovelace");
    now += 2;
    expect(await keys.open(sealed, "order-1/recipient")).toBeUndefined();
    const again = await keys.seal("customer-1", ada, "order-1/recipient");
    expect(again.keyId).not.toEqual(sealed.keyId);
    expect(text(await keys.open(again, "order-1/recipient"))).toBe("Ada Lovelace");
  });

  it("of an older generation open, the newest one seals", async () => {
    await using database = await testDatabase();
    const first = await keysOf(database.db).seal("customer-1", ada, "order-1/recipient");
    await database.db.collection<{ _id: Binary }>("personal_keys").insertOne(secondGeneration("customer-1"));
    const second = await keysOf(database.db).seal("customer-1", ada, "order-1/recipient");
    expect(second.keyId).not.toEqual(first.keyId);
    const opened = await keysOf(database.db).openMany([first, second].map((sealed) => ({ sealed, context: "order-1/recipient" })));
    expect(opened.map(text)).toEqual(["Ada Lovelace", "Ada Lovelace"]);
  });

  it("open under a new master key as long as the old one is given too", async () => {
    await using database = await testDatabase();
    const newer = randomBytes(32).toString("base64");
    const sealed = await keysOf(database.db).seal("customer-1", ada, "order-1/recipient");
    expect(text(await keysOf(database.db, parseMasterKeys(`${newer},${masterKeyText}`)).open(sealed, "order-1/recipient"))).toBe(
      "Ada Lovelace",
    );
    await expect(keysOf(database.db, parseMasterKeys(newer)).open(sealed, "order-1/recipient")).rejects.toThrow(masterKeys.newest.id);
  });

  it("refuse sealed data that was altered or moved to another place", async () => {
    await using database = await testDatabase();
    const keys = keysOf(database.db);
    const sealed = await keys.seal("customer-1", ada, "order-1/recipient");
    const altered = clone(SealedSchema, sealed);
    altered.ciphertext[0] = (altered.ciphertext[0] ?? 0) ^ 1;
    await expect(keys.open(altered, "order-1/recipient")).rejects.toThrow(SealBroken);
    await expect(keys.open(sealed, "order-2/recipient")).rejects.toThrow(SealBroken);
  });

  it("refuse a key that was moved into another person's document", async () => {
    await using database = await testDatabase();
    const collection = database.db.collection("personal_keys");
    const sealed = await keysOf(database.db).seal("customer-1", ada, "order-1/recipient");
    await collection.updateOne({ person: "customer-1" }, { $set: { person: "customer-2" } });
    await expect(keysOf(database.db).open(sealed, "order-1/recipient")).rejects.toThrow(SealBroken);
    await expect(keysOf(database.db).seal("customer-2", ada, "order-1/recipient")).rejects.toThrow(SealBroken);
  });

  it("are made once when two processes come at the same time", async () => {
    await using database = await testDatabase();
    await using sealers = await startSealers(2, [database.url, database.name, masterKeyText, "4", "25"]);
    const used = await sealers.sealAtOnce();
    expect(used).toHaveLength(4);
    for (const keyIds of used) expect(new Set(keyIds).size).toBe(1);
    expect(await database.db.collection("personal_keys").countDocuments()).toBe(4);
  });
});

/** Processes that seal for many people; ready when this resolves, and they begin together. */
async function startSealers(count: number, args: readonly string[]) {
  const script = fileURLToPath(new URL("./seal-for-many.ts", import.meta.url));
  const sealers = Array.from({ length: count }, () => {
    const child = spawn(process.execPath, [script, ...args], { stdio: ["pipe", "pipe", "inherit"] });
    return { child, lines: createInterface(child.stdout)[Symbol.asyncIterator]() };
  });
  const nextLines = () => Promise.all(sealers.map(async ({ lines }) => (await lines.next()).value as string));
  await nextLines();
  return {
    /** The identifiers of the keys that were used for each person. */
    async sealAtOnce(): Promise<string[][]> {
      for (const { child } of sealers) child.stdin.end("go\n");
      const [first = [], ...rest]: string[][][] = (await nextLines()).map((line) => JSON.parse(line));
      return first.map((keyIds, person) => [...keyIds, ...rest.flatMap((other) => other[person] ?? [])]);
    },
    async [Symbol.asyncDispose]() {
      for (const { child } of sealers) child.kill("SIGKILL");
    },
  };
}

/** The document of a person's second key, as a rotation writes it. */
function secondGeneration(person: string) {
  const id = randomBytes(16);
  const { wrapped, nonce, masterKeyId } = wrapKey(masterKeys, randomBytes(32), `personal-key/${id.toString("hex")}/${person}/2`);
  return {
    _id: new Binary(id),
    person,
    generation: 2,
    wrapped: new Binary(wrapped),
    nonce: new Binary(nonce),
    master_key_id: masterKeyId,
    created_at: new Date(now),
  };
}
