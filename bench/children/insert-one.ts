import { MongoClient } from "mongodb";
import { type StoredEvent, toStored } from "../../src/log/log-entry.ts";
import { serveParent } from "../child.ts";
import { drive, type Load, type LoadFigures } from "../load.ts";
import { createIdentifiers, smallEntry } from "../small-entry.ts";

/**
 * What one would write first: an `insertOne` for each entry, as durable as Ordertrail's, of the very documents that
 * Ordertrail stores, into a collection with the same indexes. One process counts the positions, so it has no conflicts.
 */
await serveParent<{ readonly mongodbUrl: string; readonly database: string }, Load, LoadFigures>(async ({ mongodbUrl, database }) => {
  const client = await new MongoClient(mongodbUrl).connect();
  const collection = client.db(database).collection<StoredEvent>("insert_one");
  await collection.createIndex({ stream: 1, version: 1 }, { unique: true });
  const writeConcern = { w: "majority", j: true } as const;
  const identifier = createIdentifiers();
  let position = 0;
  return {
    answer: (load) => drive(() => collection.insertOne(toStored(smallEntry(identifier()), ++position), { writeConcern }), load),
    close: () => client.close(),
  };
});
