import { MongoClient } from "mongodb";
import { pino } from "pino";
import { createAdvisoryWriter } from "../../src/log/advisory-writer.ts";
import { createAppender } from "../../src/log/appender.ts";
import { ensureLogIndexes } from "../../src/log/indexes.ts";
import { createForwarding, serveAppendRequests } from "../../src/nats/append-requests.ts";
import { startNatsClient } from "../../src/nats/nats-client.ts";
import { runKeeper } from "../audit-keeper.ts";
import { serveParent } from "../child.ts";
import { drive, type Load, type LoadFigures } from "../load.ts";
import { createIdentifiers, smallEntry } from "../small-entry.ts";

/** Where the log is; NATS, if processes let one of them append for all; if the tree is to be kept meanwhile, a folder for the keys that sign it. */
type Knowledge = {
  readonly mongodbUrl: string;
  readonly database: string;
  readonly natsUrl?: string;
  readonly tree?: { readonly folder: string };
};

const NO_FILES = { caFile: undefined, certFile: undefined, keyFile: undefined };

/** Appends small entries to the log in a database by Ordertrail's appender. */
await serveParent<Knowledge, Load, LoadFigures>(async ({ mongodbUrl, database, natsUrl, tree }) => {
  const client = await new MongoClient(mongodbUrl).connect();
  const db = client.db(database);
  await ensureLogIndexes(db);
  const limits = { maxQueuedEntries: 10_000, maxQueuedBytes: 64 * 1024 * 1024, patienceMs: 5000 };
  const logger = pino({ level: "warn" }, process.stderr);
  const self = String(process.pid);
  const nats = natsUrl === undefined ? undefined : startNatsClient({ url: natsUrl, tlsFiles: NO_FILES }, logger);
  await nats?.check();
  const advisory = createAdvisoryWriter(db, self, logger);
  const appender = createAppender(client, db, limits, logger, nats && createForwarding(nats, advisory, database, logger));
  if (nats) serveAppendRequests(nats, appender, self, database, logger);
  const identifier = createIdentifiers();
  const keeper = tree && (await runKeeper(db, tree.folder, appender.onAppended));
  return {
    answer: (load) => drive(() => appender.append(smallEntry(identifier())), load),
    async close() {
      await appender.close();
      await advisory.stop();
      await nats?.stop();
      await keeper?.stop();
      await client.close();
    },
  };
});
