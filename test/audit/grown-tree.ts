import type { TreeHead } from "../../src/audit/checkpoint.ts";
import { createFrontier, type Tile } from "../../src/audit/frontier.ts";
import { type ReadTiles, tileKey } from "../../src/audit/tree-proofs.ts";

/** A tree in memory, with the tiles that its growing wrote, and its head at every size. */
export type GrownTree = { readonly read: ReadTiles; tiles(): Tile[]; head(size: number): TreeHead };

/** Grows a tree of these leaves, taking its tiles after each step. */
export function grownTree(leaves: readonly Uint8Array[], steps: readonly number[] = [leaves.length]): GrownTree {
  const written = new Map<string, Tile>();
  const frontier = createFrontier();
  const heads: TreeHead[] = [{ size: 0, root: frontier.root() }];
  let next = 0;
  for (const step of steps) {
    for (const leaf of leaves.slice(next, next + step)) {
      frontier.append(leaf);
      heads.push({ size: frontier.size, root: frontier.root() });
    }
    next += step;
    for (const tile of frontier.takeChanged()) written.set(tileKey(tile.level, tile.index), tile);
  }
  return {
    read: async (wanted) =>
      new Map(
        wanted.flatMap(({ level, index }) => {
          const tile = written.get(tileKey(level, index));
          return tile ? [[tileKey(level, index), tile.hashes] as const] : [];
        }),
      ),
    tiles: () => [...written.values()],
    head: (size) => heads[size] as TreeHead,
  };
}
