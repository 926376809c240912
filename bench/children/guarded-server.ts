import { randomUUID } from "node:crypto";
import { MongoClient } from "mongodb";
import { createDenials } from "../../src/access/denials.ts";
import { ownIssuer } from "../../src/access/issuers.ts";
import { mayAccess, PERMISSIONS, type Permission } from "../../src/access/permissions.ts";
import { createRevocations } from "../../src/access/revocations.ts";
import { createSigningKeys } from "../../src/access/signing-keys.ts";
import { createTokenVerifier } from "../../src/access/tokens.ts";
import { Refusal } from "../../src/domain/refusal.ts";
import { createDispatcher } from "../../src/doors/dispatch.ts";
import { DOOR_LIMITS } from "../../src/doors/door-limits.ts";
import { startGrpcServer } from "../../src/doors/grpc-server.ts";
import { parseProxies } from "../../src/doors/proxies.ts";
import { createReadiness } from "../../src/doors/readiness.ts";
import { DeliveryProvider, OrderStatus } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { createLogger } from "../../src/logger.ts";
import { createKeyWrapper } from "../../src/privacy/key-wrapper.ts";
import { parseMasterKeys } from "../../src/privacy/master-key.ts";
import type { AnyHandler, Call, ServedService } from "../../src/services/call.ts";
import { serveParent } from "../child.ts";

export type GuardedKnowledge = {
  readonly mongodbUrl: string;
  readonly database: string;
  /** Whether it looks at who calls. */
  readonly guarded: boolean;
  readonly callers: number;
};

/** Where it listens, and the tokens of those who call. */
export type Guarded = { readonly address: string; readonly tokens: readonly string[] };

const METHOD = "ordertrail.v1.OrderTrackingService/GetTracking";
const REVOKED = 1000;

/**
 * Ordertrail's gRPC door before a GetTracking that always answers the same small order. Guarded, it does all that is done
 * about access: verifies the token, looks whether it is revoked, checks the role and the order. Else the method is public.
 */
await serveParent<GuardedKnowledge, "address", Guarded>(async ({ mongodbUrl, database, guarded, callers }) => {
  const logger = createLogger("silent");
  const clock = () => new Date();
  const client = await MongoClient.connect(mongodbUrl);
  const db = client.db(database);
  const revocations = createRevocations(db, clock, logger);
  await revocations.start();
  await revocations.revoke(
    Array.from({ length: REVOKED }, () => `token:${randomUUID()}` as const),
    new Date(Date.now() + 3_600_000),
  );
  const wrapping = await createKeyWrapper(() => parseMasterKeys(Buffer.alloc(32).toString("base64")), clock);
  const keys = createSigningKeys({ db, wrapping, clock, logger, isRevoked: () => false });
  const names = { issuer: "bench", audience: "bench" };
  const { verify } = createTokenVerifier({
    issuers: [ownIssuer({ ...names, keys: keys.source })],
    revocations,
    clockSkewSeconds: 30,
    clock,
    cacheSize: 10_000,
  });
  if (!guarded) (PERMISSIONS as Map<string, Permission>).set(METHOD, { roles: "public", reach: "all" });

  const parties = {
    orderId: "order-1",
    customerId: "customer-1",
    storeId: "store-1",
    deliveryProvider: DeliveryProvider.UBER,
    driver: undefined,
  };
  const order = { orderId: "order-1", storeId: "store-1", customerId: "customer-1", currentStatus: OrderStatus.SUBMITTED, version: 1 };
  const answer: AnyHandler = async (_, { caller }: Call) => {
    if (guarded && !mayAccess(caller, parties)) throw new Refusal("ORDER_NOT_FOUND", "there is no such order");
    return { order };
  };
  const handlers = Object.fromEntries(OrderTrackingService.methods.map(({ localName }) => [localName, answer]));
  const services: ServedService[] = [{ desc: OrderTrackingService, handlers }];
  const dispatcher = createDispatcher({
    services,
    verifyToken: verify,
    denials: createDenials({ perMinute: 60, logger, clock }),
    trustedProxies: parseProxies([]),
    logger,
    clock,
    defaultDeadlineMs: 10_000,
    maxDeadlineMs: 60_000,
    stopping: new AbortController().signal,
  });
  const server = await startGrpcServer({
    dispatcher,
    host: "127.0.0.1",
    port: 0,
    limits: DOOR_LIMITS,
    maxRequestBytes: 1 << 20,
    maxResponseBytes: 1 << 20,
    drainTimeoutMs: 1000,
    readiness: createReadiness({}, logger),
    logger,
  });
  const tokens = await Promise.all(
    Array.from({ length: callers }, (_, index) =>
      keys.sign(
        { iss: "bench", aud: "bench", sub: `clerk-${index}`, role: "store", store_id: "store-1", jti: randomUUID(), sid: randomUUID() },
        3600,
      ),
    ),
  );
  return {
    answer: () => Promise.resolve({ address: server.address, tokens }),
    close: async () => {
      await server.stop();
      await revocations.stop();
      await client.close();
    },
  };
});
