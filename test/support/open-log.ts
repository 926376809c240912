import type { Db, MongoClient } from "mongodb";
import { type Appender, type AppenderOptions, createAppender } from "../../src/log/appender.ts";
import { createLogClient } from "../../src/log/log-client.ts";
import { createLogReader, type LogReader } from "../../src/log/reader.ts";
import { createLogger } from "../../src/logger.ts";

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
  const appender = createAppender(client, db, { ...OPTIONS, ...options }, createLogger("silent"));
  return {
    client,
    db,
    appender,
    reader: createLogReader(db, appender.onAppended),
    async [Symbol.asyncDispose]() {
      await appender.close();
      await client.close();
    },
  };
}
