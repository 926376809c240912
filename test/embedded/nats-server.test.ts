import { describe, expect, it } from "vitest";
import { startNatsServer } from "../../src/embedded/nats-server.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

describe("startNatsServer", () => {
  it("comes back on its port, and stops the server that an earlier owner left running in the folder", async () => {
    await using folder = await temporaryFolder();
    const leftOver = await startNatsServer({ dataDir: folder.path });
    const server = await startNatsServer({ dataDir: folder.path });
    await leftOver.exited;
    expect(server.port).toBe(leftOver.port);
    await server.stop();
  });

  it("refuses a port that another program has", async () => {
    await using folder = await temporaryFolder();
    const server = await startNatsServer({ dataDir: `${folder.path}/one` });
    await expect(startNatsServer({ dataDir: `${folder.path}/two`, port: server.port })).rejects.toThrow("EADDRINUSE");
    await server.stop();
  });
});
