import { timestampMs } from "@bufbuild/protobuf/wkt";
import { BSON, type Db, type Document, Long } from "mongodb";
import { decodeBody, EVENTS_COLLECTION, eventType } from "../log/log-entry.ts";
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
        .find<Document>({ _id: { $gte: Long.fromNumber(from), $lt: Long.fromNumber(from + width) } } as Document, {
          readConcern: "majority",
          readPreference: "primary",
          batchSize: TILE_WIDTH + 1,
        })
        .sort({ _id: 1 })
        .toArray();
      const hashes: Uint8Array[] = [];
      let problem: Leaves["problem"];
      for (const document of documents) {
        if (Number(document["_id"]) !== from + hashes.length) break;
        const body = document["body"] instanceof BSON.Binary ? document["body"].value() : new Uint8Array();
        const what = problem ? undefined : contradiction(document, body);
        if (what !== undefined) problem = { place: hashes.length, what };
        hashes.push(hashLeaf(body));
      }
      return { hashes, ...(problem && { problem }) };
    },
  };
}

/** A document that is in the log's collection and at no position of the log; undefined when there is none. */
export async function findStray(db: Db): Promise<string | undefined> {
  const stray = await db
    .collection(EVENTS_COLLECTION)
    .findOne({ $or: [{ _id: { $not: { $type: "number" } } }, { _id: { $lt: 1 } }] } as Document, { projection: { _id: 1 } });
  return stray ? `a document whose _id is no position of the log: ${String(stray._id)}` : undefined;
}

/** What a document says beside its body, and differently. */
function contradiction(document: Document, body: Uint8Array): string | undefined {
  try {
    const entry = decodeBody(body);
    const at = entry.recordedAt ? timestampMs(entry.recordedAt) : 0;
    const told: Record<string, boolean> = {
      stream: document["stream"] === entry.stream,
      version: document["version"] === entry.version,
      at: document["at"] instanceof Date && document["at"].getTime() === Math.floor(at),
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
