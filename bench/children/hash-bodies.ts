import { hash } from "node:crypto";
import { MongoClient } from "mongodb";
import { readBodies } from "../../src/log/body-reader.ts";
import { serveParent } from "../child.ts";

/** Reads the bodies of a log by the same cursor as the keeper of its tree, and hashes each once; answers how many milliseconds that took. */
await serveParent<{ readonly mongodbUrl: string; readonly database: string }, { readonly to: number }, number>(
  async ({ mongodbUrl, database }) => {
    const client = await new MongoClient(mongodbUrl).connect();
    const db = client.db(database);
    return {
      async answer({ to }) {
        const began = performance.now();
        let hashed = 0;
        for await (const bodies of readBodies(db, { from: 1, to, batchSize: 2000 })) {
          for (const { body } of bodies) {
            hash("sha256", body, "buffer");
            hashed++;
          }
        }
        if (hashed !== to) throw new Error(`${hashed} entries were read of ${to}`);
        return performance.now() - began;
      },
      close: () => client.close(),
    };
  },
);
