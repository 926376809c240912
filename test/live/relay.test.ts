import { rm } from "node:fs/promises";
import { connect } from "nats";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type NatsServer, startNatsServer } from "../../src/embedded/nats-server.ts";
import { createNews } from "../../src/live/news.ts";
import { startRelay } from "../../src/live/relay.ts";
import { eventStreamName } from "../../src/live/subjects.ts";
import { ensureLogIndexes } from "../../src/log/indexes.ts";
import { EVENTS_COLLECTION } from "../../src/log/log-entry.ts";
import { createLogReader } from "../../src/log/reader.ts";
import { createLogger } from "../../src/logger.ts";
import { startNatsClient } from "../../src/nats/nats-client.ts";
import { eventually } from "../support/eventually.ts";
import { anEntry } from "../support/log.ts";
import { testDatabase } from "../support/mongo.ts";
import { openLog } from "../support/open-log.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { expectMirrorEqualsLog, readMirror } from "./mirror.ts";

const NO_FILES = { caFile: undefined, certFile: undefined, keyFile: undefined };
const PREFIX = "test";
const logger = createLogger("silent");

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let nats: NatsServer;

beforeEach(async () => {
  folder = await temporaryFolder();
  nats = await startNatsServer({ dataDir: folder.path });
});
afterEach(async () => {
  await nats.kill();
  await folder[Symbol.asyncDispose]();
});

/** A log with a connection to NATS, as one process has them; it relays when asked to. */
async function startProcess(database: { readonly url: string; readonly name: string }, relays = true, maxAgeSeconds = 0) {
  const log = openLog(database.url, database.name);
  const client = startNatsClient({ url: nats.url, tlsFiles: NO_FILES }, logger);
  const news = createNews(client, PREFIX, log.appender.onAppended);
  const reader = createLogReader(log.db, log.appender.onAppended, news.onNews);
  const settings = { prefix: PREFIX, maxAgeSeconds, maxBytes: 0, replicas: 1 };
  const relay = relays ? startRelay({ nats: client, reader, settings, logger }) : undefined;
  return {
    ...log,
    reader,
    relay,
    nats: client,
    async [Symbol.asyncDispose]() {
      await relay?.stop();
      await log.appender.close();
      await client.stop();
      await log.client.close();
    },
  };
}

async function stateOfMirror() {
  const connection = await connect({ servers: `127.0.0.1:${nats.port}` });
  try {
    return (await (await connection.jetstreamManager()).streams.info(eventStreamName(PREFIX))).state;
  } finally {
    await connection.close();
  }
}

async function aLog() {
  const database = await testDatabase();
  await ensureLogIndexes(database.db);
  return database;
}

const appendSome = (log: Awaited<ReturnType<typeof startProcess>>, name: string, count = 100) =>
  Promise.all(Array.from({ length: count }, (_, index) => log.appender.append(anEntry(`order-${name}-${index}`, 1))));

