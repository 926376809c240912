import type { TreeHead } from "./checkpoint.ts";
import { perfectHash } from "./frontier.ts";
import { HASH_BYTES, hashNode, verifyConsistency } from "./merkle.ts";
import { TILE_WIDTH } from "./tile.ts";

/** A hash of the tree that is yet to be worked out: that of a perfect subtree, which tiles have, or of the node over two others. */
export type Node = { readonly height: number; readonly index: number } | { readonly left: Node; readonly right: Node };

/** Reads tiles: for each one asked for its hashes, of which there may be more than a tree of interest has; absent if there is none. */
export type ReadTiles = (wanted: readonly { readonly level: number; readonly index: number }[]) => Promise<ReadonlyMap<string, Uint8Array>>;

/** The key of a tile in what `ReadTiles` gives. */
export const tileKey = (level: number, index: number): string => `${level}/${index}`;

/** A tile that is needed is not there, or too short. */
export class TileMissing extends Error {
  override readonly name = "TileMissing";
  readonly level: number;
  readonly index: number;
  constructor(level: number, index: number) {
    super(`tile ${tileKey(level, index)} of the log is not there, or too short`);
    this.level = level;
    this.index = index;
  }
}

/** The root over the leaves from `from` to below `to`. */
export function subtree(from: number, to: number): Node {
  const count = to - from;
  if (Number.isInteger(Math.log2(count)) && 2 ** Math.log2(count) === count) return { height: Math.log2(count), index: from / count };
  const split = from + largestPowerBelow(count);
  return { left: subtree(from, split), right: subtree(split, to) };
}

/** The path from a leaf to the root of a tree of some size, from below (RFC 6962 section 2.1.1). */
export function inclusionProof(leaf: number, size: number): Node[] {
  const path: Node[] = [];
  for (let from = 0, to = size; to - from > 1; ) {
    const split = from + largestPowerBelow(to - from);
    if (leaf < split) {
      path.unshift(subtree(split, to));
      to = split;
    } else {
      path.unshift(subtree(from, split));
      from = split;
    }
  }
  return path;
}

/** The proof that a tree of one size begins with a tree of another (RFC 6962 section 2.1.2). */
export function consistencyProof(older: number, newer: number): Node[] {
  const path: Node[] = [];
  if (older === 0 || older === newer) return path;
  let from = 0;
  let to = newer;
  while (older !== to) {
    const split = from + largestPowerBelow(to - from);
    if (older <= split) {
      path.unshift(subtree(split, to));
      to = split;
    } else {
      path.unshift(subtree(from, split));
      from = split;
    }
  }
  // The older tree itself is known to whoever asks, where it is a subtree of the newer one.
  if (from > 0) path.unshift(subtree(from, to));
  return path;
}

/** Works hashes out from tiles, all of which are read at once. Throws TileMissing. */
export async function resolveNodes(nodes: readonly Node[], readTiles: ReadTiles): Promise<Uint8Array[]> {
  const wanted = new Map<string, { readonly level: number; readonly index: number }>();
  const want = (node: Node): void => {
    if ("left" in node) {
      want(node.left);
      want(node.right);
    } else {
      const { level, index } = placeOf(node);
      wanted.set(tileKey(level, index), { level, index });
    }
  };
  nodes.forEach(want);
  const tiles = wanted.size === 0 ? new Map<string, Uint8Array>() : await readTiles([...wanted.values()]);

  function resolve(node: Node): Uint8Array {
    if ("left" in node) return hashNode(resolve(node.left), resolve(node.right));
    const { level, index, from, count } = placeOf(node);
    const hashes = tiles.get(tileKey(level, index));
    if (!hashes || hashes.length < (from + count) * HASH_BYTES) throw new TileMissing(level, index);
    return perfectHash(hashes, from, count);
  }

  return nodes.map(resolve);
}

/** Whether a tree goes on from an older one, as the tiles of it show. Throws TileMissing. */
export async function goesOnFrom(older: TreeHead, newer: TreeHead, readTiles: ReadTiles): Promise<boolean> {
  if (older.size > newer.size) return false;
  return verifyConsistency(older, newer, await resolveNodes(consistencyProof(older.size, newer.size), readTiles));
}

/** In which tile a perfect subtree is, and over which of its hashes. */
function placeOf({ height, index }: { readonly height: number; readonly index: number }) {
  const level = Math.floor(height / 8);
  const count = 2 ** (height % 8);
  const first = index * count;
  return { level, index: Math.floor(first / TILE_WIDTH), from: first % TILE_WIDTH, count };
}

function largestPowerBelow(count: number): number {
  let power = 1;
  while (power * 2 < count) power *= 2;
  return power;
}
