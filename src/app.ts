import { join } from "node:path";
import type { MongoClient } from "mongodb";
import type { Logger } from "pino";
import { fileKeys, remoteKeys } from "./access/key-source.ts";
import { createDevelopmentKeys, developmentKeyFile } from "./access/keys.ts";
import { assertComplete } from "./access/permissions.ts";
import { createTokenVerifier } from "./access/tokens.ts";
import type { AppConfig } from "./config.ts";
import { evolve, orderStream } from "./domain/order.ts";
import { evolvePerson, personStream } from "./domain/person.ts";
import { createDispatcher } from "./doors/dispatch.ts";
import { startGrpcServer } from "./doors/grpc-server.ts";
import { startHttpServer } from "./doors/http-server.ts";
import { createReadiness } from "./doors/readiness.ts";
import { Door, Role } from "./gen/ordertrail/events/v1/values_pb.js";
import { AuditService } from "./gen/ordertrail/v1/audit_service_pb.js";
import { OperationsService } from "./gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "./gen/ordertrail/v1/order_tracking_service_pb.js";
import { createAppender } from "./log/appender.ts";
import { ensureLogIndexes } from "./log/indexes.ts";
import { createLogClient } from "./log/log-client.ts";
import { createLogReader } from "./log/reader.ts";
import { createTransactor } from "./log/transact.ts";
import { openErasureFile } from "./privacy/erasure-file.ts";
import { createErasures, ensureErasureIndexes, within } from "./privacy/erasures.ts";
import { rotateKeys } from "./privacy/key-rotation.ts";
import { createKeyWrapper, type KeyWrapper } from "./privacy/key-wrapper.ts";
import { createDevelopmentMasterKeys, readMasterKeys } from "./privacy/master-key.ts";
import { createPersonalKeys } from "./privacy/personal-keys.ts";
import { createPersonalPlaces } from "./privacy/personal-places.ts";
import { createRepeater } from "./privacy/repeater.ts";
import { destroyExpiredKeys, type RetentionOptions } from "./privacy/retention.ts";
import { createDriverLocations } from "./projections/driver-locations.ts";
import { createOrderTrackingProjection, createOrderTrackings, ORDER_TRACKING } from "./projections/order-tracking.ts";
import { createProjector } from "./projections/projector.ts";
import { served } from "./services/call.ts";
import { createCustomerPrivacy } from "./services/customer-privacy.ts";
import { createOperationsService } from "./services/operations-service.ts";
import { createOrderTrackingService } from "./services/order-tracking-service.ts";
import { createErasureRecorder } from "./services/record-erasure.ts";

/** Ordertrail, running. */
export type App = {
  readonly addresses: { readonly grpc: string; readonly http: string };
  /** Takes no more calls, lets those under way end, then lets go of everything. */
  stop(): Promise<void>;
};

const MAX_RESPONSE_BYTES = 32 * 1024 * 1024;
const PATIENCE_MS = 8000;
const LEASE_MS = 5000;
const CACHED_ORDERS = 20_000;
const CACHED_TOKENS = 10_000;
const CACHED_PEOPLE = 100;
/** For about how long a key that another process has destroyed may still open things here. */
const LEARN_MS = 1000;
const FINISH_MS = 10_000;
const RETENTION_MS = 3_600_000;

