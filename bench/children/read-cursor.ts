import { Long, MongoClient } from "mongodb";
import { EVENTS_COLLECTION, type StoredEvent } from "../../src/log/log-entry.ts";
import { serveParent } from "../child.ts";

/** Reads the same documents as the log's reader by a bare cursor, whole and as the driver gives them; answers how many it got. */
await serveParent<{ readonly mongodbUrl: string; readonly database: string }, { readonly to: number }, number>(
  async ({ mongodbUrl, database }) => {
    const client = await new MongoClient(mongodbUrl).connect();
    const events = client.db(database).collection<StoredEvent>(EVENTS_COLLECTION);
    return {
      async answer({ to }) {
        let documents = 0;
        for await (const _ of events.find({ _id: { $lte: Long.fromNumber(to) } }, { readConcern: "majority" }).sort({ _id: 1 }))
          documents++;
        return documents;
      },
      close: () => client.close(),
    };
  },
);
