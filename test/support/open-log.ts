import { randomBytes } from "node:crypto";
import type { Db, MongoClient } from "mongodb";
import { createAdvisoryWriter } from "../../src/log/advisory-writer.ts";
import { type Appender, type AppenderOptions, createAppender } from "../../src/log/appender.ts";
import { createLogClient } from "../../src/log/log-client.ts";
import { createLogReader, type LogReader } from "../../src/log/reader.ts";
import { createLogger } from "../../src/logger.ts";
import { createForwarding, serveAppendRequests } from "../../src/nats/append-requests.ts";
import { startNatsClient } from "../../src/nats/nats-client.ts";

/** One process's connection to a log: what the application builds of it. */
export type LogAccess = AsyncDisposable & {
  readonly client: MongoClient;
  readonly db: Db;
  readonly appender: Appender;
  readonly reader: LogReader;
};

const OPTIONS: AppenderOptions = { maxQueuedEntries: 10_000, maxQueuedBytes: 64 * 1024 * 1024, patienceMs: 20_000 };

/** Opens the log in a database, as a process of its own would. */
export function openLog(url: string, database: string, options: Partial<AppenderOptions> = {}, client = createLogClient(url)): LogAccess {
  const db = client.db(database);
  return access(client, db, createAppender(client, db, { ...OPTIONS, ...options }, createLogger("silent")));
}

/** The same, where the processes let one of them append for all; this one calls itself by its process id and a number. */
export function openSharedLog(url: string, database: string, natsUrl: string, options: Partial<AppenderOptions> = {}): LogAccess {
  const client = createLogClient(url);
  const db = client.db(database);
  const logger = createLogger("silent");
  const self = `${process.pid}-${randomBytes(8).toString("hex")}`;
  const nats = startNatsClient({ url: natsUrl, tlsFiles: { caFile: undefined, certFile: undefined, keyFile: undefined } }, logger);
  const advisory = createAdvisoryWriter(db, self, logger);
  const appender = createAppender(client, db, { ...OPTIONS, ...options }, logger, createForwarding(nats, advisory, database, logger));
  serveAppendRequests(nats, appender, self, database, logger);
  return access(client, db, appender, async () => {
    await advisory.stop();
    await nats.stop();
  });
}

function access(client: MongoClient, db: Db, appender: Appender, stop?: () => Promise<void>): LogAccess {
  return {
    client,
    db,
    appender,
    reader: createLogReader(db, appender.onAppended),
    async [Symbol.asyncDispose]() {
      await appender.close();
      await stop?.();
      await client.close();
    },
  };
}
