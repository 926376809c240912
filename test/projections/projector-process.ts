import { MongoClient } from "mongodb";
import { createLogReader } from "../../src/log/reader.ts";
import { checkpointsOf } from "../../src/projections/checkpoint.ts";
import { ORDER_TRACKING } from "../../src/projections/order-tracking.ts";
import { orderTracking, projectorOf } from "./orders.ts";

/**
 * A process that runs the projector until it is killed, or, told to `rebuild`, until the rebuild that is wanted is done.
 * Told a number, it kills itself, as `kill -9` would, when it is about to send its database command of that number; told
 * "before" or "after" and the name of a command, when it is about to send that, or as soon as that has been carried out.
 */
const [url = "", database = "", leaseMs = "", until = "", killAt = ""] = process.argv.slice(2);
const client = new MongoClient(url, { monitorCommands: true });
const die = () => process.kill(process.pid, "SIGKILL");

let commands = 0;
client.on("commandStarted", ({ commandName }) => {
  commands++;
  if (commands === Number(killAt) || killAt === `before ${commandName}`) die();
});
client.on("commandSucceeded", ({ commandName }) => {
  if (killAt === `after ${commandName}`) die();
});

const db = client.db(database);
const reader = createLogReader(db);
const projector = projectorOf({ db, reader }, { leaseMs: Number(leaseMs), projection: orderTracking(db, reader) });
projector.start();
process.stdout.write("started\n");
if (until === "rebuild") {
  // A client of its own, so that asking does not count.
  await using asking = new MongoClient(url);
  const wanted = () => checkpointsOf(asking.db(database)).findOne({ _id: ORDER_TRACKING, rebuild: { $ne: null } });
  while ((await wanted()) !== null) await new Promise((resolve) => setTimeout(resolve, 10));
  await projector.stop();
  await client.close();
  process.stdout.write(`${commands}\n`);
}