describe("the mirror of the log in JetStream", () => {
  it("has every entry once, in order, with the bytes of the log, its position and its types", async () => {
    await using database = await aLog();
    await using process = await startProcess(database);
    await appendSome(process, "a", 500);
    await appendSome(process, "b", 500);
    expect(await expectMirrorEqualsLog(nats.port, PREFIX, process)).toBe(1000);
    const [first] = await readMirror(nats.port, PREFIX);
    expect(first?.header?.get("Ordertrail-Types")).toMatch(/^[A-Za-z,]+$/);
    await process.relay?.check();
  });

  it("is made by one of several relays at a time, and another goes on where that one ends", async () => {
    await using database = await aLog();
    const first = await startProcess(database);
    await using second = await startProcess(database);
    await Promise.all([appendSome(first, "a", 300), appendSome(second, "b", 300)]);
    await expectMirrorEqualsLog(nats.port, PREFIX, second);
    await first[Symbol.asyncDispose]();
    await appendSome(second, "c", 300);
    expect(await expectMirrorEqualsLog(nats.port, PREFIX, second)).toBe(900);
  });

  it("catches up when NATS was away from the start, and when it was away for a while", async () => {
    await nats.kill();
    await using database = await aLog();
    await using process = await startProcess(database);
    await appendSome(process, "a");
    await expect(process.relay?.check()).rejects.toThrow("the log is not mirrored: 100 entries behind");
    nats = await startNatsServer({ dataDir: folder.path, port: nats.port });
    expect(await expectMirrorEqualsLog(nats.port, PREFIX, process)).toBe(100);
    await nats.kill();
    await appendSome(process, "b");
    nats = await startNatsServer({ dataDir: folder.path, port: nats.port });
    expect(await expectMirrorEqualsLog(nats.port, PREFIX, process)).toBe(200);
    await eventually(() => process.relay?.check());
  });

  it("is made again after JetStream's data is deleted, and after its stream is", async () => {
    await using database = await aLog();
    await using process = await startProcess(database);
    await appendSome(process, "a");
    await expectMirrorEqualsLog(nats.port, PREFIX, process);
    await nats.kill();
    await rm(folder.path, { recursive: true });
    nats = await startNatsServer({ dataDir: folder.path, port: nats.port });
    await appendSome(process, "b");
    expect(await expectMirrorEqualsLog(nats.port, PREFIX, process)).toBe(200);

    const connection = await connect({ servers: `127.0.0.1:${nats.port}` });
    await (await connection.jetstreamManager()).streams.delete(eventStreamName(PREFIX));
    await connection.close();
    await appendSome(process, "c");
    expect(await expectMirrorEqualsLog(nats.port, PREFIX, process)).toBe(300);
  });

  it("goes on behind what is kept no longer", async () => {
    await using database = await aLog();
    await using process = await startProcess(database, true, 3);
    await appendSome(process, "a");
    await eventually(async () => expect(await stateOfMirror()).toMatchObject({ last_seq: 100, messages: 0 }), 15_000);
    await nats.kill();
    nats = await startNatsServer({ dataDir: folder.path, port: nats.port });
    await appendSome(process, "b");
    await eventually(async () => expect((await stateOfMirror()).last_seq).toBe(200));
    expect((await stateOfMirror()).first_seq).toBeGreaterThan(100);
  });

  it("is made anew when somebody has purged it", async () => {
    await using database = await aLog();
    await using process = await startProcess(database);
    await appendSome(process, "a");
    await expectMirrorEqualsLog(nats.port, PREFIX, process);
    const connection = await connect({ servers: `127.0.0.1:${nats.port}` });
    await (await connection.jetstreamManager()).streams.purge(eventStreamName(PREFIX));
    await connection.close();
    await eventually(() => expectMirrorEqualsLog(nats.port, PREFIX, process), 15_000);
    await appendSome(process, "b");
    await expectMirrorEqualsLog(nats.port, PREFIX, process);
  });

  it("is made anew when it is one of another log", async () => {
    await using database = await aLog();
    const before = await startProcess(database);
    await appendSome(before, "a");
    await expectMirrorEqualsLog(nats.port, PREFIX, before);
    await before[Symbol.asyncDispose]();
    await database.db.collection(EVENTS_COLLECTION).deleteMany({});
    await using process = await startProcess(database);
    await appendSome(process, "b", 150);
    expect(await expectMirrorEqualsLog(nats.port, PREFIX, process)).toBe(150);
  });
});

describe("news of the log", () => {
  it("reaches a follower in another process long before its next look", async () => {
    await using database = await aLog();
    await using writer = await startProcess(database, false);
    await using follower = await startProcess(database, false);
    await Promise.all([eventually(() => writer.nats.check()), eventually(() => follower.nats.check())]);
    const ending = new AbortController();
    const seen = new Map<number, number>();
    const following = (async () => {
      for await (const { entries } of follower.reader.follow({ after: 0, signal: ending.signal }))
        for (const { position } of entries) seen.set(position, performance.now());
    })().catch(() => undefined);
    const delays: number[] = [];
    for (let count = 1; count <= 20; count++) {
      // The pause between looks grows to a quarter of a second when nothing comes.
      await new Promise((resolve) => setTimeout(resolve, 150));
      const position = await writer.appender.append(anEntry(`order-${count}`, 1));
      const appended = performance.now();
      await eventually(() => expect(seen.has(position)).toBe(true));
      delays.push((seen.get(position) ?? Number.POSITIVE_INFINITY) - appended);
    }
    ending.abort();
    await following;
    expect(delays.toSorted((a, b) => a - b)[10]).toBeLessThan(60);
  });
});
