import { MongoClient } from "mongodb";
import { pino } from "pino";
import { createAppender } from "../../src/log/appender.ts";
import { ensureLogIndexes } from "../../src/log/indexes.ts";
import { runKeeper } from "../audit-keeper.ts";
import { serveParent } from "../child.ts";
import { drive, type Load, type LoadFigures } from "../load.ts";
import { createIdentifiers, smallEntry } from "../small-entry.ts";

/** Where the log is, and, if its tree is to be kept meanwhile, a folder for the keys that sign it. */
type Knowledge = { readonly mongodbUrl: string; readonly database: string; readonly tree?: { readonly folder: string } };

/** Appends small entries to the log in a database by Ordertrail's appender. */
await serveParent<Knowledge, Load, LoadFigures>(async ({ mongodbUrl, database, tree }) => {
  const client = await new MongoClient(mongodbUrl).connect();
  const db = client.db(database);
  await ensureLogIndexes(db);
  const limits = { maxQueuedEntries: 10_000, maxQueuedBytes: 64 * 1024 * 1024, patienceMs: 5000 };
  const appender = createAppender(client, db, limits, pino({ level: "warn" }, process.stderr));
  const identifier = createIdentifiers();
  const keeper = tree && (await runKeeper(db, tree.folder, appender.onAppended));
  return {
    answer: (load) => drive(() => appender.append(smallEntry(identifier())), load),
    async close() {
      await appender.close();
      await keeper?.stop();
      await client.close();
    },
  };
});
