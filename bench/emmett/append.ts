import { getMongoDBEventStore } from "@event-driven-io/emmett-mongodb";
import { MongoClient } from "mongodb";
import { serveParent } from "../child.ts";
import { drive, type Load, type LoadFigures } from "../load.ts";
import { createIdentifiers, SMALL_EVENT } from "../small-entry.ts";

/**
 * Appends one event a stream by emmett, with the same durability and the same facts as Ordertrail's small entry.
 * It lies here so that it gets this folder's own driver, the newest that emmett takes.
 */
await serveParent<{ readonly mongodbUrl: string; readonly database: string }, Load, LoadFigures>(async ({ mongodbUrl, database }) => {
  const client = await new MongoClient(mongodbUrl, { writeConcern: { w: "majority", journal: true } }).connect();
  const store = getMongoDBEventStore({ client, storage: { type: "COLLECTION_PER_STREAM_TYPE", databaseName: database } });
  const identifier = createIdentifiers();
  const { type, ...circumstances } = SMALL_EVENT;

  function appendOne(): Promise<unknown> {
    const id = identifier();
    const metadata = { ...circumstances, recordedAt: new Date(), requestId: `request-${id}`, correlationId: `trace-${id}` };
    return store.appendToStream(`order:${id}`, [{ type, data: {}, metadata }], { expectedStreamVersion: "STREAM_DOES_NOT_EXIST" });
  }

  // Its first append makes the collection and its index.
  await appendOne();
  return { answer: (load) => drive(appendOne, load), close: () => client.close() };
});
