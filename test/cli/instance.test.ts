import { stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { claimInstance, findInstance, InstanceRunningError } from "../../src/cli/instance.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const ADDRESSES = { grpc: "127.0.0.1:1", http: "http://127.0.0.1:2", mongodb: "mongodb://127.0.0.1:3", nats: "nats://127.0.0.1:4" };

describe("claimInstance", () => {
  it("lets one of many succeed, and tells the others which", async () => {
    await using folder = await temporaryFolder();
    const claims = await Promise.allSettled(Array.from({ length: 20 }, () => claimInstance(folder.path)));
    const refused = claims.filter((claim) => claim.status === "rejected").map(({ reason }) => reason as InstanceRunningError);
    expect(refused).toHaveLength(19);
    for (const error of refused) expect(error).toBeInstanceOf(InstanceRunningError);
    expect(refused[0]?.message).toContain(`process ${process.pid}, it is still starting`);
  });

  it("tells others where the instance is reached, and only its owner may read it", async () => {
    await using folder = await temporaryFolder();
    const lock = await claimInstance(folder.path);
    expect((await findInstance(folder.path))?.addresses).toBeUndefined();
    await lock.publish(ADDRESSES);
    expect(await findInstance(folder.path)).toMatchObject({ pid: process.pid, addresses: ADDRESSES });
    expect((await stat(join(folder.path, "instance.json"))).mode & 0o777).toBe(0o600);
    await lock.release();
    expect(await findInstance(folder.path)).toBeUndefined();
  });

  it.each([
    ["a killed instance", { pid: 4_194_304, startedAt: "1" }],
    ["one whose process id has been given to another", { pid: process.pid, startedAt: "1" }],
  ])("does not count what is left of %s, for however many that claim it", async (_, leftOver) => {
    await using folder = await temporaryFolder();
    await writeFile(join(folder.path, "instance.json"), JSON.stringify(leftOver));
    expect(await findInstance(folder.path)).toBeUndefined();
    const claims = await Promise.allSettled(Array.from({ length: 20 }, () => claimInstance(folder.path)));
    expect(claims.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  });
});
