import { randomUUID } from "node:crypto";
import { open, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Checkpoint, parseCheckpointText } from "./checkpoint.ts";
import { parseNote } from "./signed-note.ts";

/** A file that holds a checkpoint apart from the database, so that a database that is put back does not put it back, too. */
export type CheckpointFile = {
  readonly path: string;
  /**
   * The checkpoint in it, whose signatures are not verified; undefined when there is no file, or an empty one. Throws an
   * Error when it holds anything else.
   */
  read(): Promise<Checkpoint | undefined>;
  /** Puts a signed checkpoint in its place: on disk before this resolves, and never half. */
  write(signed: string): Promise<void>;
};

/** Where an instance remembers the newest checkpoint of the log in its database. */
export function rememberedCheckpointFile({
  dataDir,
  databaseName,
}: {
  readonly dataDir: string;
  readonly databaseName: string;
}): CheckpointFile {
  return createCheckpointFile(join(dataDir, `${databaseName}.checkpoint`));
}

/** The file at a path, whose folder there must be. */
export function createCheckpointFile(path: string): CheckpointFile {
  return {
    path,
    async read() {
      const text = await readIfThere(path);
      if (text.trim() === "") return undefined;
      try {
        return parseCheckpointText(parseNote(text).text);
      } catch (cause) {
        throw new Error(`${path} does not hold a checkpoint of a log: look at what it is, and move it away`, { cause });
      }
    },
    async write(signed) {
      const draft = `${path}.${randomUUID()}`;
      try {
        // Whoever may read the folder may read it: there is no secret in a checkpoint.
        await using file = await open(draft, "wx");
        await file.writeFile(signed);
        await file.sync();
        await rename(draft, path);
      } finally {
        await rm(draft, { force: true });
      }
      await using entries = await open(dirname(path), "r");
      await entries.sync();
    },
  };
}

async function readIfThere(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return "";
    throw error;
  }
}
