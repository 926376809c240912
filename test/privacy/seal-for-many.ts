import { once } from "node:events";
import { MongoClient } from "mongodb";
import { createKeyWrapper } from "../../src/privacy/key-wrapper.ts";
import { parseMasterKeys } from "../../src/privacy/master-key.ts";
import { createPersonalKeys } from "../../src/privacy/personal-keys.ts";

// A process that says when it is ready, waits for a word, seals for many people at once, for each as several processes
// that know nothing of each other would, and prints whose keys were which.
const [url = "", databaseName = "", masterKeyText = "", people = "", times = ""] = process.argv.slice(2);
await using client = await MongoClient.connect(url, { minPoolSize: 50 });
const masterKeys = parseMasterKeys(masterKeyText);
const wrapper = await createKeyWrapper(
  () => masterKeys,
  () => new Date(),
);
const makeKeys = () => createPersonalKeys(client.db(databaseName), wrapper, () => new Date());
process.stdout.write("ready\n");
await once(process.stdin, "data");
const sealed = await Promise.all(
  Array.from({ length: Number(people) }, (_, person) =>
    Promise.all(
      Array.from({ length: Number(times) }, () => makeKeys().seal(`customer-${person}`, Buffer.from("Ada"), "order-1/recipient")),
    ),
  ),
);
process.stdout.write(`${JSON.stringify(sealed.map((group) => group.map((one) => Buffer.from(one?.keyId ?? []).toString("hex"))))}\n`);
