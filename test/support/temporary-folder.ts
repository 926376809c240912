import { glob, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { identifyProcess } from "../../src/embedded/process-identity.ts";
import { stopLeftover } from "../../src/embedded/server-process.ts";

const PREFIX = "ordertrail-test-";

/** A new empty folder for one test, removed with all it holds at the end of the block that `await using`s it. */
export async function temporaryFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), `${PREFIX}${process.pid}-`));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** Removes the folders of test runs that were killed, and stops the servers that they left running there. */
export async function sweepAbandonedFolders(): Promise<void> {
  for await (const entry of glob(`${PREFIX}*`, { cwd: tmpdir() })) {
    const owner = Number(entry.slice(PREFIX.length).split("-")[0]);
    if (identifyProcess(owner) === undefined) {
      const folder = join(tmpdir(), entry);
      for await (const path of glob("**/{mongod.lock,nats-server.pid}", { cwd: folder })) {
        const pidFile = basename(path);
        const name = pidFile === "mongod.lock" ? "mongod" : "nats-server";
        await stopLeftover({ name, dataDir: dirname(join(folder, path)), pidFile });
      }
      await rm(folder, { recursive: true, force: true });
    }
  }
}
