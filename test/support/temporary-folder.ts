import { accessSync, constants, statfsSync } from "node:fs";
import { glob, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { identifyProcess } from "../../src/embedded/process-identity.ts";
import { stopLeftover } from "../../src/embedded/server-process.ts";

const PREFIX = "ordertrail-test-";
const IN_MEMORY = "/dev/shm";
const ROOM_BYTES = 8 * 1024 ** 3;
/** Tests end processes, not machines, so what they store need not reach a disk: in memory, where there is room, they wait less. */
const BASE = hasRoom(IN_MEMORY) ? IN_MEMORY : tmpdir();

function hasRoom(path: string): boolean {
  try {
    const { bavail, bsize } = statfsSync(path);
    accessSync(path, constants.W_OK);
    return bavail * bsize >= ROOM_BYTES;
  } catch {
    return false;
  }
}

/** A new empty folder for one test, removed with all it holds at the end of the block that `await using`s it. */
export async function temporaryFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(BASE, `${PREFIX}${process.pid}-`));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** Removes the folders of test runs that were killed, and stops the servers that they left running there. */
export async function sweepAbandonedFolders(): Promise<void> {
  for await (const entry of glob(`${PREFIX}*`, { cwd: BASE })) {
    const owner = Number(entry.slice(PREFIX.length).split("-")[0]);
    if (identifyProcess(owner) === undefined) {
      const folder = join(BASE, entry);
      for await (const path of glob("**/{mongod.lock,nats-server.pid,valkey-server.pid}", { cwd: folder })) {
        const pidFile = basename(path);
        const name = pidFile === "mongod.lock" ? "mongod" : pidFile === "nats-server.pid" ? "nats-server" : "valkey-server";
        await stopLeftover({ name, dataDir: dirname(join(folder, path)), pidFile });
      }
      await rm(folder, { recursive: true, force: true });
    }
  }
}
