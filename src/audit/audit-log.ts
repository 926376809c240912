import type { Db } from "mongodb";
import { readBodies } from "../log/body-reader.ts";
import type { CheckpointStore, SignedCheckpoint } from "./checkpoint-store.ts";
import { HASH_BYTES } from "./merkle.ts";
import { hashesAt, TILE_WIDTH, type TileAddress } from "./tile.ts";
import type { TileStore } from "./tile-store.ts";
import { tileKey } from "./tree-proofs.ts";

/** The log as auditors read it: what its newest checkpoint covers, and no more. */
export type AuditLog = {
  /** The newest checkpoint; undefined until the first one is signed. */
  checkpoint(): Promise<SignedCheckpoint | undefined>;
  /** The bytes of a tile or of a bundle of entries; undefined when the newest checkpoint has no such one. */
  tile(address: TileAddress): Promise<Uint8Array | undefined>;
};

const LENGTH_BYTES = 2;

/** The log in `db`. */
export function createAuditLog(db: Db, tiles: TileStore, checkpoints: CheckpointStore): AuditLog {
  /** A size that a checkpoint covers. It need not be the newest one: what is covered once always is. */
  let known = 0;

  /** What stands where the entries should: if the log is damaged, this shows it to whoever compares it with the tiles. */
  async function bundle(first: number, count: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for await (const bodies of readBodies(db, { from: first + 1, to: first + count, batchSize: TILE_WIDTH + 1 })) {
      for (const { position, body } of bodies) {
        if (parts.length / 2 === count || position !== first + 1 + parts.length / 2) return Buffer.concat(parts);
        const length = Buffer.alloc(LENGTH_BYTES);
        length.writeUInt16BE(Math.min(body.length, 0xffff));
        parts.push(length, body);
      }
    }
    return Buffer.concat(parts);
  }

  return {
    checkpoint: () => checkpoints.newest(),
    async tile({ level, index, width }) {
      const end = index * TILE_WIDTH + width;
      if (end > hashesAt(level, known)) known = (await checkpoints.newest())?.size ?? 0;
      if (end > hashesAt(level, known)) return undefined;
      if (level === "entries") return await bundle(index * TILE_WIDTH, width);
      const hashes = (await tiles.read([{ level, index }])).get(tileKey(level, index));
      return hashes && hashes.length >= width * HASH_BYTES ? hashes.subarray(0, width * HASH_BYTES) : undefined;
    },
  };
}
