import type { TreeHead } from "./checkpoint.ts";
import { createFrontier, hashAt, type Tile, tileRoot } from "./frontier.ts";
import { HASH_BYTES, rootOf, sameHash } from "./merkle.ts";
import { partialTiles, TILE_WIDTH } from "./tile.ts";
import { hashesOf } from "./tile-store.ts";

/** Where a tree is read from that is to be verified. */
export type TreeSource = {
  /** The hashes of a tile; undefined or fewer when they cannot be had. */
  tile(level: number, index: number, width: number): Promise<Uint8Array | undefined>;
  /** The entries that a tile of level 0 stands for. */
  leaves(index: number, width: number): Promise<Leaves>;
};

/** The hashes of some entries, made of the entries. */
export type Leaves = {
  /** As many as there are before the first that cannot be had. */
  readonly hashes: readonly Uint8Array[];
  /** What is wrong with the first entry that has something wrong beside its body, or what stands before it, and its place among these. */
  readonly problem?: { readonly place: number; readonly what: string };
};

/** The first thing that is wrong with a log. */
export type Difference = {
  /** The first position that is wrong; where it is not exact, that is known to be right up to before it. */
  readonly position: number;
  /** The last position at which the first wrong one may be: the same where it is exact. */
  readonly to: number;
  readonly what: string;
};

/** How far a verification has come. */
export type VerifyProgress = { readonly checked: number; readonly total: number };

export type VerifyTreeOptions = {
  /** What the log's key has signed. */
  readonly head: TreeHead;
  /** Further heads that were signed, the smallest first, each of a smaller size. The tree must have had their roots, too. */
  readonly earlier?: readonly TreeHead[];
  readonly signal?: AbortSignal;
};

/** How many tiles are fetched at a time. */
const AHEAD = 8;

/**
 * Holds every entry of a log against its hash tiles and both against what was signed; tells how far it is after each tile, and
 * returns the first difference, if there is one. Memory does not grow with the log.
 */
export async function* verifyTree(
  source: TreeSource,
  { head, earlier = [], signal }: VerifyTreeOptions,
): AsyncGenerator<VerifyProgress, Difference | undefined, undefined> {
  const { size, root } = head;
  const count = Math.ceil(size / TILE_WIDTH);
  const widthOf = (index: number) => Math.min(TILE_WIDTH, size - index * TILE_WIDTH);
  const frontier = createFrontier();
  const heads = [...earlier.filter((one) => one.size < size), head];
  let known: Difference | undefined;
  /** Every signed root up to this size is that of the tiles. */
  let agreed = 0;
  let denied: number | undefined;
  let badTile: Difference | undefined;

  const fetch = (index: number) => {
    const fetched = Promise.all([source.tile(0, index, widthOf(index)), known ? undefined : source.leaves(index, widthOf(index))]);
    fetched.catch(() => undefined);
    return fetched;
  };
  const fetched = Array.from({ length: Math.min(AHEAD, count) }, (_, index) => fetch(index));
  let nextHead = 0;
  const checkHeads = () => {
    for (let due = heads[nextHead]; due && due.size <= frontier.size; due = heads[++nextHead]) {
      if (due.size !== frontier.size || denied !== undefined) continue;
      if (sameHash(due.root, frontier.root())) agreed = due.size;
      else denied = due.size;
    }
  };
  checkHeads();

  for (let index = 0; index < count; index++) {
    signal?.throwIfAborted();
    const [tile, leaves] = (await fetched.shift()) ?? [];
    if (index + AHEAD < count) fetched.push(fetch(index + AHEAD));
    const first = index * TILE_WIDTH;
    const width = widthOf(index);
    const hashes = tile && hashesOf(tile.subarray(0, width * HASH_BYTES));
    if (leaves && !known) known = compare(first, width, leaves, hashes);
    // Once an entry is known to be wrong, the tiles alone are followed: do they tell what was signed?
    const followed = known && hashes?.length === width ? hashes : (leaves?.hashes ?? hashes ?? []);
    for (const hash of followed) {
      frontier.append(hash);
      checkHeads();
    }
    badTile ??= await differingTile(source, frontier.takeChanged(), size);
    if (followed.length < width) break;
    yield { checked: Math.min(size, first + width), total: size };
  }

  if (frontier.size === size && denied === undefined && sameHash(frontier.root(), root)) return firstOf(known, badTile);
  const bad = await firstBadTile(source, head);
  if (bad) {
    const range = await narrow(source, bad, size);
    if (known && known.position < range.position) return known;
    return { ...range, position: Math.max(range.position, agreed + 1), to: Math.min(range.to, denied ?? size) };
  }
  if (known && known.position <= (denied ?? size)) return known;
  return { position: agreed + 1, to: denied ?? size, what: "the entries and the tiles are not those that were signed" };
}

