import { MongoClient } from "mongodb";
import { pino } from "pino";
import { createAppender } from "../../src/log/appender.ts";
import { ensureLogIndexes } from "../../src/log/indexes.ts";
import { serveParent } from "../child.ts";
import { drive, type Load, type LoadFigures } from "../load.ts";
import { createIdentifiers, smallEntry } from "../small-entry.ts";

/** Appends small entries to the log in a database by Ordertrail's appender. */
await serveParent<{ readonly mongodbUrl: string; readonly database: string }, Load, LoadFigures>(async ({ mongodbUrl, database }) => {
  const client = await new MongoClient(mongodbUrl).connect();
  const db = client.db(database);
  await ensureLogIndexes(db);
  const limits = { maxQueuedEntries: 10_000, maxQueuedBytes: 64 * 1024 * 1024, patienceMs: 5000 };
  const appender = createAppender(client, db, limits, pino({ level: "warn" }, process.stderr));
  const identifier = createIdentifiers();
  return {
    answer: (load) => drive(() => appender.append(smallEntry(identifier())), load),
    async close() {
      await appender.close();
      await client.close();
    },
  };
});
