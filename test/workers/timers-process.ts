import { MongoClient } from "mongodb";
import { evolve, orderStream } from "../../src/domain/order.ts";
import { createAppender } from "../../src/log/appender.ts";
import { createLogReader } from "../../src/log/reader.ts";
import { createTransactor } from "../../src/log/transact.ts";
import { createUnchangedCommands } from "../../src/log/unchanged-commands.ts";
import { createLogger } from "../../src/logger.ts";
import { createDeadlines } from "../../src/projections/deadlines.ts";
import { createTimers } from "../../src/workers/timers.ts";

/**
 * A process that acts on all that is due by a time, and kills itself, as `kill -9` would, when it is about to send its database
 * command of the number told, or as soon as that has been carried out. Untroubled, it prints how many commands it sent.
 */
const [url = "", database = "", at = "", killAt = "", when = ""] = process.argv.slice(2);
const client = new MongoClient(url, { monitorCommands: true });
let commands = 0;
const die = () => process.kill(process.pid, "SIGKILL");
client.on("commandStarted", () => {
  commands++;
  if (commands === Number(killAt) && when === "before") die();
});
client.on("commandSucceeded", () => {
  if (commands === Number(killAt) && when === "after") die();
});

const db = client.db(database);
const logger = createLogger("silent");
const appender = createAppender(client, db, { maxQueuedEntries: 1000, maxQueuedBytes: 1_000_000, patienceMs: 5000 }, logger);
const clock = () => new Date(at);
const orders = createTransactor(
  { streamOf: orderStream, evolve },
  appender,
  createLogReader(db, appender.onAppended),
  createUnchangedCommands(db, clock),
  { cachedStreams: 1000, now: clock },
);
await createTimers({ deadlines: createDeadlines(db), orders, clock, logger }).act(AbortSignal.timeout(60_000));
await appender.close();
await client.close();
process.stdout.write(`${commands}\n`);
