import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { MongoClient } from "mongodb";
import type { Logger } from "pino";
import { createCallLimits } from "./access/call-limits.ts";
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
import { createAnnouncer } from "./audit/announcer.ts";
import { createAuditKeySource } from "./audit/audit-keys.ts";
import { createAuditLog } from "./audit/audit-log.ts";
import { createCheckpointFile, rememberedCheckpointFile } from "./audit/checkpoint-file.ts";
import { createCheckpointSigner } from "./audit/checkpoint-signer.ts";
import { createCheckpointStore } from "./audit/checkpoint-store.ts";
import { createTileStore } from "./audit/tile-store.ts";
import { AUDIT_TREE, createTreeKeeper } from "./audit/tree-keeper.ts";
import { readTreeState } from "./audit/tree-state.ts";
import { createChannels } from "./channels/channels.ts";
import { createProviderCalls } from "./channels/provider-calls.ts";
import type { AppConfig } from "./config.ts";
import type { Courier } from "./couriers/courier.ts";
import { createCouriers } from "./couriers/couriers.ts";
import { createDeliveries } from "./deliveries.ts";
import { type EstimateArrival, estimateArrival } from "./domain/arrival.ts";
import { evolve, orderStream } from "./domain/order.ts";
import { evolvePerson, personStream } from "./domain/person.ts";
import { Unavailable } from "./domain/refusal.ts";
import { evolveStore, storeStream } from "./domain/store.ts";
import { createDispatcher } from "./doors/dispatch.ts";
import { DOOR_LIMITS } from "./doors/door-limits.ts";
import { createDoorTls } from "./doors/door-tls.ts";
import { startGrpcServer } from "./doors/grpc-server.ts";
import { startHttpServer } from "./doors/http-server.ts";
import { createReadiness } from "./doors/readiness.ts";
import { Door, Role } from "./gen/ordertrail/events/v1/values_pb.js";
import { AuditService } from "./gen/ordertrail/v1/audit_service_pb.js";
import { AuthService } from "./gen/ordertrail/v1/auth_service_pb.js";
import { DriverLocationService } from "./gen/ordertrail/v1/driver_location_service_pb.js";
import { OperationsService } from "./gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "./gen/ordertrail/v1/order_tracking_service_pb.js";
import { createLimiters } from "./limits/limiters.ts";
import { createNews } from "./live/news.ts";
import { createPointFeed } from "./live/point-feed.ts";
import { startRelay } from "./live/relay.ts";
import { createLogWatch } from "./live/watch.ts";
import { createAdvisoryWriter } from "./log/advisory-writer.ts";
import { createAppender } from "./log/appender.ts";
import { ensureLogIndexes } from "./log/indexes.ts";
import { createLogClient } from "./log/log-client.ts";
import { createLogReader } from "./log/reader.ts";
import { createTransactor } from "./log/transact.ts";
import { createUnchangedCommands } from "./log/unchanged-commands.ts";
import { makeFolder } from "./make-folder.ts";
import { createMetrics } from "./metrics.ts";
import { createForwarding, serveAppendRequests } from "./nats/append-requests.ts";
import { isKnownToNats, startNatsClient } from "./nats/nats-client.ts";
import { createNotifier } from "./notifier.ts";
import { configuredKeyWrapper } from "./privacy/configured-key-wrapper.ts";
import { openErasureFile } from "./privacy/erasure-file.ts";
import { createErasures, ensureErasureIndexes, within } from "./privacy/erasures.ts";
import { type RotationProgress, rotateKeys } from "./privacy/key-rotation.ts";
import { createPersonalKeys } from "./privacy/personal-keys.ts";
import { createPersonalPlaces } from "./privacy/personal-places.ts";
import { createRepeater } from "./privacy/repeater.ts";
import { destroyExpiredKeys, type RetentionOptions } from "./privacy/retention.ts";
import { createWrappedSecrets } from "./privacy/wrapped-secrets.ts";
import { createDeadlines, createDeadlinesProjection } from "./projections/deadlines.ts";
import { createDriverLocations } from "./projections/driver-locations.ts";
import { createNotificationLogsProjection } from "./projections/notification-logs.ts";
import { createNotificationPreferencesProjection } from "./projections/notification-preferences.ts";
import { createOrderTrackingProjection, createOrderTrackings, ORDER_TRACKING } from "./projections/order-tracking.ts";
import { createProjector } from "./projections/projector.ts";
import { createPushTokensProjection } from "./projections/push-tokens.ts";
import { createAuditService } from "./services/audit-service.ts";
import { createAuthService } from "./services/auth-service.ts";
import { served } from "./services/call.ts";
import { createDriverLocationService } from "./services/driver-location-service.ts";
import { createLocationIntake } from "./services/location-intake.ts";
import { createOperationsService } from "./services/operations-service.ts";
import { createOrderLimits } from "./services/order-limits.ts";
import { createOrderTrackingService } from "./services/order-tracking-service.ts";
import { createErasureRecorder } from "./services/record-erasure.ts";
import { createSealedLocations } from "./services/sealed-locations.ts";
import { createTimers } from "./workers/timers.ts";

