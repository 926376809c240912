import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { httpGet, type TlsSettings } from "./http-get.ts";
import { HASH_BYTES, hashLeaf } from "./merkle.ts";
import { TILE_WIDTH, type TileAddress, tilePath } from "./tile.ts";
import type { Leaves, TreeSource } from "./verify-tree.ts";

/** A log as it is published: by an address, or in a folder. */
export type PublishedLog = TreeSource & {
  /** The newest signed checkpoint, as it came. Throws an Error when it cannot be had. */
  checkpoint(): Promise<string>;
};

/** Reads a file of a published log; undefined when there is none. */
type ReadFile = (path: string) => Promise<Uint8Array | undefined>;

const TIMEOUT_MS = 60_000;
const LENGTH_BYTES = 2;
/** A full bundle of the largest entries; nothing that is published is larger. */
const MAX_BYTES = TILE_WIDTH * (LENGTH_BYTES + 0xffff);

export type LogAtUrlOptions = {
  /** Asked for before each request. */
  readonly token?: (() => Promise<string>) | undefined;
  readonly tls?: TlsSettings;
};

/** A log whose checkpoint and tiles are below an address. */
export function logAtUrl(url: URL, { token, tls = {} }: LogAtUrlOptions = {}): PublishedLog {
  const prefix = url.href.replace(/\/$/, "");
  return publishedLog(async (path) => {
    const headers = token ? { authorization: `Bearer ${await token()}` } : {};
    const { status, location, body } = await httpGet(new URL(`${prefix}/${path}`), {
      ...{ headers, tls },
      timeoutMs: TIMEOUT_MS,
      maxBytes: MAX_BYTES,
    });
    if (status === 404) return undefined;
    if (status === 401 || status === 403)
      throw new Error(`${prefix}/${path} needs a token of role auditor or operator: give it with --token`);
    if (status !== 200)
      throw new Error(`${prefix}/${path} answered ${status}${location === undefined ? "" : `, and that it is at ${location}`}`);
    return body;
  });
}

/** A log whose checkpoint and tiles are in a folder. */
export function logInFolder(folder: string): PublishedLog {
  return publishedLog((path) =>
    readFile(join(folder, path)).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
      throw error;
    }),
  );
}

function publishedLog(read: ReadFile): PublishedLog {
  /** A partial tile may have been replaced by the full one: `width` is that of the one that was found. */
  async function readTile(address: TileAddress): Promise<{ readonly bytes: Uint8Array; readonly width: number } | undefined> {
    for (const width of new Set([address.width, TILE_WIDTH])) {
      const bytes = await read(tilePath({ ...address, width }));
      if (bytes) return { bytes, width };
    }
    return undefined;
  }

  return {
    async checkpoint() {
      const bytes = await read("checkpoint");
      if (!bytes) throw new Error("there is no checkpoint");
      return new TextDecoder().decode(bytes);
    },
    async tile(level, index, width) {
      const found = await readTile({ level, index, width });
      // With more in it than its name says, it is no tile: whoever reads on from there would read something else.
      return found && found.bytes.length <= found.width * HASH_BYTES ? found.bytes : undefined;
    },
    async leaves(index, width) {
      const found = await readTile({ level: "entries", index, width });
      return found ? leavesOf(found.bytes, width, found.width) : { hashes: [] };
    },
  };
}

/** The hashes of the first entries of a bundle, which is one of so many; they are all of it, where nothing else is said. */
export function leavesOf(bundle: Uint8Array, width: number, bundleWidth = width): Leaves {
  const entries = splitBundle(bundle);
  const bytes = entries.slice(0, bundleWidth).reduce((sum, entry) => sum + LENGTH_BYTES + entry.length, 0);
  const isLonger = entries.length >= bundleWidth && bytes < bundle.length;
  const hashes = entries.slice(0, width).map(hashLeaf);
  return { hashes, ...(isLonger && { problem: { place: width - 1, what: "its bundle of entries goes on after the last one" } }) };
}

/** The entries of a bundle, up to the first that is not there as a whole. */
export function splitBundle(bundle: Uint8Array): Uint8Array[] {
  const entries: Uint8Array[] = [];
  for (let at = 0; at + 2 <= bundle.length; ) {
    const end = at + 2 + (((bundle[at] ?? 0) << 8) | (bundle[at + 1] ?? 0));
    if (end > bundle.length) break;
    entries.push(bundle.subarray(at + 2, end));
    at = end;
  }
  return entries;
}
