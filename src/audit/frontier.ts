import { HASH_BYTES, hashNode, rootOf } from "./merkle.ts";
import { partialTiles, TILE_WIDTH } from "./tile.ts";

/** A tile as it is written: its hashes one after the other. */
export type Tile = { readonly level: number; readonly index: number; readonly hashes: Uint8Array };

/** The right edge of a Merkle tree: all that is needed to let it grow. At most 256 hashes a level are held. */
export type Frontier = {
  readonly size: number;
  /** The hash of the last leaf; undefined while there is none, or when the tile that it completed is not held any more. */
  readonly lastLeaf: Uint8Array | undefined;
  root(): Uint8Array;
  append(leaf: Uint8Array): void;
  /** The tiles that have changed since they were last taken, as they are now. */
  takeChanged(): Tile[];
};

const TILE_HEIGHT = 8;

type OpenTile = { index: number; width: number; hashes: Buffer; changed: boolean };

/** The edge of a tree of some size. `partials` are its tiles that are not full, as `partialTiles` lists them; they may have more hashes. */
export function createFrontier(size = 0, partials: readonly Tile[] = []): Frontier {
  const levels: OpenTile[] = [];
  let changedFull: Tile[] = [];
  const subtrees: Uint8Array[] = [];
  let lastLeaf: Uint8Array | undefined;

  const emptyTile = (index: number): OpenTile => ({ index, width: 0, hashes: Buffer.alloc(TILE_WIDTH * HASH_BYTES), changed: false });
  function openTile(level: number): OpenTile {
    const open = levels[level] ?? emptyTile(0);
    levels[level] = open;
    return open;
  }

  function add(level: number, node: Uint8Array): void {
    const tile = openTile(level);
    tile.hashes.set(node, tile.width * HASH_BYTES);
    tile.width++;
    tile.changed = true;
    if (tile.width < TILE_WIDTH) return;
    changedFull.push({ level, index: tile.index, hashes: tile.hashes });
    levels[level] = emptyTile(tile.index + 1);
  }

  for (const { level, index, width } of partialTiles(size)) {
    const tile = partials.find((given) => given.level === level && given.index === index);
    if (!tile || tile.hashes.length < width * HASH_BYTES) throw new Error(`tile ${level}/${index} is not there, or too short`);
    const open = openTile(level);
    open.hashes.set(tile.hashes.subarray(0, width * HASH_BYTES));
    Object.assign(open, { index, width });
    subtrees.unshift(...perfectSubtrees(open.hashes, width));
    if (level === 0) lastLeaf = hashAt(open.hashes, width - 1);
  }
  for (let level = 0, hashes = size; hashes > 0; level++, hashes = Math.floor(hashes / TILE_WIDTH))
    openTile(level).index = Math.floor(hashes / TILE_WIDTH);

  return {
    get size() {
      return size;
    },
    get lastLeaf() {
      return lastLeaf;
    },
    root: () => rootOf(subtrees),
    append(leaf) {
      add(0, leaf);
      let node = leaf;
      let height = 0;
      for (let rest = size; rest % 2 === 1; rest = (rest - 1) / 2) {
        node = hashNode(subtrees.pop() as Uint8Array, node);
        height++;
        if (height % TILE_HEIGHT === 0) add(height / TILE_HEIGHT, node);
      }
      subtrees.push(node);
      lastLeaf = leaf;
      size++;
    },
    takeChanged() {
      const partial = levels.flatMap((tile, level): Tile[] => {
        if (!tile.changed || tile.width === 0) return [];
        tile.changed = false;
        return [{ level, index: tile.index, hashes: Uint8Array.from(tile.hashes.subarray(0, tile.width * HASH_BYTES)) }];
      });
      const taken = [...changedFull, ...partial];
      changedFull = [];
      return taken;
    },
  };
}

/** The root over all hashes of a full tile: the hash that stands for it one level above. */
export function tileRoot(hashes: Uint8Array): Uint8Array {
  return rootOf(perfectSubtrees(hashes, hashes.length / HASH_BYTES));
}

/** The hash at a place of a tile. */
export function hashAt(hashes: Uint8Array, place: number): Uint8Array {
  return hashes.subarray(place * HASH_BYTES, (place + 1) * HASH_BYTES);
}

/** The hash over some hashes of a tile, as many as a power of two. */
export function perfectHash(hashes: Uint8Array, from: number, count: number): Uint8Array {
  if (count === 1) return hashAt(hashes, from);
  return hashNode(perfectHash(hashes, from, count / 2), perfectHash(hashes, from + count / 2, count / 2));
}

/** The perfect subtrees over the first hashes of a tile, from the left to the right. */
function perfectSubtrees(hashes: Uint8Array, width: number): Uint8Array[] {
  const subtrees: Uint8Array[] = [];
  let from = 0;
  for (let count = TILE_WIDTH; count >= 1; count /= 2) {
    if (width - from < count) continue;
    subtrees.push(perfectHash(hashes, from, count));
    from += count;
  }
  return subtrees;
}
