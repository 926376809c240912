import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { clone, create } from "@bufbuild/protobuf";
import { Binary, type Db } from "mongodb";
import { beforeEach, describe, expect, it } from "vitest";
import { type Sealed, SealedSchema } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { SealBroken } from "../../src/privacy/aes-gcm.ts";
import { type ErasureDocument, erasuresOf } from "../../src/privacy/erasure-document.ts";
import { createKeyWrapper } from "../../src/privacy/key-wrapper.ts";
import { type MasterKeys, parseMasterKeys, wrapKey } from "../../src/privacy/master-key.ts";
import { createPersonalKeys, generationAt } from "../../src/privacy/personal-keys.ts";
import { deriveDataKey, seal } from "../../src/privacy/sealing.ts";
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
async function keysOf(db: Db, masters: MasterKeys = masterKeys) {
  const clock = () => new Date(now);
  const keys = createPersonalKeys(db, await createKeyWrapper(() => masters, clock), clock);
  return {
    ...keys,
    async seal(person: string, plaintext: Uint8Array, context: string): Promise<Sealed> {
      const sealed = await keys.seal(person, plaintext, context);
      if (!sealed) throw new Error(`${person} is erased`);
      return sealed;
    },
  };
}
const text = (bytes: Uint8Array | undefined) => bytes && Buffer.from(bytes).toString();

