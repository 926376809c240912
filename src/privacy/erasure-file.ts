import { mkdir, open, readFile } from "node:fs/promises";
import { dirname } from "node:path";

/** That a person is to be forgotten, as it is kept apart from the database. No personal data but the pseudonym. */
export type KeptErasure = {
  readonly person: string;
  readonly requestedAt: Date;
  readonly requestedBy: { readonly role: number; readonly subject: string };
};

/** The erasures that are kept in a file, so that a restored backup of the database does not bring anybody back. */
export type ErasureFile = {
  /** All that it holds, the oldest first. */
  all(): Iterable<KeptErasure>;
  /** How many that are. */
  count(): number;
  /** Adds an erasure, on disk before this resolves, unless its person is there already. */
  add(erasure: KeptErasure): Promise<void>;
  /** The lines that cannot be read, counted from 1: what a crash broke off, or somebody has damaged. */
  readonly unreadable: readonly number[];
};

type Line = { readonly person: string; readonly requested_at: string; readonly requested_by: { role: number; subject: string } };

/** Opens the file at `path`, one JSON object a line; made with the first erasure. Several processes may share it. */
export async function openErasureFile(path: string): Promise<ErasureFile> {
  const known = new Map<string, KeptErasure>();
  const unreadable: number[] = [];
  const lines = (await readIfThere(path)).split("\n");
  for (const [index, line] of lines.entries()) {
    if (line === "") continue;
    const erasure = parseLine(line);
    if (erasure) known.set(erasure.person, erasure);
    else unreadable.push(index + 1);
  }
  let last: Promise<unknown> = Promise.resolve();

  async function append(erasure: KeptErasure): Promise<void> {
    if (known.has(erasure.person)) return;
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await using file = await open(path, "a", 0o600);
    const { person, requestedAt, requestedBy } = erasure;
    const line: Line = { person, requested_at: requestedAt.toISOString(), requested_by: requestedBy };
    // A line of its own, whatever a crash has left before it; in one write, so that those of two processes do not mix.
    await file.write(`\n${JSON.stringify(line)}\n`);
    await file.sync();
    await syncFolder(dirname(path));
    known.set(person, erasure);
  }

  return {
    all: () => known.values(),
    count: () => known.size,
    unreadable,
    add(erasure) {
      const adding = last.then(() => append(erasure));
      last = adding.catch(() => undefined);
      return adding;
    },
  };
}

function parseLine(text: string): KeptErasure | undefined {
  try {
    const { person, requested_at, requested_by } = JSON.parse(text) as Line;
    const requestedAt = new Date(requested_at);
    if (!/^[a-z]+-[A-Za-z0-9_-]{1,64}$/.test(person) || Number.isNaN(requestedAt.getTime())) return undefined;
    return { person, requestedAt, requestedBy: { role: Number(requested_by.role), subject: String(requested_by.subject) } };
  } catch {
    return undefined;
  }
}

async function readIfThere(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return "";
    throw new Error(`${path} cannot be read: it says who has been erased, and nobody is to come back`, { cause: error });
  }
}

async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, "r");
  await folder.sync();
}
