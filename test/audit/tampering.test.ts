import fc from "fast-check";
import { Binary, type Db, type Document, Double, Int32, Long } from "mongodb";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { AuditLog } from "../../src/audit/audit-log.ts";
import { openCheckpoint, type TreeHead } from "../../src/audit/checkpoint.ts";
import { CHECKPOINTS_COLLECTION } from "../../src/audit/checkpoint-store.ts";
import { createFrontier } from "../../src/audit/frontier.ts";
import { hashLeaf } from "../../src/audit/merkle.ts";
import { findStray, storedLog } from "../../src/audit/stored-log.ts";
import { leavesOf } from "../../src/audit/tile-source.ts";
import { TILES_COLLECTION } from "../../src/audit/tile-store.ts";
import { type Difference, type TreeSource, verifyRest, verifyTree } from "../../src/audit/verify-tree.ts";
import { toStored } from "../../src/log/log-entry.ts";
import { anEntry, type TestLog, testLog } from "../support/log.ts";
import { type AuditParts, appendEntries, auditParts, keepTree, SIGNER } from "./kept-tree.ts";

const SIZE = 1300;
const EARLIER = [300, 555, 1000];

let log: TestLog;
let parts: AuditParts;
let head: TreeHead;
let heads: TreeHead[];
let events: Document[];
let tiles: Document[];

beforeAll(async () => {
  log = await testLog();
  parts = auditParts(log.db);
  await using _keeper = keepTree(parts);
  for (const size of [...EARLIER, SIZE]) {
    const before = await log.reader.head();
    await parts.covered(await appendEntries(log, size - before));
  }
  head = await parts.covered(SIZE);
  heads = [];
  for await (const { signed } of parts.checkpoints.all()) heads.push(openCheckpoint(signed, [SIGNER.verifier]));
  // With the types that they have, so that they can be put back as they were.
  events = await log.db.collection("events").find({}, { promoteValues: false }).sort({ _id: 1 }).toArray();
  tiles = await log.db.collection(TILES_COLLECTION).find().toArray();
});
afterAll(() => log[Symbol.asyncDispose]());

const position = fc.integer({ min: 1, max: SIZE });

describe("an untouched log", () => {
  it("is found to be what was signed, with its progress", async () => {
    expect(await differences()).toEqual([undefined, undefined]);
    const progress = [];
    const verifying = verifyTree(storedLog(log.db, parts.tiles), { head });
    for (let next = await verifying.next(); !next.done; next = await verifying.next()) progress.push(next.value);
    expect(progress.map(({ checked }) => checked)).toEqual([256, 512, 768, 1024, 1280, 1300]);
  });
});

describe("tampering with the entries is found, at the first position that is wrong:", () => {
  it("an edited body", async () => {
    await forEach(position, async (at) => {
      await setBody(at, Buffer.from(`edited ${at}`));
      return at;
    });
  });

  it("a body with one bit turned", async () => {
    await forEach(fc.tuple(position, fc.nat()), async ([at, bit]) => {
      const body = Buffer.from(bodyAt(at));
      const byte = Math.floor(bit / 8) % body.length;
      body[byte] = (body[byte] ?? 0) ^ (1 << (bit % 8));
      await setBody(at, body);
      return at;
    });
  });

  it("a removed entry", async () => {
    await forEach(position, async (at) => {
      await log.db.collection("events").deleteOne({ _id: Long.fromNumber(at) } as Document);
      return at;
    });
  });

  it("entries removed, those behind moved up", async () => {
    await forEach(fc.integer({ min: 1, max: SIZE - 10 }), async (at) => {
      await rewrite([...events.slice(0, at - 1), ...events.slice(at)]);
      return at;
    });
  });

  it("an entry inserted, those behind moved down", async () => {
    await forEach(position, async (at) => {
      const { body, ...fields } = anEntry("inserted", 1);
      await rewrite([...events.slice(0, at - 1), { ...fields, body: new Binary(body) }, ...events.slice(at - 1)]);
      return at;
    });
  });

  it("an entry inserted between two positions", async () => {
    // Between two tiles, too.
    await forEach(fc.oneof(fc.constantFrom(257, 513), fc.integer({ min: 2, max: SIZE - 1 })), async (at) => {
      const { body, ...fields } = anEntry("inserted", 1);
      await log.db.collection("events").insertOne({ _id: at - 0.5, ...fields, body: new Binary(body) } as Document);
      return at;
    });
  });

  it("two entries in each other's place", async () => {
    await forEach(fc.uniqueArray(position, { minLength: 2, maxLength: 2 }), async ([one = 0, other = 0]) => {
      const [low, high] = [Math.min(one, other), Math.max(one, other)];
      await setBody(low, bodyAt(high));
      await setBody(high, bodyAt(low));
      return low;
    });
  });

  it("the log rolled back, with its tiles as they were or gone, too", async () => {
    await forEach(fc.tuple(position, fc.boolean()), async ([at, tilesToo]) => {
      await log.db.collection("events").deleteMany({ _id: { $gte: Long.fromNumber(at) } } as Document);
      if (tilesToo) await rewriteTiles(at - 1);
      return at;
    });
  });
});

