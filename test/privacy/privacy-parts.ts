import { join } from "node:path";
import type { Db, MongoClient } from "mongodb";
import { createRevocations } from "../../src/access/revocations.ts";
import { createTrackingLinks } from "../../src/access/tracking-links.ts";
import { evolvePerson, personStream } from "../../src/domain/person.ts";
import { Door, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { createAppender } from "../../src/log/appender.ts";
import { createLogReader } from "../../src/log/reader.ts";
import { createTransactor } from "../../src/log/transact.ts";
import { createUnchangedCommands } from "../../src/log/unchanged-commands.ts";
import { createLogger } from "../../src/logger.ts";
import { openErasureFile } from "../../src/privacy/erasure-file.ts";
import { createErasures, type ErasureOrigin, type Erasures, within } from "../../src/privacy/erasures.ts";
import { createKeyWrapper, type KeyWrapper } from "../../src/privacy/key-wrapper.ts";
import { parseMasterKeys } from "../../src/privacy/master-key.ts";
import { createPersonalKeys, type PersonalKeys } from "../../src/privacy/personal-keys.ts";
import { createPersonalPlaces } from "../../src/privacy/personal-places.ts";
import { ORDER_TRACKING } from "../../src/projections/order-tracking.ts";
import { createErasureRecorder } from "../../src/services/record-erasure.ts";
import { projectorOf } from "../projections/orders.ts";

/** What one process has for looking after people, on a log that somebody else projects. */
export type PrivacyParts = AsyncDisposable & {
  readonly erasures: Erasures;
  readonly keys: PersonalKeys;
  readonly wrapper: KeyWrapper;
  /** What it has logged. */
  readonly said: readonly string[];
};

/** Somebody who asks for an erasure. */
export const ORIGIN: ErasureOrigin = {
  requestedBy: { role: Role.OPERATOR, subject: "operator-1" },
  door: Door.GRPC,
  address: "10.0.0.7",
  certificateName: "",
  requestId: "r-1",
  correlationId: "c-1",
};

/** Builds it as the application does. `masterKeys` is the text of MASTER_KEYS. */
export async function openPrivacy(
  client: MongoClient,
  db: Db,
  options: { readonly folder: string; readonly masterKeys: string; readonly now?: () => Date },
): Promise<PrivacyParts> {
  const { folder, masterKeys, now = () => new Date() } = options;
  const said: string[] = [];
  const logger = createLogger("debug", { write: (line) => said.push(line) });
  const appender = createAppender(client, db, { maxQueuedEntries: 1000, maxQueuedBytes: 1_000_000, patienceMs: 20_000 }, logger);
  const reader = createLogReader(db);
  const people = createTransactor({ streamOf: personStream, evolve: evolvePerson }, appender, reader, createUnchangedCommands(db, now), {
    cachedStreams: 10,
    now,
  });
  const wrapper = await createKeyWrapper(() => parseMasterKeys(masterKeys), now);
  const keys = createPersonalKeys(db, wrapper, now);
  const projector = projectorOf({ db, reader });
  const erasures = createErasures({
    db,
    keys,
    file: await openErasureFile(join(folder, "erasures.ndjson")),
    places: createPersonalPlaces(db, createTrackingLinks(db, createRevocations(db, now, logger), now).revokeAll),
    caughtUp: () => within(20_000, async (signal) => projector.waitFor(ORDER_TRACKING, await reader.head(), signal)),
    head: reader.head,
    record: createErasureRecorder(people, reader),
    self: { ...ORIGIN, requestedBy: { role: Role.SYSTEM, subject: "ordertrail" } },
    logger,
  });
  return {
    erasures,
    keys,
    wrapper,
    said,
    async [Symbol.asyncDispose]() {
      await projector.stop();
      await appender.close();
    },
  };
}
