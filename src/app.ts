import type { MongoClient } from "mongodb";
import type { Logger } from "pino";
import { createClients } from "./access/clients.ts";
import { createDenials } from "./access/denials.ts";
import { createIssuerKeyMemory } from "./access/issuer-key-memory.ts";
import { otherIssuer, ownIssuer } from "./access/issuers.ts";
import { eitherKeys, fileKeys, remoteKeys } from "./access/key-source.ts";
import { createDevelopmentKeys, developmentKeyFile } from "./access/keys.ts";
import { assertComplete } from "./access/permissions.ts";
import { createRevocations } from "./access/revocations.ts";
import { createSessions } from "./access/sessions.ts";
import { createSigningKeys, KEYS_MAX_AGE_SECONDS } from "./access/signing-keys.ts";
import { createTokenVerifier } from "./access/tokens.ts";
import { createTrackingLinks } from "./access/tracking-links.ts";
import type { AppConfig } from "./config.ts";
import { evolve, orderStream } from "./domain/order.ts";
import { createDispatcher } from "./doors/dispatch.ts";
import { startGrpcServer } from "./doors/grpc-server.ts";
import { startHttpServer } from "./doors/http-server.ts";
import { createReadiness } from "./doors/readiness.ts";
import { AuthService } from "./gen/ordertrail/v1/auth_service_pb.js";
import { OperationsService } from "./gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "./gen/ordertrail/v1/order_tracking_service_pb.js";
import { createAppender } from "./log/appender.ts";
import { ensureLogIndexes } from "./log/indexes.ts";
import { createLogClient } from "./log/log-client.ts";
import { createLogReader } from "./log/reader.ts";
import { createTransactor } from "./log/transact.ts";
import { createDevelopmentMasterKeys, wrappingUnder } from "./privacy/master-key.ts";
import { createPersonalKeys } from "./privacy/personal-keys.ts";
import { createDriverLocations } from "./projections/driver-locations.ts";
import { createOrderTrackingProjection, createOrderTrackings, ORDER_TRACKING } from "./projections/order-tracking.ts";
import { createProjector } from "./projections/projector.ts";
import { createAuthService } from "./services/auth-service.ts";
import { served } from "./services/call.ts";
import { createOperationsService } from "./services/operations-service.ts";
import { createOrderTrackingService } from "./services/order-tracking-service.ts";

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

  const masterKeys = config.masterKeys ?? (await createDevelopmentMasterKeys(config.dataDir));
  const keys = createPersonalKeys(db, masterKeys, now);
  const locations = createDriverLocations(db, ORDER_TRACKING);
  await locations.ensureIndexes();
  const projector = createProjector({ db, reader, logger, leaseMs: LEASE_MS }, [createOrderTrackingProjection(db, reader, locations)]);

  parts.defer(() => projector.stop());

  const revocations = createRevocations(db, now, logger);
  parts.defer(() => revocations.stop());
  await revocations.start();
  const sessions = createSessions(db, revocations, now);
  await sessions.ensureIndexes();
  const links = createTrackingLinks(db, revocations, now);
  await links.ensureIndexes();
  const signing = createSigningKeys({
    db,
    wrapping: wrappingUnder(masterKeys),
    clock: now,
    logger,
    isRevoked: (kid) => revocations.isRevoked([`key:${kid}`]),
  });
  // What the keys in a file sign is for development: whoever has the folder would be anybody.
  const development = config.production ? undefined : await createDevelopmentKeys(config.dataDir);
  const issuerKeys = createIssuerKeyMemory(db, now);
  const tokens = createTokenVerifier({
    issuers: [
      ownIssuer({
        issuer: config.jwtIssuer,
        audience: config.jwtAudience,
        keys: development ? eitherKeys(fileKeys(developmentKeyFile(config.dataDir)), signing.source) : signing.source,
      }),
      ...config.tokenIssuers.map((settings) => otherIssuer(settings, remoteKeys(settings.jwksUrl, now, logger, issuerKeys))),
    ],
    revocations,
    clockSkewSeconds: config.jwtClockSkewSeconds,
    clock: now,
    cacheSize: CACHED_TOKENS,
  });
  const denials = createDenials({ perMinute: config.denialsPerMinute, logger, clock: now });

  const services = [
    served(
      OrderTrackingService,
      createOrderTrackingService({ orders, reader, trackings: createOrderTrackings(db), locations, projector, keys, now }),
    ),
    served(OperationsService, createOperationsService({ projector, reader, denials })),
    served(
      AuthService,
      createAuthService({
        clients: createClients(db, now),
        sessions,
        links,
        revocations,
        signing,
        tokens,
        orders,
        issuer: config.jwtIssuer,
        audience: config.jwtAudience,
        accessTokenSeconds: config.accessTokenSeconds,
        refreshTokenSeconds: config.refreshTokenSeconds,
        trackingLinkPage: config.trackingLinkPage,
        now,
      }),
    ),
  ];
  assertComplete(services.map(({ desc }) => desc));

  const dispatcher = createDispatcher({
    services: config.roles.has("api") ? services : [],
    verifyToken: tokens.verify,
    denials,
    logger,
    clock: now,
    defaultDeadlineMs: config.defaultDeadlineMs,
    maxDeadlineMs: config.maxDeadlineMs,
  });
  const readiness = createReadiness({ mongodb: () => db.command({ ping: 1 }) }, logger);
  const jwks = async () => ({ keys: [...(await signing.jwks()).keys, ...(development?.jwks.keys ?? [])] });

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
    jwks,
    jwksMaxAgeSeconds: KEYS_MAX_AGE_SECONDS,
  });
  parts.defer(() => http.stop());

  if (config.roles.has("projector")) projector.start();
  const running = parts.move();
  return { addresses: { grpc: grpc.address, http: http.url }, stop: () => running.disposeAsync() };
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