/** Ordertrail, running. */
export type App = {
  readonly addresses: { readonly grpc: string; readonly http: string };
  /** Of each port that speaks TLS, a name that its certificate is made out to, or an empty string. */
  readonly serverNames: { readonly grpc?: string; readonly http?: string };
  /** Takes no more calls, lets those under way end, then lets go of everything. */
  stop(): Promise<void>;
};

/** What an application may be given beside its configuration. */
export type AppOptions = {
  /** The delivery providers; by default those of the configuration. */
  readonly couriers?: readonly Courier[];
  /** How it is estimated when a driver arrives; by default by distance and recent speed. */
  readonly estimateArrival?: EstimateArrival;
};

const MAX_RESPONSE_BYTES = 32 * 1024 * 1024;
const PATIENCE_MS = 8000;
const LEASE_MS = 5000;
const CACHED_ORDERS = 20_000;
const CACHED_TOKENS = 10_000;
const CACHED_PEOPLE = 100;
const CACHED_STORES = 5000;
/** For about how long a key that another process has destroyed may still open things here. */
const LEARN_MS = 1000;
const FINISH_MS = 10_000;
/** How often a provider can be asked within the time that it may take altogether. */
const ATTEMPTS = 2;
/** How often it is looked for what is overdue. */
const TIMERS_MS = 1000;
/** How often unsealed keys that are too old to be used are taken out of memory. */
const FORGET_MS = 60_000;
const RETENTION_MS = 3_600_000;

/**
 * Builds everything, top to bottom, and starts the roles that the configuration names. Throws when the database cannot be
 * reached. By `clock` goes all that depends on the time of day, such as deadlines.
 */