export type VerifyRestOptions = {
  /** How many entries have been verified against what was signed. */
  readonly after: number;
  /** The newest position of the log. */
  readonly to: number;
  /** How many entries the tiles are known to cover; there are so many at least. */
  readonly covered: number;
  readonly signal?: AbortSignal;
};

/**
 * Holds the entries that nothing signed covers yet against those tiles that there are, each against its own fields, and finds
 * gaps; tells how far it is, and returns the first difference, if there is one.
 */
export async function* verifyRest(
  source: TreeSource,
  { after, to, covered, signal }: VerifyRestOptions,
): AsyncGenerator<VerifyProgress, Difference | undefined, undefined> {
  const total = Math.max(to, covered);
  for (let index = Math.floor(after / TILE_WIDTH); index * TILE_WIDTH < total; index++) {
    signal?.throwIfAborted();
    const first = index * TILE_WIDTH;
    const width = Math.min(TILE_WIDTH, total - first);
    const [tile, leaves] = await Promise.all([source.tile(0, index, width), source.leaves(index, width)]);
    // The tiles may be made anew just now: what they lack is no fault of the log.
    const found = firstWrong(first, { from: Math.max(0, after - first), to: width }, leaves, tile && hashesOf(tile));
    if (found) return found;
    yield { checked: first + width, total };
  }
  return undefined;
}

function firstOf(one: Difference | undefined, other: Difference | undefined): Difference | undefined {
  return one && other ? (one.position <= other.position ? one : other) : (one ?? other);
}

/** The first of these tiles, made of the entries, that is not what is stored. Those of level 0 are held against the entries themselves. */
async function differingTile(source: TreeSource, tiles: readonly Tile[], size: number): Promise<Difference | undefined> {
  for (const { level, index, hashes } of tiles) {
    const span = TILE_WIDTH ** (level + 1);
    const width = Math.min(TILE_WIDTH, Math.floor(size / TILE_WIDTH ** level) - index * TILE_WIDTH);
    if (level === 0 || hashes.length < width * HASH_BYTES) continue;
    const stored = await source.tile(level, index, width);
    if (stored && sameHash(stored.subarray(0, hashes.length), hashes)) continue;
    const what = `the hash tile ${level}/${index} is not what was signed; its entries are`;
    return { position: index * span + 1, to: Math.min(size, (index + 1) * span), what };
  }
  return undefined;
}

function compare(first: number, width: number, leaves: Leaves, tile: readonly Uint8Array[] | undefined): Difference | undefined {
  const wrong = firstWrong(first, { from: 0, to: width }, leaves, tile);
  if (wrong) return wrong;
  const covered = Math.min(width, tile?.length ?? 0);
  if (covered === width) return undefined;
  return exactly(first + covered + 1, covered === 0 ? "its hash tile is missing, or is none" : "its hash is missing in the tiles");
}

