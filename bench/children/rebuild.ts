import { type Db, Long, MongoClient } from "mongodb";
import { pino } from "pino";
import { createLogReader } from "../../src/log/reader.ts";
import { checkpointsOf, createCheckpoint } from "../../src/projections/checkpoint.ts";
import { createDriverLocations } from "../../src/projections/driver-locations.ts";
import { createOrderTrackingProjection, ORDER_TRACKING } from "../../src/projections/order-tracking.ts";
import type { Projection } from "../../src/projections/projection.ts";
import { createProjector } from "../../src/projections/projector.ts";
import { serveParent } from "../child.ts";

/** How long a rebuild took as whoever asked for it saw it, and the most memory that the process held in either half of that time. */
export type Rebuild = { readonly seconds: number; readonly firstHalfMib: number; readonly secondHalfMib: number };

const SAMPLE_MS = 20;
const LEASE_MS = 10_000;
const MIB = 1024 * 1024;

/** Runs the projection `order_tracking` of a database, which has nothing to catch up with, and has it rebuilt. */
await serveParent<{ readonly mongodbUrl: string; readonly database: string }, "rebuild", Rebuild>(async ({ mongodbUrl, database }) => {
  const client = await new MongoClient(mongodbUrl).connect();
  const db = client.db(database);
  const reader = createLogReader(db);
  const locations = createDriverLocations(db, ORDER_TRACKING);
  const logger = pino({ level: "warn" }, process.stderr);
  const projection = createOrderTrackingProjection(db, reader, locations);
  await standAtHead(db, projection, await reader.head());
  const projector = createProjector({ db, reader, logger, leaseMs: LEASE_MS }, [projection]);
  const never = new AbortController().signal;
  projector.start();

  return {
    async answer() {
      const held: number[] = [];
      const sampling = setInterval(() => held.push(process.memoryUsage.rss() / MIB), SAMPLE_MS);
      const began = performance.now();
      for await (const { done } of projector.rebuild(ORDER_TRACKING, never)) if (done) break;
      const seconds = (performance.now() - began) / 1000;
      clearInterval(sampling);
      const middle = Math.ceil(held.length / 2);
      return { seconds, firstHalfMib: Math.max(...held.slice(0, middle)), secondHalfMib: Math.max(...held.slice(middle)) };
    },
    async close() {
      await projector.stop();
      await client.close();
    },
  };
});

/** Makes an empty live copy pass for one that has the whole log: a rebuild looks at nothing of it, and filling it would take minutes. */
async function standAtHead(db: Db, { name, collection, revision }: Projection, head: number): Promise<void> {
  await db.createCollection(collection);
  const checkpoints = checkpointsOf(db);
  await createCheckpoint(checkpoints, name, revision);
  await checkpoints.updateOne({ _id: name }, { $set: { position: Long.fromNumber(head) } });
}