describe("tampering beside the entries is found", () => {
  it.each(["stream", "version", "at", "types"])("in the field %s", async (field) => {
    const other: Readonly<Record<string, unknown>> = { stream: "order-x", version: 77, at: new Date(0), types: ["OrderDelivered"] };
    await fc.assert(
      fc.asyncProperty(position, async (at) => {
        await log.db.collection("events").updateOne({ _id: Long.fromNumber(at) } as Document, { $set: { [field]: other[field] } });
        const [inDatabase] = await thenRestored(differences());
        expect(inDatabase).toEqual({ position: at, to: at, what: `its ${field} in the database is not what its body says` });
      }),
      { numRuns: 4 },
    );
  });

  it("in a field that no entry has, or one that stands twice", async () => {
    await log.db.collection("events").updateOne({ _id: Long.fromNumber(700) } as Document, { $set: { zzz: "hidden" } });
    expect(await inDatabase()).toEqual({ position: 700, to: 700, what: "it has fields that no entry has: zzz" });

    const stored = events[699] as Document;
    class Twice extends Map<string, unknown> {
      override entries() {
        return [...super.entries(), ["stream", stored["stream"]] as [string, unknown]].values();
      }
    }
    await log.db.collection("events").deleteOne({ _id: Long.fromNumber(700) } as Document);
    await log.db.command({ insert: "events", documents: [new Twice(Object.entries(stored))] });
    expect(await inDatabase()).toEqual({ position: 700, to: 700, what: "it has a field twice" });
  });

  it.each([
    ["_id", new Int32(700)],
    ["_id", new Double(700)],
    ["version", new Double(1)],
    ["version", Long.fromNumber(1)],
    ["at", "2030-01-01"],
    ["body", new Binary(Buffer.from("x"), 4)],
  ])("in the type of the field %s", async (field, value) => {
    const stored = events[699] as Document;
    const body = field === "body" ? new Binary(bodyAt(700), 4) : stored["body"];
    await log.db.collection("events").deleteOne({ _id: Long.fromNumber(700) } as Document);
    await log.db.collection("events").insertOne({ ...stored, [field]: value, body } as Document);
    const what = `its ${field} in the database is not of the type that the log's format has`;
    expect(await inDatabase()).toEqual({ position: 700, to: 700, what });
  });

  it("in a document that is at no position of the log", async () => {
    expect(await findStray(log.db)).toBeUndefined();
    for (const _id of ["text", 0, -4, 0.5, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 2 ** 60]) {
      await log.db.collection("events").insertOne({ _id, stream: `stray-${_id}`, version: 1 } as Document);
      expect(await findStray(log.db)).toContain(String(_id));
      await restore();
    }
  });

  it("in any hash tile, which is named, and its entries are said to be right", async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.nat(), async (which, byte) => {
        const tile = tiles[which % tiles.length] as Document & { _id: string; hashes: Binary };
        const hashes = Buffer.from(tile.hashes.value());
        hashes[byte % hashes.length] = (hashes[byte % hashes.length] ?? 0) ^ 1;
        await log.db.collection<{ _id: string }>(TILES_COLLECTION).updateOne({ _id: tile._id }, { $set: { hashes: new Binary(hashes) } });
        for (const found of await thenRestored(differences())) {
          const [level, index] = tile._id.split("/").map(Number) as [number, number];
          expect(found?.position).toBeGreaterThanOrEqual(index * 256 ** (level + 1) + 1);
          expect(found?.to).toBeLessThanOrEqual((index + 1) * 256 ** (level + 1));
        }
      }),
      { numRuns: 8 },
    );
  });

  it("when entry and tiles agree with each other: between the checkpoints that were signed before and after it", async () => {
    await fc.assert(
      fc.asyncProperty(position, async (at) => {
        const edited = toStored(anEntry(`edited-${at}`, 1), at) as Document;
        await log.db.collection("events").replaceOne({ _id: Long.fromNumber(at) } as Document, edited);
        await rewriteTiles(SIZE);
        const sizes = heads.map(({ size }) => size);
        const before = Math.max(0, ...sizes.filter((size) => size < at));
        const after = Math.min(...sizes.filter((size) => size >= at));
        for (const found of await thenRestored(differences())) expect(found).toMatchObject({ position: before + 1, to: after });
      }),
      { numRuns: 8 },
    );
  });

  it("when a single hash of the lowest tiles was changed with its entry: among the entries of that tile", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 1280 }), async (at) => {
        await setBody(at, Buffer.from("edited"));
        const index = Math.floor((at - 1) / 256);
        const tile = tiles.find(({ _id }) => _id === `0/${index}`) as Document & { hashes: Binary };
        const hashes = Buffer.from(tile.hashes.value());
        hashes.set(hashLeaf(Buffer.from("edited")), ((at - 1) % 256) * 32);
        await log.db
          .collection<{ _id: string }>(TILES_COLLECTION)
          .updateOne({ _id: `0/${index}` }, { $set: { hashes: new Binary(hashes) } });
        for (const found of await thenRestored(differences())) {
          expect(found?.position).toBeLessThanOrEqual(at);
          expect(found?.to).toBeGreaterThanOrEqual(at);
          expect((found?.to ?? 0) - (found?.position ?? 0)).toBeLessThan(256);
        }
      }),
      { numRuns: 8 },
    );
  });
});

