import { MongoClient } from "mongodb";
import { forgetTree, runKeeper } from "../audit-keeper.ts";
import { serveParent } from "../child.ts";

/** Makes the tree of a log from nothing, tiles, checkpoints and all; answers how many milliseconds that took. */
await serveParent<{ readonly mongodbUrl: string; readonly database: string; readonly folder: string }, { readonly to: number }, number>(
  async ({ mongodbUrl, database, folder }) => {
    const client = await new MongoClient(mongodbUrl).connect();
    const db = client.db(database);
    return {
      async answer({ to }) {
        await forgetTree(db);
        const began = performance.now();
        const keeper = await runKeeper(db, folder);
        await keeper.covered(to);
        const took = performance.now() - began;
        await keeper.stop();
        return took;
      },
      close: () => client.close(),
    };
  },
);
