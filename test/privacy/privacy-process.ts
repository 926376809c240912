import { MongoClient } from "mongodb";
import { rotateKeys } from "../../src/privacy/key-rotation.ts";
import { ORIGIN, openPrivacy } from "./privacy-parts.ts";

/**
 * A process that erases a person, or wraps all keys anew, and kills itself, as `kill -9` would, when it is about to send
 * its database command of the number told. Untroubled, it prints how many commands it sent.
 */
const [url = "", database = "", folder = "", masterKeys = "", task = "", killAt = ""] = process.argv.slice(2);
const client = new MongoClient(url, { monitorCommands: true });
let commands = 0;
client.on("commandStarted", () => {
  commands++;
  if (commands === Number(killAt)) process.kill(process.pid, "SIGKILL");
});

{
  const db = client.db(database);
  await using privacy = await openPrivacy(client, db, { folder, masterKeys });
  if (task === "rotate") for await (const _ of rotateKeys(db, privacy.wrapper, AbortSignal.timeout(60_000)));
  else await privacy.erasures.erase(task, ORIGIN);
}
await client.close();
process.stdout.write(`${commands}\n`);
