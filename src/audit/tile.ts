/** How many hashes a full tile has, and how many entries a full bundle. */
export const TILE_WIDTH = 256;

/** Which tile, or which bundle of entries: of so many hashes or entries, counted from its beginning. */
export type TileAddress = {
  /** 0 for the hashes of entries; each hash of a higher level is that of a full tile below. */
  readonly level: number | "entries";
  readonly index: number;
  /** 1 to 256. */
  readonly width: number;
};

/** The path of a tile below the log's prefix, such as "tile/0/x001/x234/067.p/12". */
export function tilePath({ level, index, width }: TileAddress): string {
  const digits = String(index);
  const padded = digits.padStart(Math.ceil(digits.length / 3) * 3, "0");
  const elements = padded.match(/.{3}/g) ?? [];
  const name = elements.map((element, place) => (place < elements.length - 1 ? `x${element}` : element)).join("/");
  return `tile/${level}/${name}${width === TILE_WIDTH ? "" : `.p/${width}`}`;
}

const PATH = /^tile\/(entries|0|[1-9]\d?)\/((?:x\d{3}\/)*\d{3})(?:\.p\/([1-9]\d{0,2}))?$/;
const MAX_LEVEL = 63;

/** The tile at a path, as `tilePath` writes it; undefined when it is no path of a tile. */
export function parseTilePath(path: string): TileAddress | undefined {
  const [, level, name = "", partial] = PATH.exec(path) ?? [];
  if (level === undefined) return undefined;
  const address: TileAddress = {
    level: level === "entries" ? level : Number(level),
    index: Number(name.replaceAll(/[x/]/g, "")),
    width: partial === undefined ? TILE_WIDTH : Number(partial),
  };
  if (address.level !== "entries" && address.level > MAX_LEVEL) return undefined;
  // One path for one tile: none with more zeros than it needs, none that calls a full tile partial.
  return tilePath(address) === path ? address : undefined;
}

/** How many hashes of a level a tree has, or how many entries. */
export function hashesAt(level: TileAddress["level"], size: number): number {
  return level === "entries" ? size : Math.floor(size / TILE_WIDTH ** level);
}

/** The tiles at the right edge of a tree that are not full, from level 0 up. */
export function partialTiles(size: number): (TileAddress & { readonly level: number })[] {
  const tiles = [];
  for (let level = 0, hashes = size; hashes > 0; level++, hashes = Math.floor(hashes / TILE_WIDTH)) {
    const width = hashes % TILE_WIDTH;
    if (width > 0) tiles.push({ level, index: Math.floor(hashes / TILE_WIDTH), width });
  }
  return tiles;
}