describe("tampering with entries that nothing signed covers yet is found, at the first position that is wrong:", () => {
  const unsigned = fc.integer({ min: 1001, max: SIZE });
  const rest = async (covered: number, to = SIZE) =>
    await outcomeOf(verifyRest(storedLog(log.db, parts.tiles), { after: 1000, to, covered }));

  it("none in an untouched log, with or without tiles", async () => {
    expect(await rest(SIZE)).toBeUndefined();
    await log.db.collection(TILES_COLLECTION).deleteMany({});
    expect(await thenRestored(rest(0))).toBeUndefined();
  });

  it("an entry removed, one edited that has tiles, a field edited", async () => {
    const entries = log.db.collection("events");
    await fc.assert(
      fc.asyncProperty(unsigned, fc.constantFrom("remove", "edit", "field"), async (at, how) => {
        const filter = { _id: Long.fromNumber(at) } as Document;
        if (how === "remove") await entries.deleteOne(filter);
        else if (how === "edit") await entries.replaceOne(filter, toStored(anEntry(`edited-${at}`, 1), at) as Document);
        else await entries.updateOne(filter, { $set: { stream: "order-x" } });
        expect(await thenRestored(rest(SIZE))).toMatchObject({ position: at, to: at });
      }),
      { numRuns: 9 },
    );
  });

  it("an entry far ahead, one between positions, and the log rolled back behind its tiles", async () => {
    const entries = log.db.collection("events");
    await entries.insertOne(toStored(anEntry("ahead", 1), 1_000_000) as Document);
    expect(await thenRestored(rest(SIZE, 1_000_000))).toMatchObject({ position: SIZE + 1, what: "there is no entry" });
    await entries.insertOne({ ...toStored(anEntry("between", 1), 1), _id: SIZE + 0.5 } as Document);
    expect(await thenRestored(rest(SIZE, SIZE + 1))).toMatchObject({ position: SIZE + 1, what: expect.stringContaining(`${SIZE}.5`) });
    await entries.insertOne({ ...toStored(anEntry("between", 1), 1), _id: 1024.5 } as Document);
    expect(await thenRestored(rest(SIZE))).toMatchObject({ position: 1025, what: expect.stringContaining("1024.5") });
    await entries.deleteMany({ _id: { $gt: Long.fromNumber(1100) } } as Document);
    expect(await thenRestored(rest(SIZE, 1100))).toMatchObject({ position: 1101, what: "there is no entry" });
  });
});

