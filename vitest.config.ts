import { globSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { defineConfig } from "vitest/config";

/** A test that imports one of these needs a real server; all others are the project "fast". */
const NEEDS_SERVERS = /from "[^"]*\/(support\/(mongo|secured-mongod|app|log|delivering|valkey)|notifying|embedded\/[^"]+)\.ts"/;

const needingServers = globSync("test/**/*.test.ts").filter((path) => NEEDS_SERVERS.test(readFileSync(path, "utf8")));

export default defineConfig({
  test: {
    // Modules keep no state between tests, so a worker loads them once for all of its files, and runs them warm.
    isolate: false,
    unstubEnvs: true,
    // The processes that tests start load code that another has compiled.
    env: { NODE_COMPILE_CACHE: resolve(".cache/compile") },
    // Most tests wait for a server or for time to pass: four files at a time keep two cores busy.
    maxWorkers: 4,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    projects: [
      { extends: true, test: { name: "fast", include: ["test/**/*.test.ts"], exclude: needingServers } },
      {
        extends: true,
        test: { name: "servers", include: needingServers, globalSetup: "test/support/servers.ts" },
      },
    ],
  },
});
