// Gets what a fresh clone lacks, so that `npm start` and `npm test` work as the first command: the dependencies, among
// them the Node that runs TypeScript, and the servers. Plain JavaScript, as it must run on the Node that the host has.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const LEAST_NODE = 20;
const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const STAMP = join(ROOT, "node_modules", ".ordertrail-setup");
const OWN_NODE = join(ROOT, "node_modules", ".bin", "node");

const say = (text) => process.stderr.write(`setup: ${text}\n`);

function fail(text) {
  say(text);
  process.exit(1);
}

/** Tells whether node_modules was made of this package-lock.json. */
function stampOfLock() {
  return createHash("sha256")
    .update(readFileSync(join(ROOT, "package-lock.json")))
    .digest("hex");
}

function installDependencies(stamp) {
  say("installing the dependencies (npm ci), which may take a minute …");
  const startedAt = Date.now();
  // stdout is left alone: it may be someone's input.
  const args = ["ci", "--include=dev", "--no-audit", "--no-fund", "--loglevel=error"];
  const { status } = spawnSync("npm", args, { cwd: ROOT, stdio: ["ignore", 2, 2], shell: process.platform === "win32" });
  if (status !== 0) fail("npm ci failed (above): check the network and npm's registry, then try again");
  if (!existsSync(OWN_NODE))
    fail("npm ci made no node_modules/.bin/node: npm must be allowed to run install scripts (npm config get ignore-scripts)");
  writeFileSync(STAMP, stamp);
  say(`dependencies installed in ${Math.round((Date.now() - startedAt) / 1000)} s`);
}

/** Fetches the servers for which no address is given. Valkey can be done without: limits are then kept in memory. */
async function getServers() {
  const { findServer, fetchServer } = await import("../src/embedded/server-binaries.ts");
  const wanted = [
    ["mongod", process.env.MONGODB_URL],
    ["nats-server", process.env.NATS_URL],
    ["valkey-server", process.env.REDIS_URL, "limits are kept in memory without it"],
  ];
  for (const [name, url, otherwise] of wanted) {
    if (!url && !(await findServer(name))) {
      say(`fetching ${name} …`);
      await fetchServer(name).catch(({ message }) => (otherwise ? say(`${message}; ${otherwise}`) : fail(message)));
    }
  }
}

if (Number.parseInt(process.versions.node, 10) < LEAST_NODE) fail(`Node ${LEAST_NODE} or newer is needed; this is ${process.version}`);
const stamp = stampOfLock();
const isInstalled = existsSync(STAMP) && readFileSync(STAMP, "utf8") === stamp;
if (!isInstalled) installDependencies(stamp);
if (process.features.typescript) await getServers();
else process.exitCode = spawnSync(OWN_NODE, [fileURLToPath(import.meta.url)], { stdio: "inherit" }).status ?? 1;
