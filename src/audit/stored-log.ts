import { timestampMs } from "@bufbuild/protobuf/wkt";
import { BSON, type Db, type Document, Long } from "mongodb";
import { decodeBody, EVENTS_COLLECTION, eventType, MAX_POSITION } from "../log/log-entry.ts";
import { hashLeaf } from "./merkle.ts";
import { TILE_WIDTH } from "./tile.ts";
import type { TileStore } from "./tile-store.ts";
import { tileKey } from "./tree-proofs.ts";
import type { Leaves, TreeSource } from "./verify-tree.ts";

/** The log as it stands in the database, each document as a whole: also what it says beside its body. */
export function storedLog(db: Db, tiles: TileStore): TreeSource {
  return {
    async tile(level, index) {
      return (await tiles.read([{ level, index }])).get(tileKey(level, index));
    },
    async leaves(index, width): Promise<Leaves> {
      const from = index * TILE_WIDTH + 1;
      const documents = await db
        .collection(EVENTS_COLLECTION)
        .find<Uint8Array>({ _id: { $gt: Long.fromNumber(from - 1), $lt: Long.fromNumber(from + width) } } as Document, {
          readConcern: "majority",
          readPreference: "primary",
          batchSize: TILE_WIDTH + 1,
          raw: true,
        })
        .sort({ _id: 1 })
        .toArray();
      const hashes: Uint8Array[] = [];
      let problem: Leaves["problem"];
      for (const raw of documents) {
        // With its types: a number may stand in the database as an integer of either length, or as none.
        const document = BSON.deserialize(raw, { promoteValues: false });
        const position = Number(document["_id"]);
        if (!Number.isInteger(position)) {
          problem ??= { place: hashes.length, what: `a document whose _id is no position of the log: ${document["_id"]}` };
          continue;
        }
        if (position !== from + hashes.length) break;
        const body = document["body"] instanceof BSON.Binary ? document["body"].value() : new Uint8Array();
        const what = problem ? undefined : contradiction(document, body, raw.length);
        if (what !== undefined) problem = { place: hashes.length, what };
        hashes.push(hashLeaf(body));
      }
      return { hashes, ...(problem && { problem }) };
    },
  };
}

/** A document that is in the log's collection and beyond all its positions; undefined when there is none. Fractions are found among the leaves. */
export async function findStray(db: Db): Promise<string | undefined> {
  const beyond = [{ _id: { $not: { $type: "number" } } }, { _id: { $lt: 1 } }, { _id: Number.NaN }, { _id: { $gt: MAX_POSITION } }];
  const stray = await db.collection(EVENTS_COLLECTION).findOne({ $or: beyond } as Document, { projection: { _id: 1 } });
  return stray ? `a document whose _id is no position of the log: ${String(stray._id)}` : undefined;
}

/** The fields of a document, and of what type each is. */
const FIELDS: Readonly<Record<string, (value: unknown) => boolean>> = {
  _id: (value) => value instanceof BSON.Long,
  stream: (value) => typeof value === "string",
  version: (value) => value instanceof BSON.Int32,
  at: (value) => value instanceof Date,
  types: (value) => Array.isArray(value),
  body: (value) => value instanceof BSON.Binary && value.sub_type === BSON.Binary.SUBTYPE_DEFAULT,
};

/** What a document of so many bytes says beside its body, and differently, or of another type than the log's format has. */
function contradiction(document: Document, body: Uint8Array, bytes: number): string | undefined {
  const names = Object.keys(document);
  const added = names.filter((name) => !Object.hasOwn(FIELDS, name));
  if (added.length > 0) return `it has fields that no entry has: ${added.join(", ")}`;
  const mistyped = Object.keys(FIELDS).filter((name) => FIELDS[name]?.(document[name]) !== true);
  if (mistyped.length > 0) return `its ${mistyped.join(", ")} in the database is not of the type that the log's format has`;
  // Of a field that stands twice, a reader sees one; written again, the document is shorter.
  if (BSON.calculateObjectSize(document) !== bytes) return "it has a field twice";
  try {
    const entry = decodeBody(body);
    const at = entry.recordedAt ? timestampMs(entry.recordedAt) : 0;
    const told: Record<string, boolean> = {
      stream: document["stream"] === entry.stream,
      version: Number(document["version"]) === entry.version,
      at: document["at"].getTime() === Math.floor(at),
      types: isSameList(document["types"], entry.events.map(eventType)),
    };
    const wrong = Object.keys(told).filter((field) => !told[field]);
    return wrong.length === 0 ? undefined : `its ${wrong.join(", ")} in the database is not what its body says`;
  } catch {
    return "its body cannot be decoded";
  }
}

/** Types that this code does not know are the word of whoever wrote them. */
function isSameList(stored: unknown, types: readonly string[]): boolean {
  return (
    Array.isArray(stored) && stored.length === types.length && types.every((type, index) => type === "Unknown" || stored[index] === type)
  );
}
