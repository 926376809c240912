import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { startMongod } from "../../src/embedded/mongod.ts";
import { sweepAbandonedFolders, temporaryFolder } from "./temporary-folder.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** The mongod that all tests of a run share, each in a database of its own. */
    mongodbUrl: string;
  }
}

/** vitest's global set-up: starts the shared servers before the first test, and returns what ends them after the last. */
export async function setup({ provide }: TestProject): Promise<() => Promise<void>> {
  await sweepAbandonedFolders();
  const folder = await temporaryFolder();
  const mongod = await startMongod({ dataDir: join(folder.path, "mongod"), cacheSizeMib: 512, forgetful: true });
  provide("mongodbUrl", mongod.url);
  return async () => {
    await mongod.kill();
    await folder[Symbol.asyncDispose]();
  };
}
