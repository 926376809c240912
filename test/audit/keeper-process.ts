import { writeSync } from "node:fs";
import { MongoClient } from "mongodb";
import { auditParts, keepTree } from "./kept-tree.ts";

/**
 * A process that keeps the tree of a log until it is killed. It writes each signature that it makes to its standard output
 * in the moment in which it is made, whether or not it lives to keep it. Told a number, it kills itself, as `kill -9` would,
 * when it is about to send its database command of that number.
 */
const [url = "", database = "", killAt = ""] = process.argv.slice(2);
const client = new MongoClient(url, { monitorCommands: true });
let commands = 0;
client.on("commandStarted", () => {
  commands++;
  if (commands === Number(killAt)) process.kill(process.pid, "SIGKILL");
});

const parts = auditParts(client.db(database));
keepTree({
  ...parts,
  checkpoints: {
    ...parts.checkpoints,
    async publish(size, note, signedAt) {
      writeSync(1, `${JSON.stringify(note)}\n`);
      await parts.checkpoints.publish(size, note, signedAt);
    },
  },
});
writeSync(1, "\n");
