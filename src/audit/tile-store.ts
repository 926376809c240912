import { Binary, type Db, MongoServerError } from "mongodb";
import type { Tile } from "./frontier.ts";
import { hashAt } from "./frontier.ts";
import { HASH_BYTES } from "./merkle.ts";
import { type ReadTiles, tileKey } from "./tree-proofs.ts";

/** The collection of tiles. */
export const TILES_COLLECTION = "audit_tiles";

/** A document of it. */
export type TileDocument = {
  /** Level and index, such as "0/17". */
  readonly _id: string;
  /** How many hashes it has. */
  readonly width: number;
  readonly hashes: Binary;
  /** The fencing number of the lease under which it was written. */
  readonly fence: number;
};

/** The hash tiles, in MongoDB. */
export type TileStore = {
  /**
   * Writes tiles; resolves when they are durable on a majority. A tile that a later holder of the lease has written, or one
   * with more hashes by this same holder, stays as it is.
   */
  write(tiles: readonly Tile[], fence: number): Promise<void>;
  /** The tiles that there are of those asked for, at majority. */
  readonly read: ReadTiles;
  /** All tiles of the lowest level that hold hashes from an index on, in their order. */
  leafTiles(fromIndex: number): AsyncGenerator<Tile, void, undefined>;
};

const DUPLICATE_KEY = 11000;
const BATCH = 100;

/** The tiles in `db`. */
export function createTileStore(db: Db): TileStore {
  const collection = db.collection<TileDocument>(TILES_COLLECTION, {
    readConcern: "majority",
    writeConcern: { w: "majority", journal: true },
    readPreference: "primary",
  });
  const read: ReadTiles = async (wanted) => {
    const found = await collection.find({ _id: { $in: wanted.map(({ level, index }) => tileKey(level, index)) } }).toArray();
    return new Map(found.map(({ _id, hashes }) => [_id, hashes.value()]));
  };
  return {
    async write(tiles, fence) {
      const operations = tiles.map(({ level, index, hashes }) => {
        const width = hashes.length / HASH_BYTES;
        return {
          updateOne: {
            filter: { _id: tileKey(level, index), $or: [{ fence: { $lt: fence } }, { fence, width: { $lte: width } }] },
            update: { $set: { width, hashes: new Binary(hashes), fence } },
            upsert: true,
          },
        };
      });
      if (operations.length === 0) return;
      try {
        await collection.bulkWrite(operations, { ordered: false });
      } catch (error) {
        // A tile that is not to be changed does not match, and cannot be inserted beside itself.
        if (!(error instanceof MongoServerError && error.code === DUPLICATE_KEY)) throw error;
      }
    },
    read,
    async *leafTiles(fromIndex) {
      for (let first = fromIndex; ; first += BATCH) {
        const wanted = Array.from({ length: BATCH }, (_, place) => ({ level: 0, index: first + place }));
        const tiles = await read(wanted);
        for (const { level, index } of wanted) {
          const hashes = tiles.get(tileKey(level, index));
          if (!hashes) return;
          yield { level, index, hashes };
        }
      }
    },
  };
}

/** The hashes of a tile, one by one. */
export function hashesOf(tile: Uint8Array): Uint8Array[] {
  return Array.from({ length: Math.floor(tile.length / HASH_BYTES) }, (_, place) => hashAt(tile, place));
}
