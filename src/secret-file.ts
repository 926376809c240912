import { randomUUID } from "node:crypto";
import { link, open, readFile, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { makeFolder } from "./make-folder.ts";

/**
 * What the file at `path` holds. If there is none, it is made of what `make` returns, readable by its owner only, and on
 * disk before this resolves. Of several processes that come at once, one makes it, and all return what that one wrote.
 */
export async function readOrCreateSecret(path: string, make: () => string | Promise<string>): Promise<string> {
  const existing = await readIfThere(path);
  if (existing !== undefined) return existing;
  const folder = dirname(path);
  await makeFolder(folder);
  const draft = `${path}.${randomUUID()}`;
  try {
    await writeDurably(draft, await make());
    // A link does not replace what another process has put there meanwhile; a rename would.
    await link(draft, path);
    await syncFolder(folder);
  } catch (error) {
    if (!hasCode(error, "EEXIST")) throw error;
  } finally {
    await rm(draft, { force: true });
  }
  return readFile(path, "utf8");
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (hasCode(error, "ENOENT")) return undefined;
    throw error;
  }
}

/** Makes a file that its owner alone may read, on disk before this resolves. Rejects when there is one already. */
export async function writeDurably(path: string, text: string): Promise<void> {
  await using file = await open(path, "wx", 0o600);
  await file.writeFile(text);
  await file.sync();
}

async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, "r");
  await folder.sync();
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