async function inDatabase(): Promise<Difference | undefined> {
  return (await thenRestored(differences()))[0];
}

/** Tampers, verifies in both ways, and puts everything back; the position that `tamper` answers must be found, exactly. */
async function forEach<Value>(values: fc.Arbitrary<Value>, tamper: (value: Value) => Promise<number>): Promise<void> {
  await fc.assert(
    fc.asyncProperty(values, async (value) => {
      try {
        const at = await tamper(value);
        for (const found of await differences()) expect(found).toMatchObject({ position: at, to: at });
      } finally {
        await restore();
      }
    }),
    { numRuns: 7 },
  );
}

/** What a verification in the database finds, and one of what is published. */
async function differences(): Promise<(Difference | undefined)[]> {
  return [await differenceIn(storedLog(log.db, parts.tiles)), await differenceIn(published(parts.audit))];
}

async function differenceIn(source: TreeSource): Promise<Difference | undefined> {
  return await outcomeOf(verifyTree(source, { head, earlier: heads }));
}

async function outcomeOf(verifying: AsyncGenerator<unknown, Difference | undefined, undefined>): Promise<Difference | undefined> {
  for (;;) {
    const { done, value } = await verifying.next();
    if (done) return value;
  }
}

/** The log as its HTTP paths give it. */
function published(audit: AuditLog): TreeSource {
  return {
    tile: (level, index, width) => audit.tile({ level, index, width }),
    async leaves(index, width) {
      return leavesOf((await audit.tile({ level: "entries", index, width })) ?? new Uint8Array(), width);
    },
  };
}

function bodyAt(at: number): Uint8Array {
  return (events[at - 1] as { body: Binary }).body.value();
}

async function setBody(at: number, body: Uint8Array): Promise<void> {
  await log.db.collection("events").updateOne({ _id: Long.fromNumber(at) } as Document, { $set: { body: new Binary(body) } });
}

/** Replaces the log by these documents, at positions from 1 on. */
async function rewrite(documents: readonly Document[]): Promise<void> {
  const collection = log.db.collection("events");
  await collection.deleteMany({});
  await collection.insertMany(documents.map((document, index) => ({ ...document, _id: Long.fromNumber(index + 1) }) as Document));
}

/** Replaces the tiles by those of the log as it is now, up to a size. */
async function rewriteTiles(size: number): Promise<void> {
  const frontier = createFrontier();
  const documents = await log.db.collection("events").find().sort({ _id: 1 }).limit(size).toArray();
  for (const { body } of size === 0 ? [] : documents) frontier.append(hashLeaf((body as Binary).value()));
  await replaceAll(
    log.db,
    TILES_COLLECTION,
    frontier
      .takeChanged()
      .map(({ level, index, hashes }) => ({ _id: `${level}/${index}`, width: hashes.length / 32, hashes: new Binary(hashes), fence: 1 })),
  );
}

async function restore(): Promise<void> {
  await replaceAll(log.db, "events", events);
  await replaceAll(log.db, TILES_COLLECTION, tiles);
  expect(await log.db.collection(CHECKPOINTS_COLLECTION).countDocuments()).toBeGreaterThan(0);
}

async function thenRestored<Found>(finding: Promise<Found>): Promise<Found> {
  try {
    return await finding;
  } finally {
    await restore();
  }
}

async function replaceAll(db: Db, collection: string, documents: readonly object[]): Promise<void> {
  await db.collection(collection).deleteMany({});
  if (documents.length > 0) await db.collection(collection).insertMany(documents.map((document) => ({ ...document }) as Document));
}