function firstWrong(
  first: number,
  { from, to }: { readonly from: number; readonly to: number },
  { hashes, problem }: Leaves,
  tile: readonly Uint8Array[] | undefined,
): Difference | undefined {
  const at = (place: number, what: string) => exactly(first + place + 1, what);
  for (let place = from; place < to; place++) {
    const leaf = hashes[place];
    const signed = tile?.[place];
    if (!leaf) return at(place, problem?.place === place ? problem.what : "there is no entry");
    if (signed && !sameHash(leaf, signed)) return at(place, "its entry is not the one that was recorded");
    if (problem?.place === place) return at(place, problem.what);
  }
  return undefined;
}

function exactly(position: number, what: string): Difference {
  return { position, to: position, what };
}

type TilePlace = { readonly level: number; readonly index: number; readonly width: number };
/** A tile that is not what the one above it says; `hash` is what it should come to, absent where the root itself is not met. */
type BadTile = TilePlace & { readonly hash: Uint8Array };

/** The first tile that is not what was signed, from the top; undefined when already those at the right edge do not give the root. */
async function firstBadTile(source: TreeSource, { size, root }: TreeHead): Promise<BadTile | undefined> {
  const edge = partialTiles(size);
  const tiles = new Map<number, Uint8Array>();
  const subtrees: Uint8Array[] = [];
  for (const { level, index, width } of edge) {
    const hashes = await source.tile(level, index, width);
    if (!hashes || hashes.length < width * HASH_BYTES) return undefined;
    tiles.set(level, hashes.subarray(0, width * HASH_BYTES));
    subtrees.unshift(
      ...powersOf(width).map(({ from, count }) => tileRoot(hashes.subarray(from * HASH_BYTES, (from + count) * HASH_BYTES))),
    );
  }
  if (!sameHash(rootOf(subtrees), root)) return undefined;

  async function below({ level, index }: TilePlace, hashes: Uint8Array): Promise<BadTile | undefined> {
    if (level === 0) return undefined;
    for (let place = 0; place < hashes.length / HASH_BYTES; place++) {
      const child = { level: level - 1, index: index * TILE_WIDTH + place, width: TILE_WIDTH };
      const hash = hashAt(hashes, place);
      const found = await source.tile(child.level, child.index, TILE_WIDTH);
      if (found?.length !== TILE_WIDTH * HASH_BYTES || !sameHash(tileRoot(found), hash)) return { ...child, hash };
      const worse = await below(child, found);
      if (worse) return worse;
    }
    return undefined;
  }

  // Higher levels stand for what is further to the left.
  for (const place of edge.toReversed()) {
    const bad = await below(place, tiles.get(place.level) ?? new Uint8Array());
    if (bad) return bad;
  }
  return undefined;
}

/** What a bad tile says of the entries below it. */
async function narrow(source: TreeSource, { level, index, hash }: BadTile, size: number): Promise<Difference> {
  const span = TILE_WIDTH ** (level + 1);
  const position = index * span + 1;
  const to = Math.min(size, (index + 1) * span);
  const name = `the hash tile ${level}/${index}`;
  const frontier = createFrontier();
  for (let leafTile = index * TILE_WIDTH ** level; frontier.size < span; leafTile++) {
    const { hashes } = await source.leaves(leafTile, TILE_WIDTH);
    for (const leaf of hashes) frontier.append(leaf);
    frontier.takeChanged();
    if (hashes.length < TILE_WIDTH)
      return { position, to, what: `${name} is not what was signed, and there is no entry ${index * span + frontier.size + 1}` };
  }
  return sameHash(frontier.root(), hash)
    ? { position, to, what: `${name} is not what was signed; its entries are` }
    : { position, to, what: `${name} is not what was signed, and neither are its entries` };
}

function powersOf(width: number): { from: number; count: number }[] {
  const parts: { from: number; count: number }[] = [];
  let from = 0;
  for (let count = TILE_WIDTH; count >= 1; count /= 2) {
    if (width - from < count) continue;
    parts.push({ from, count });
    from += count;
  }
  return parts;
}
