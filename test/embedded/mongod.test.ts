import { once } from "node:events";
import { createServer } from "node:net";
import { MongoClient } from "mongodb";
import { describe, expect, it } from "vitest";
import { startMongod } from "../../src/embedded/mongod.ts";
import { identifyProcess } from "../../src/embedded/process-identity.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

describe("startMongod", () => {
  it("keeps what was acknowledged through SIGKILL, and comes back on its port", async () => {
    await using folder = await temporaryFolder();
    const first = await startMongod({ dataDir: folder.path, cacheSizeMib: 256 });
    await insertOne(first.url);
    await first.kill();

    const second = await startMongod({ dataDir: folder.path, cacheSizeMib: 256 });
    expect(second.port).toBe(first.port);
    expect(await countDocuments(second.url)).toBe(1);
    await second.kill();
  });

  it("comes back on another port when its own is taken", async () => {
    await using folder = await temporaryFolder();
    const first = await startMongod({ dataDir: folder.path, cacheSizeMib: 256 });
    await insertOne(first.url);
    await first.stop();

    const other = createServer((socket) => socket.destroy()).listen(first.port, "127.0.0.1");
    await once(other, "listening");
    const second = await startMongod({ dataDir: folder.path, cacheSizeMib: 256 });
    other.close();
    expect(second.port).not.toBe(first.port);
    await insertOne(second.url);
    expect(await countDocuments(second.url)).toBe(2);
    await second.kill();
  });

  it("stops the server that an earlier owner left running in the folder", async () => {
    await using folder = await temporaryFolder();
    const leftOver = await startMongod({ dataDir: folder.path, cacheSizeMib: 256 });
    const mongod = await startMongod({ dataDir: folder.path, cacheSizeMib: 256 });
    expect(await leftOver.exited).toEqual({ code: 0, signal: null });
    expect(identifyProcess(leftOver.pid)).toBeUndefined();
    await mongod.stop();
    expect(identifyProcess(mongod.pid)).toBeUndefined();
  });

  it("refuses a port that another program has", async () => {
    await using folder = await temporaryFolder();
    const mongod = await startMongod({ dataDir: `${folder.path}/one`, cacheSizeMib: 256 });
    const start = startMongod({ dataDir: `${folder.path}/two`, port: mongod.port });
    await expect(start).rejects.toThrow("EADDRINUSE");
    await mongod.kill();
  });
});

async function insertOne(url: string): Promise<void> {
  await using client = new MongoClient(url);
  await client
    .db("test")
    .collection("kept")
    .insertOne({}, { writeConcern: { w: "majority", journal: true } });
}

async function countDocuments(url: string): Promise<number> {
  await using client = new MongoClient(url);
  return await client.db("test").collection("kept").countDocuments();
}
