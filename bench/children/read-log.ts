import { MongoClient } from "mongodb";
import { createLogReader } from "../../src/log/reader.ts";
import { serveParent } from "../child.ts";

/** Reads the log of a database, up to a position, with everything in it decoded; answers how many entries it got. */
await serveParent<{ readonly mongodbUrl: string; readonly database: string }, { readonly to: number }, number>(
  async ({ mongodbUrl, database }) => {
    const client = await new MongoClient(mongodbUrl).connect();
    const reader = createLogReader(client.db(database));
    return {
      async answer({ to }) {
        let entries = 0;
        for await (const batch of reader.readForward({ after: 0, to })) entries += batch.length;
        return entries;
      },
      close: () => client.close(),
    };
  },
);
