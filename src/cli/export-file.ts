import { type FileHandle, open } from "node:fs/promises";

/** An export on disk, ready to go on. */
export type ExportFile = AsyncDisposable & {
  /** The position after which it goes on; 0 when it is new. */
  readonly after: number;
  write(text: string): Promise<void>;
};

/** The lines of one entry take far less. */
const TAIL_BYTES = 8 * 1024 * 1024;

/**
 * Opens an export to go on after its last whole entry: a line that was broken off is cut away, and so are the lines of the
 * last entry, of which more may be missing. Throws an Error when the file is none.
 */
export async function openExportFile(path: string): Promise<ExportFile> {
  const file = await open(path, "a+", 0o600);
  try {
    const after = await cutBack(file, path);
    return {
      after,
      async write(text) {
        await file.appendFile(text);
      },
      [Symbol.asyncDispose]: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function cutBack(file: FileHandle, path: string): Promise<number> {
  const { size } = await file.stat();
  const start = Math.max(0, size - TAIL_BYTES);
  const { buffer, bytesRead } = await file.read({ buffer: Buffer.alloc(size - start), position: start });
  const tail = buffer.subarray(0, bytesRead);
  let end = tail.lastIndexOf(0x0a) + 1;
  let last: number | undefined;
  // Backwards, line by line, as long as they are of the last entry.
  while (end > 0) {
    const begin = tail.lastIndexOf(0x0a, end - 2) + 1;
    if (begin === 0 && start > 0) break;
    const position = positionOf(tail.subarray(begin, end).toString(), path);
    if (position !== (last ?? position)) break;
    last = position;
    end = begin;
  }
  await file.truncate(start + end);
  return last === undefined ? 0 : last - 1;
}

function positionOf(line: string, path: string): number {
  const sequence: unknown = parse(line)?.["sequence"];
  if (typeof sequence !== "string" || !/^\d{19}$/.test(sequence)) throw new Error(`${path} is not an export that could go on`);
  return Number(sequence);
}

function parse(line: string): { readonly [name: string]: unknown } | undefined {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