describe("personal keys", () => {
  it("open in any process what one has sealed", async () => {
    await using database = await testDatabase();
    const sealed = await (await keysOf(database.db)).seal("customer-1", ada, "order-1/recipient");
    expect(text(await (await keysOf(database.db)).open(sealed, "order-1/recipient"))).toBe("Ada Lovelace");
  });

  it("seal equal data in the same place to equal bytes, in any process", async () => {
    await using database = await testDatabase();
    const keys = await keysOf(database.db);
    const sealed = await keys.seal("customer-1", ada, "order-1/recipient");
    expect(await keys.seal("customer-1", ada, "order-1/recipient")).toEqual(sealed);
    expect(await (await keysOf(database.db)).seal("customer-1", ada, "order-1/recipient")).toEqual(sealed);
    expect((await keys.seal("customer-1", ada, "order-2/recipient")).ciphertext).not.toEqual(sealed.ciphertext);
    const other = await keys.seal("customer-2", ada, "order-1/recipient");
    expect(other.keyId).not.toEqual(sealed.keyId);
    expect(other.ciphertext).not.toEqual(sealed.ciphertext);
  });

  it("are stored wrapped, one for a person and day", async () => {
    await using database = await testDatabase();
    const keys = await keysOf(database.db);
    const sealed = await Promise.all(Array.from({ length: 20 }, (_, order) => keys.seal("customer-1", ada, `order-${order}/recipient`)));
    const documents = await database.db.collection<{ wrapped: Binary }>("personal_keys").find().toArray();
    expect(documents).toEqual([
      {
        _id: new Binary(sealed[0]?.keyId),
        person: "customer-1",
        generation: generationAt(new Date(now)),
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
    const keys = await keysOf(database.db);
    const items = await Promise.all(
      Array.from({ length: 30 }, async (_, index) => {
        const context = `order-${index}/recipient`;
        return { context, sealed: await keys.seal(`customer-${index % 10}`, Buffer.from(`person ${index}`), context) };
      }),
    );
    const opened = await (await keysOf(database.db)).openMany(items);
    expect(opened.map(text)).toEqual(items.map((_, index) => `person ${index}`));
    expect(await (await keysOf(database.db)).openMany([])).toEqual([]);
  });

  it("that are destroyed open nothing, and the other ones still do", async () => {
    await using database = await testDatabase();
    const keys = await keysOf(database.db);
    const erased = { sealed: await keys.seal("customer-1", ada, "order-1/recipient"), context: "order-1/recipient" };
    const kept = { sealed: await keys.seal("customer-2", ada, "order-2/recipient"), context: "order-2/recipient" };
    await database.db.collection("personal_keys").deleteMany({ person: "customer-1" });
    expect((await (await keysOf(database.db)).openMany([erased, kept])).map(text)).toEqual([undefined, "Ada Lovelace"]);
    expect(await (await keysOf(database.db)).open(erased.sealed, erased.context)).toBeUndefined();
  });

  it("that are destroyed are forgotten within five minutes, and a new one seals from then on", async () => {
    await using database = await testDatabase();
    const keys = await keysOf(database.db);
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

  it("are taken out of memory when they are too old to be used", async () => {
    await using database = await testDatabase();
    const keys = await keysOf(database.db);
    await keys.seal("customer-1", ada, "order-1/recipient");
    now += FIVE_MINUTES_MS;
    await keys.seal("customer-2", ada, "order-2/recipient");
    expect(keys.forgetOld()).toBe(4);
    now += 1;
    expect(keys.forgetOld()).toBe(2);
    now += FIVE_MINUTES_MS;
    expect(keys.forgetOld()).toBe(0);
  });

  it("remember what they opened for its own place only", async () => {
    await using database = await testDatabase();
    const keys = await keysOf(database.db);
    const sealed = await keys.seal("customer-1", ada, "order-1/recipient");
    for (const _ of [1, 2]) expect(text(await keys.open(sealed, "order-1/recipient"))).toBe("Ada Lovelace");
    await expect(keys.open(sealed, "order-2/recipient")).rejects.toThrow(SealBroken);
    keys.forget("customer-1");
    await database.db.collection("personal_keys").deleteMany({});
    expect(await keys.open(sealed, "order-1/recipient")).toBeUndefined();
  });

  it("seal on one day only, and open for ever: what was sealed on another day has another key", async () => {
    await using database = await testDatabase();
    const keys = await keysOf(database.db);
    const first = await keys.seal("customer-1", ada, "order-1/recipient");
    now += 24 * 3600 * 1000;
    const second = await keys.seal("customer-1", ada, "order-1/recipient");
    expect(second.keyId).not.toEqual(first.keyId);
    for (const process of [keys, await keysOf(database.db)]) {
      const opened = await process.openMany([first, second].map((sealed) => ({ sealed, context: "order-1/recipient" })));
      expect(opened.map(text)).toEqual(["Ada Lovelace", "Ada Lovelace"]);
    }
  });

  it("of the first generations, which were not bound to a day, still open and seal no more", async () => {
    await using database = await testDatabase();
    await database.db.collection<{ _id: Binary }>("personal_keys").insertOne(firstGeneration("customer-1", OLD_KEY_ID, OLD_SECRET));
    const sealed = create(SealedSchema, { keyId: OLD_KEY_ID, ...seal(deriveDataKey(OLD_SECRET), ada, "order-1/recipient") });
    const keys = await keysOf(database.db);
    expect(text(await keys.open(sealed, "order-1/recipient"))).toBe("Ada Lovelace");
    expect((await keys.seal("customer-1", ada, "order-1/recipient")).keyId).not.toEqual(sealed.keyId);
  });

  it("of one who is erased seal nothing in any process, however well they are remembered", async () => {
    await using database = await testDatabase();
    const keys = await keysOf(database.db);
    const sealed = await keys.seal("customer-1", ada, "order-1/recipient");
    await erasuresOf(database.db).insertOne({ _id: "customer-1" } as ErasureDocument);
    await expect(keys.seal("customer-1", ada, "order-2/recipient")).rejects.toThrow("erased");
    await expect((await keysOf(database.db)).seal("customer-1", ada, "order-2/recipient")).rejects.toThrow("erased");
    await database.db.collection("personal_keys").deleteMany({ person: "customer-1" });
    expect(await keys.open(sealed, "order-1/recipient")).toBeUndefined();
    expect((await keys.seal("customer-2", ada, "order-2/recipient")).keyId).toHaveLength(16);
  });

  it("are forgotten at once when that is asked for", async () => {
    await using database = await testDatabase();
    const keys = await keysOf(database.db);
    const erased = await keys.seal("customer-1", ada, "order-1/recipient");
    const kept = await keys.seal("customer-11", ada, "order-2/recipient");
    await database.db.collection("personal_keys").deleteMany({});
    keys.forget("customer-1");
    expect(await keys.open(erased, "order-1/recipient")).toBeUndefined();
    expect(text(await keys.open(kept, "order-2/recipient"))).toBe("Ada Lovelace");
  });

  it("open under a new master key as long as the old one is given too", async () => {
    await using database = await testDatabase();
    const newer = randomBytes(32).toString("base64");
    const sealed = await (await keysOf(database.db)).seal("customer-1", ada, "order-1/recipient");
    expect(text(await (await keysOf(database.db, parseMasterKeys(`${newer},${masterKeyText}`))).open(sealed, "order-1/recipient"))).toBe(
      "Ada Lovelace",
    );
    await expect((await keysOf(database.db, parseMasterKeys(newer))).open(sealed, "order-1/recipient")).rejects.toThrow(
      masterKeys.newest.id,
    );
  });

  it("refuse sealed data that was altered or moved to another place", async () => {
    await using database = await testDatabase();
    const keys = await keysOf(database.db);
    const sealed = await keys.seal("customer-1", ada, "order-1/recipient");
    const altered = clone(SealedSchema, sealed);
    altered.ciphertext[0] = (altered.ciphertext[0] ?? 0) ^ 1;
    await expect(keys.open(altered, "order-1/recipient")).rejects.toThrow(SealBroken);
    await expect(keys.open(sealed, "order-2/recipient")).rejects.toThrow(SealBroken);
  });

  it("refuse a key that was moved into another person's document", async () => {
    await using database = await testDatabase();
    const collection = database.db.collection("personal_keys");
    const sealed = await (await keysOf(database.db)).seal("customer-1", ada, "order-1/recipient");
    await collection.updateOne({ person: "customer-1" }, { $set: { person: "customer-2" } });
    await expect((await keysOf(database.db)).open(sealed, "order-1/recipient")).rejects.toThrow(SealBroken);
    await expect((await keysOf(database.db)).seal("customer-2", ada, "order-1/recipient")).rejects.toThrow(SealBroken);
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

const OLD_KEY_ID = Buffer.alloc(16, 3);
const OLD_SECRET = Buffer.alloc(32, 5);

/** The document of a key as they were made before keys were bound to a day. */
function firstGeneration(person: string, id: Buffer, secret: Buffer) {
  const { wrapped, nonce, masterKeyId } = wrapKey(masterKeys, secret, `personal-key/${id.toString("hex")}/${person}/1`);
  return {
    _id: new Binary(id),
    person,
    generation: 1,
    wrapped: new Binary(wrapped),
    nonce: new Binary(nonce),
    master_key_id: masterKeyId,
    created_at: new Date(now),
  };
}
