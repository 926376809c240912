import { create } from "@bufbuild/protobuf";
import { type Db, MongoClient } from "mongodb";
import { pino } from "pino";
import { loadConfig } from "../../src/config.ts";
import { type Sealed, SealedSchema } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { createAdvisoryWriter } from "../../src/log/advisory-writer.ts";
import { createAppender } from "../../src/log/appender.ts";
import { ensureLogIndexes } from "../../src/log/indexes.ts";
import { createForwarding, serveAppendRequests } from "../../src/nats/append-requests.ts";
import { startNatsClient } from "../../src/nats/nats-client.ts";
import { configuredKeyWrapper } from "../../src/privacy/configured-key-wrapper.ts";
import { createPersonalKeys } from "../../src/privacy/personal-keys.ts";
import { runKeeper } from "../audit-keeper.ts";
import { serveParent } from "../child.ts";
import { drive, type Load, type LoadFigures } from "../load.ts";
import { createIdentifiers, smallEntry } from "../small-entry.ts";

/** Where the log is; NATS, if processes let one of them append for all; if the tree is to be kept meanwhile, a folder for the keys that sign it. */
type Knowledge = {
  readonly mongodbUrl: string;
  readonly database: string;
  readonly natsUrl?: string;
  readonly tree?: { readonly folder: string };
  /** If some entries are to have a note of some customer: sealed, by keys in a folder, or as it is. */
  readonly notes?: { readonly sealedBy?: { readonly folder: string } };
};

const NOTE = Buffer.from("Please ring at the second door, and leave it with Ada.");
/** In an order's life, one command in four brings something personal: the recipient, the driver, the proof of delivery. */
const NOTE_EVERY = 4;
const CUSTOMERS = 1000;
const NO_FILES = { caFile: undefined, certFile: undefined, keyFile: undefined };

/** Appends small entries to the log in a database by Ordertrail's appender. */
await serveParent<Knowledge, Load, LoadFigures>(async ({ mongodbUrl, database, natsUrl, tree, notes }) => {
  const client = await new MongoClient(mongodbUrl).connect();
  const db = client.db(database);
  await ensureLogIndexes(db);
  const limits = { maxQueuedEntries: 10_000, maxQueuedBytes: 64 * 1024 * 1024, patienceMs: 5000 };
  const logger = pino({ level: "warn" }, process.stderr);
  const self = String(process.pid);
  const nats = natsUrl === undefined ? undefined : startNatsClient({ url: natsUrl, tlsFiles: NO_FILES }, logger);
  await nats?.check();
  const advisory = createAdvisoryWriter(db, self, logger);
  const appender = createAppender(client, db, limits, logger, nats && createForwarding(nats, advisory, database, logger));
  if (nats) serveAppendRequests(nats, appender, self, database, logger);
  const identifier = createIdentifiers();
  const noteFor = notes && (await createNotes(db, notes.sealedBy?.folder));
  let appended = 0;
  const append = async () => {
    const name = identifier();
    return await appender.append(smallEntry(name, appended++ % NOTE_EVERY === 0 ? await noteFor?.(name) : undefined));
  };
  const keeper = tree && (await runKeeper(db, tree.folder, appender.onAppended));
  return {
    answer: (load) => drive(append, load),
    async close() {
      await appender.close();
      await advisory.stop();
      await nats?.stop();
      await keeper?.stop();
      await client.close();
    },
  };
});

/** A note for an entry, of so many customers in turn, as the application seals it; without a folder for the master key, in the clear. */
async function createNotes(db: Db, folder: string | undefined): Promise<(name: string) => Promise<Sealed>> {
  if (folder === undefined) {
    const plain = create(SealedSchema, { keyId: Buffer.alloc(16), nonce: Buffer.alloc(12), ciphertext: NOTE });
    return async () => plain;
  }
  const clock = () => new Date();
  const keys = createPersonalKeys(db, await configuredKeyWrapper(loadConfig({ DATA_DIR: folder }), clock), clock);
  let next = 0;
  return async (name) => {
    const sealed = await keys.seal(`customer-${next++ % CUSTOMERS}`, NOTE, `${name}/note`);
    if (!sealed) throw new Error("nobody has been erased here");
    return sealed;
  };
}
