import { readdir } from "node:fs/promises";
import { Valkey } from "iovalkey";
import { describe, expect, it } from "vitest";
import { startValkeyServer } from "../../src/embedded/valkey-server.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

describe("startValkeyServer", () => {
  it("comes back on its port, and stops the server that an earlier owner left running in the folder", async () => {
    await using folder = await temporaryFolder();
    const leftOver = await startValkeyServer({ dataDir: folder.path });
    const server = await startValkeyServer({ dataDir: folder.path });
    await leftOver.exited;
    expect(server.port).toBe(leftOver.port);
    await server.stop();
  });

  it("refuses a port that another program has", async () => {
    await using folder = await temporaryFolder();
    const server = await startValkeyServer({ dataDir: `${folder.path}/one` });
    await expect(startValkeyServer({ dataDir: `${folder.path}/two`, port: server.port })).rejects.toThrow("EADDRINUSE");
    await server.stop();
  });

  it("writes none of what it holds to its folder", async () => {
    await using folder = await temporaryFolder();
    const server = await startValkeyServer({ dataDir: folder.path });
    const client = new Valkey(server.url);
    await client.set("held", "in memory");
    client.disconnect();
    await server.stop();
    expect((await readdir(folder.path)).toSorted()).toEqual(["valkey-server.log", "valkey-server.port"]);
  });
});
