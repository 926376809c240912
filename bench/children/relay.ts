import { MongoClient } from "mongodb";
import { connect, type JetStreamManager, StorageType } from "nats";
import { pino } from "pino";
import { MAX_IN_FLIGHT } from "../../src/live/mirror-publisher.ts";
import { startRelay } from "../../src/live/relay.ts";
import { eventStreamName } from "../../src/live/subjects.ts";
import { EVENTS_COLLECTION, type StoredEvent } from "../../src/log/log-entry.ts";
import { createLogReader } from "../../src/log/reader.ts";
import { startNatsClient } from "../../src/nats/nats-client.ts";
import { serveParent } from "../child.ts";

type Knowledge = { readonly mongodbUrl: string; readonly database: string; readonly natsUrl: string; readonly by: "relay" | "publish" };

const PREFIX = "bench";
const BARE = "bare";
const LOOK_MS = 5;

/** Brings a log of so many entries into a new stream, and answers how many a second. */
await serveParent<Knowledge, number, { perSecond: number }>(async ({ mongodbUrl, database, natsUrl, by }) => {
  const client = await new MongoClient(mongodbUrl).connect();
  const db = client.db(database);
  const connection = await connect({ servers: natsUrl });
  const manager = await connection.jetstreamManager();
  const documents = by === "publish" ? await db.collection<StoredEvent>(EVENTS_COLLECTION).find().sort({ _id: 1 }).toArray() : [];
  const payloads = documents.map(({ body }) => new Uint8Array(body.value()));

  async function publishAll(): Promise<void> {
    await manager.streams.add({ name: BARE, subjects: [`${BARE}.>`], storage: StorageType.File });
    const jetstream = connection.jetstream();
    let next = 0;
    const lane = async () => {
      for (let index = next++; index < payloads.length; index = next++) await jetstream.publish(`${BARE}.order`, payloads[index]);
    };
    await Promise.all(Array.from({ length: MAX_IN_FLIGHT }, lane));
  }

  async function relayAll(entries: number): Promise<void> {
    const logger = pino({ level: "warn" }, process.stderr);
    const nats = startNatsClient({ url: natsUrl, tlsFiles: { caFile: undefined, certFile: undefined, keyFile: undefined } }, logger);
    await nats.check();
    const settings = { prefix: PREFIX, maxAgeSeconds: 0, maxBytes: 0, replicas: 1 };
    const relay = startRelay({ nats, reader: createLogReader(db), settings, logger });
    await untilLast(manager, eventStreamName(PREFIX), entries);
    await relay.stop();
    await nats.stop();
  }

  return {
    async answer(entries) {
      const started = performance.now();
      await (by === "relay" ? relayAll(entries) : publishAll());
      const seconds = (performance.now() - started) / 1000;
      await manager.streams.delete(by === "relay" ? eventStreamName(PREFIX) : BARE);
      return { perSecond: entries / seconds };
    },
    async close() {
      await connection.close();
      await client.close();
    },
  };
});

async function untilLast(manager: JetStreamManager, stream: string, sequence: number): Promise<void> {
  for (;;) {
    const info = await manager.streams.info(stream).catch(() => undefined);
    if ((info?.state.last_seq ?? 0) >= sequence) return;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}
