import { MongoClient } from "mongodb";
import { ensureLogIndexes } from "../src/log/indexes.ts";
import { EVENTS_COLLECTION, type StoredEvent, toStored } from "../src/log/log-entry.ts";
import { orderLives } from "./order-lives.ts";

/** A log that has been made, by the name of its database. */
export type PreparedLog = { readonly database: string; readonly entries: number; readonly events: number };

const BATCH = 2000;

/**
 * Fills the log of a database with the lives of orders. Nobody else writes it meanwhile, so it is inserted in bulk instead of
 * being appended: the documents are the same.
 */
export async function prepareLog(mongodbUrl: string, database: string, entries: number): Promise<PreparedLog> {
  const client = await new MongoClient(mongodbUrl).connect();
  try {
    const db = client.db(database);
    await ensureLogIndexes(db);
    const collection = db.collection<StoredEvent>(EVENTS_COLLECTION);
    let events = 0;
    let position = 0;
    let batch: StoredEvent[] = [];
    let inserted: Promise<unknown> = Promise.resolve();
    for (const lived of orderLives(entries)) {
      events += lived.events;
      batch.push(toStored(lived.encoded, ++position));
      if (batch.length < BATCH && position < entries) continue;
      // The next batch is made while the server takes this one.
      await inserted;
      inserted = collection.insertMany(batch, { ordered: true });
      batch = [];
    }
    await inserted;
    return { database, entries, events };
  } finally {
    await client.close();
  }
}