/** Builds everything, top to bottom, and starts the roles that the configuration names. Throws when the database cannot be reached. */
export async function createApp(config: AppConfig, logger: Logger): Promise<App> {
  const now = () => new Date();
  // What is made is let go of in the opposite order, also when something further down cannot be had.
  await using parts = new AsyncDisposableStack();
  const client = await connect(config.mongodbUrl);
  parts.defer(() => client.close());
  const db = client.db(config.databaseName);
  await ensureLogIndexes(db);

  const appender = createAppender(
    client,
    db,
    { maxQueuedEntries: config.appendQueueEntries, maxQueuedBytes: config.appendQueueBytes, patienceMs: PATIENCE_MS },
    logger,
  );
  parts.defer(() => appender.close());
  const reader = createLogReader(db, appender.onAppended);
  const orders = createTransactor({ streamOf: orderStream, evolve }, appender, reader, { cachedStreams: CACHED_ORDERS, now });

  const people = createTransactor({ streamOf: personStream, evolve: evolvePerson }, appender, reader, {
    cachedStreams: CACHED_PEOPLE,
    now,
  });

  const wrapper = await wrapperOf(config, now);
  const keys = createPersonalKeys(db, wrapper, now);
  const locations = createDriverLocations(db, ORDER_TRACKING);
  await locations.ensureIndexes();
  const projector = createProjector({ db, reader, logger, leaseMs: LEASE_MS }, [createOrderTrackingProjection(db, reader, locations)]);
  parts.defer(() => projector.stop());

  const caughtUp = () => within(PATIENCE_MS, async (signal) => projector.waitFor(ORDER_TRACKING, await reader.head(), signal));
  await ensureErasureIndexes(db);
  const erasures = createErasures({
    db,
    keys,
    file: await openErasureFile(config.erasuresFile ?? join(config.dataDir, "erasures.ndjson")),
    places: createPersonalPlaces(db),
    caughtUp,
    head: reader.head,
    record: createErasureRecorder(people, reader),
    self: { requestedBy: { role: Role.SYSTEM, subject: "ordertrail" }, door: Door.INTERNAL, requestId: "", correlationId: "" },
    logger,
  });
  // Before anybody is answered: a restored backup may have brought somebody back.
  await erasures.applyAgain();

  const trackings = createOrderTrackings(db);
  const tracking = createOrderTrackingService({ orders, reader, trackings, locations, projector, keys, now });
  const services = [
    served(OrderTrackingService, tracking),
    served(OperationsService, createOperationsService({ projector, reader, rotateKeys: (signal) => rotateKeys(db, wrapper, signal) })),
    served(AuditService, createCustomerPrivacy({ erasures, trackings, tracking, projector, reader, keys, now })),
  ];
  assertComplete(services.map(({ desc }) => desc));

  const tokens = createTokenVerifier({
    keys: config.jwksUrl ? remoteKeys(config.jwksUrl, now, logger) : fileKeys(developmentKeyFile(config.dataDir)),
    issuer: config.jwtIssuer,
    audience: config.jwtAudience,
    clockSkewSeconds: config.jwtClockSkewSeconds,
    clock: now,
    cacheSize: CACHED_TOKENS,
  });
  const dispatcher = createDispatcher({
    services: config.roles.has("api") ? services : [],
    verifyToken: tokens.verify,
    logger,
    clock: now,
    defaultDeadlineMs: config.defaultDeadlineMs,
    maxDeadlineMs: config.maxDeadlineMs,
  });
  const readiness = createReadiness({ mongodb: () => db.command({ ping: 1 }) }, logger);
  const jwks = config.jwksUrl ? undefined : (await createDevelopmentKeys(config.dataDir)).jwks;

  // A process that answers no calls still tells how it is.
  const { maxRequestBytes, drainTimeoutMs, corsOrigins } = config;
  const shared = { dispatcher, readiness, logger, clock: now, maxRequestBytes, maxResponseBytes: MAX_RESPONSE_BYTES, drainTimeoutMs };
  const grpc = await startGrpcServer({ ...shared, host: config.grpcHost, port: config.grpcPort });
  parts.defer(() => grpc.stop());
  const http = await startHttpServer({
    ...shared,
    host: config.httpHost,
    port: config.httpPort,
    corsOrigins,
    ...(jwks && { jwks: () => jwks }),
  });
  parts.defer(() => http.stop());

  if (config.roles.has("projector")) projector.start();
  const { retentionDays: days } = config;
  const repeaters = [
    createRepeater("learning of erasures", () => erasures.learn(), LEARN_MS, logger),
    createRepeater("finishing erasures", async (signal) => void (await erasures.finish(signal)), FINISH_MS, logger),
    ...(days !== undefined && config.roles.has("projector")
      ? [
          createRepeater(
            "retention",
            (signal) => retain({ db, days, clock: now, caughtUp, forget: keys.forget }, signal, logger),
            RETENTION_MS,
            logger,
          ),
        ]
      : []),
  ];
  for (const repeater of repeaters) {
    repeater.start();
    parts.defer(() => repeater.stop());
  }
  const running = parts.move();
  return { addresses: { grpc: grpc.address, http: http.url }, stop: () => running.disposeAsync() };
}

/** The master keys of the environment, of a file, or of the development instance; what files hold may change while it runs. */
async function wrapperOf({ masterKeys, masterKeysFile, dataDir }: AppConfig, now: () => Date): Promise<KeyWrapper> {
  if (masterKeys) return await createKeyWrapper(() => masterKeys, now);
  if (masterKeysFile !== undefined) return await createKeyWrapper(() => readMasterKeys(masterKeysFile), now);
  return await createKeyWrapper(() => createDevelopmentMasterKeys(dataDir), now);
}

async function retain(options: RetentionOptions, signal: AbortSignal, logger: Logger): Promise<void> {
  const destroyed = await destroyExpiredKeys(options, signal);
  if (destroyed > 0)
    logger.info({ keys: destroyed, retention_days: options.days }, "personal data of orders that ended long ago was destroyed");
}

async function connect(url: string): Promise<MongoClient> {
  const client = createLogClient(url);
  try {
    await client.connect();
    return client;
  } catch (cause) {
    await client.close();
    throw new Error("MongoDB cannot be reached: check MONGODB_URL, or leave it unset to have one started", { cause });
  }
}