export async function createApp(
  config: AppConfig,
  logger: Logger,
  clock = () => new Date(),
  { couriers = createCouriers(config.couriers, config.deliveryAnswerMs / ATTEMPTS, clock), ...options }: AppOptions = {},
): Promise<App> {
  const now = clock;
  const stopping = new AbortController();
  // What is made is let go of in the opposite order, also when something further down cannot be had.
  await using parts = new AsyncDisposableStack();
  const client = await connect(config);
  parts.defer(() => client.close());
  const db = client.db(config.databaseName);
  await ensureLogIndexes(db);

  const natsSettings =
    config.natsUrl === undefined ? undefined : { ...{ url: config.natsUrl, tlsFiles: config.natsTls }, credsFile: config.natsCredsFile };
  const nats = natsSettings && startNatsClient(natsSettings, logger);
  if (nats) parts.defer(() => nats.stop());
  const self = `${process.pid}-${randomBytes(8).toString("hex")}`;
  const advisory = createAdvisoryWriter(db, self, logger);
  parts.defer(() => advisory.stop());
  const appender = createAppender(
    client,
    db,
    { maxQueuedEntries: config.appendQueueEntries, maxQueuedBytes: config.appendQueueBytes, patienceMs: PATIENCE_MS },
    logger,
    nats && createForwarding(nats, advisory, config.natsPrefix, logger),
  );
  parts.defer(() => appender.close());
  if (nats) serveAppendRequests(nats, appender, self, config.natsPrefix, logger);
  const news = nats && createNews(nats, config.natsPrefix, appender.onAppended);
  const reader = createLogReader(db, appender.onAppended, news?.onNews);
  const unchanged = createUnchangedCommands(db, now);
  const orders = createTransactor({ streamOf: orderStream, evolve }, appender, reader, unchanged, { cachedStreams: CACHED_ORDERS, now });

  const people = createTransactor({ streamOf: personStream, evolve: evolvePerson }, appender, reader, unchanged, {
    cachedStreams: CACHED_PEOPLE,
    now,
  });

  const stores = createTransactor({ streamOf: storeStream, evolve: evolveStore }, appender, reader, unchanged, {
    cachedStreams: CACHED_STORES,
    now,
  });

  const wrapper = await configuredKeyWrapper(config, now);
  const keys = createPersonalKeys(db, wrapper, now);
  const secrets = createWrappedSecrets(db, wrapper);
  const stored = createDriverLocations(db, ORDER_TRACKING);
  await stored.ensureIndexes();
  const projector = createProjector({ db, reader, logger, leaseMs: LEASE_MS, others: [AUDIT_TREE] }, [
    createOrderTrackingProjection(db, reader, stored),
    createDeadlinesProjection(db, reader),
    createNotificationLogsProjection(db, reader),
    createNotificationPreferencesProjection(db, reader),
    createPushTokensProjection(db, reader),
  ]);
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
    wrapping: wrapper,
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
  const limiters = createLimiters({ redisUrl: config.redisUrl, prefix: config.databaseName, logger });
  parts.defer(() => limiters.stop());

  const tiles = createTileStore(db);
  const checkpoints = createCheckpointStore(db);
  await checkpoints.ensureIndexes();
  const audit = createAuditLog(db, tiles, checkpoints);
  const { auditOrigin: origin, auditWitnesses: witnesses, auditPublishUrl: url } = config;
  const published = config.auditPublishFile === undefined ? undefined : createCheckpointFile(config.auditPublishFile);
  const announcer = createAnnouncer({ witnesses, file: published, url, checkpoints, tiles, logger });
  parts.defer(() => announcer.settled());
  await makeFolder(config.dataDir);
  const remembered = rememberedCheckpointFile(config);
  const auditKeys = createAuditKeySource(config);
  const signer = createCheckpointSigner({ origin, keys: auditKeys, checkpoints, remembered, clock: now });
  const keeper = createTreeKeeper({
    db,
    tiles,
    checkpoints,
    signer,
    remembered,
    published,
    onSigned: announcer.announce,
    onAppended: appender.onAppended,
    logger,
    leaseMs: LEASE_MS,
  });
  parts.defer(() => keeper.stop());

  const caughtUp = () => within(PATIENCE_MS, async (signal) => projector.waitFor(ORDER_TRACKING, await reader.head(), signal));
  await ensureErasureIndexes(db);
  const erasures = createErasures({
    db,
    keys,
    file: await openErasureFile(config.erasuresFile ?? join(config.dataDir, "erasures.ndjson")),
    places: createPersonalPlaces(db, links.revokeAll),
    caughtUp,
    head: reader.head,
    record: createErasureRecorder(people, reader),
    self: {
      requestedBy: { role: Role.SYSTEM, subject: "ordertrail" },
      door: Door.INTERNAL,
      address: "",
      certificateName: "",
      requestId: "",
      correlationId: "",
    },
    logger,
  });
  // Before anybody is answered: a restored backup may have brought somebody back.
  await erasures.applyAgain();

  async function* rotateAll(signal: AbortSignal): AsyncGenerator<RotationProgress, void, undefined> {
    await wrapper.newest();
    await signing.rewrap();
    await secrets.rewrap();
    yield* rotateKeys(db, wrapper, signal);
  }

  const watch = createLogWatch({ reader, heartbeatMs: config.watchHeartbeatMs, stopping: stopping.signal, logger });
  parts.defer(() => watch.stop());

  const trackings = createOrderTrackings(db);
  const { locationStoreMs: storeMs, driverNearMeters: nearMeters, driverArrivedMeters: arrivedMeters } = config;
  const sealedLocations = createSealedLocations(stored, keys);
  const feed = createPointFeed({ nats, prefix: config.natsPrefix, self, find: sealedLocations.find });
  const locations = createLocationIntake({
    ...{ orders, stores, keys, locations: sealedLocations, feed, watch, storeMs, now, logger },
    estimateArrival: options.estimateArrival ?? estimateArrival,
    radii: { nearMeters, arrivedMeters },
    staleMs: config.locationStaleSeconds * 1000,
  });
  parts.defer(() => locations.stop());
  const tracking = createOrderTrackingService({
    ...{ orders, reader, trackings, locations, intake: locations, projector, watch, keys, now },
    deadlinesOf: createOrderLimits(stores, config.deadlines),
  });
  const deliveries = parts.use(
    await createDeliveries({
      ...{ ...config, db, couriers, orders, stores, reader, keys, locations, now, logger },
      takePoint: (point, order) => {
        locations.learn(order);
        return locations.take([{ orderId: order.state.orderId, point: { ...point, isTimeOfReport: true } }], () => true);
      },
    }),
  );
  let publicUrl = config.publicUrl;
  const providerCalls = createProviderCalls();
  const channels = parts.use(
    createChannels(config.channels, { timeoutMs: config.notifyAnswerMs, allowPrivate: !config.production, calls: providerCalls, logger }),
  );
  const notifier = parts.use(
    await createNotifier({
      ...{ ...config, db, nats, orders, stores, reader, projector, keys, secrets, limiters, now, logger },
      ...{ channels: channels.all, publicUrl: () => publicUrl, metaVerifyToken: config.channels.whatsapp?.verifyToken },
      transactorOf: (category) => createTransactor(category, appender, reader, unchanged, { cachedStreams: CACHED_ORDERS, now }),
    }),
  );
  const services = [
    deliveries.service,
    notifier.service,
    served(OrderTrackingService, tracking),
    served(DriverLocationService, createDriverLocationService({ intake: locations, feed, watch, orders, now })),
    served(
      AuditService,
      createAuditService({
        ...{ db, reader, audit, tiles, checkpoints, remembered },
        verifiers: () => auditKeys.verifiers(origin),
        ...{ erasures, links, trackings, tracking, messages: notifier.handlers, projector, keys, now },
      }),
    ),
    served(
      OperationsService,
      createOperationsService({
        ...{ projector, reader, denials, rotateKeys: rotateAll, stores, keys },
        webhookSecret: notifier.webhookSecret,
      }),
    ),
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
        erasures,
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
    callLimits: createCallLimits(config.callsPerMinute, limiters),
    trustedProxies: config.trustedProxies,
    logger,
    clock: now,
    defaultDeadlineMs: config.defaultDeadlineMs,
    maxDeadlineMs: config.maxDeadlineMs,
    stopping: stopping.signal,
  });
  const relay =
    nats && config.roles.has("relay")
      ? startRelay({ nats, reader, settings: { prefix: config.natsPrefix, ...config.eventStream }, logger })
      : undefined;
  if (relay) parts.defer(() => relay.stop());
  const timers = config.roles.has("timers") ? createTimers({ deadlines: createDeadlines(db), orders, clock: now, logger }) : undefined;
  const readiness = createReadiness(
    {
      mongodb: () => db.command({ ping: 1 }),
      log: async () => appender.check(),
    },
    logger,
    {
      ...(nats && { nats: nats.check }),
      ...(config.redisUrl !== undefined && { redis: limiters.check }),
      ...(relay && { relay: relay.check }),
      ...(timers && { timers: timers.check }),
      ...(nats && config.roles.has("notifier") && { notifier: notifier.check }),
      [AUDIT_TREE]: async () => {
        const { problem } = await readTreeState(db, checkpoints, now);
        if (problem !== undefined) throw new Error(problem);
      },
    },
  );
  const metrics = createMetrics({
    ...{ couriers, providerCalls, projector, notifier },
    head: reader.head,
    onAppended: appender.onAppended,
  });
  const jwks = async () => ({ keys: [...(await signing.jwks()).keys, ...(development?.jwks.keys ?? [])] });

  // A process that answers no calls still tells how it is.
  const { maxRequestBytes, drainTimeoutMs, corsOrigins, maxConnections, maxConnectionsPerAddress } = config;
  const limits = { ...DOOR_LIMITS, maxConnections, maxConnectionsPerAddress };
  const shared = {
    ...{ dispatcher, readiness, logger, clock: now },
    ...{ limits, maxRequestBytes, maxResponseBytes: MAX_RESPONSE_BYTES, drainTimeoutMs },
  };
  const grpcTls = config.grpcTls && (await createDoorTls({ files: config.grpcTls, door: "gRPC", clock: now, logger }));
  const httpTls = config.httpTls && (await createDoorTls({ files: config.httpTls, door: "HTTP", clock: now, logger }));
  if (config.production) {
    if (config.redisUrl === undefined) logger.warn("limits hold for each process by itself: set REDIS_URL to have them shared");
    for (const [door, host, tls] of [["GRPC", config.grpcHost, grpcTls] as const, ["HTTP", config.httpHost, httpTls] as const])
      if (!tls && !isLoopback(host))
        logger.warn({ host }, `no TLS on a port for other machines: set ${door}_TLS_CERT_FILE, or put a proxy before it`);
    if (natsSettings && !isKnownToNats(natsSettings))
      logger.warn("nobody is named to NATS: whoever reaches it may have entries appended; name a user in NATS_URL, or set NATS_CREDS_FILE");
  }
  const grpc = await startGrpcServer({ ...shared, host: config.grpcHost, port: config.grpcPort, tls: grpcTls });
  parts.defer(() => grpc.stop());
  const http = await startHttpServer({
    ...shared,
    host: config.httpHost,
    port: config.httpPort,
    tls: httpTls,
    corsOrigins,
    ...(config.roles.has("api") && {
      audit: { log: audit, isPublic: config.auditPublic, authorize: dispatcher.authorize },
      webhooks: deliveries.webhooks,
      channelWebhooks: notifier.webhooks,
    }),
    metrics: { metrics, isPublic: config.metricsPublic, authorize: dispatcher.authorize },
    jwks,
    jwksMaxAgeSeconds: KEYS_MAX_AGE_SECONDS,
  });
  parts.defer(() => http.stop());
  if (!config.production) publicUrl ??= http.url;

  if (config.roles.has("couriers")) deliveries.followUp();
  if (config.roles.has("notifier")) notifier.start();
  if (config.roles.has("projector")) {
    projector.start();
    keeper.start();
  }
  const { retentionDays: days } = config;
  const repeaters = [
    createRepeater("learning of erasures", () => erasures.learn(), LEARN_MS, logger),
    createRepeater("looking for the points of drivers", feed.look, storeMs, logger),
    createRepeater("letting go of drivers", async () => locations.forgetIdle(), FORGET_MS, logger),
    createRepeater("forgetting old keys", async () => void keys.forgetOld(), FORGET_MS, logger),
    ...(timers ? [createRepeater("acting on deadlines", timers.act, TIMERS_MS, logger)] : []),
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
  const stop = () => {
    stopping.abort(new Unavailable("the server is shutting down: try again"));
    return running.disposeAsync();
  };
  return {
    addresses: { grpc: grpc.address, http: http.url },
    serverNames: { ...(grpcTls && { grpc: grpcTls.serverName }), ...(httpTls && { http: httpTls.serverName }) },
    stop,
  };
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.");
}

async function retain(options: RetentionOptions, signal: AbortSignal, logger: Logger): Promise<void> {
  const destroyed = await destroyExpiredKeys(options, signal);
  if (destroyed > 0)
    logger.info({ keys: destroyed, retention_days: options.days }, "personal data of orders that ended long ago was destroyed");
}

async function connect({ mongodbUrl, mongodbTls }: AppConfig): Promise<MongoClient> {
  const client = createLogClient(mongodbUrl, mongodbTls);
  try {
    await client.connect();
    return client;
  } catch (cause) {
    await client.close();
    const why = cause instanceof Error ? ` (${cause.message})` : "";
    throw new Error(`MongoDB cannot be reached${why}: check MONGODB_URL, or leave it unset to have one started`, { cause });
  }
}
