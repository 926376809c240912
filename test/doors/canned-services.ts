import { once } from "node:events";
import { setImmediate as nextTurn } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import type { Caller } from "../../src/domain/caller.ts";
import { Refusal, type RefusalReason } from "../../src/domain/refusal.ts";
import { DeliveryProvider, OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { ErrorReason } from "../../src/gen/ordertrail/v1/error_reason_pb.js";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingSchema } from "../../src/gen/ordertrail/v1/order_tracking_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { type Call, type ServedService, type ServiceHandlers, served } from "../../src/services/call.ts";

/** What the canned handlers were asked, newest last. */
export type Asked = { readonly request: object; readonly call: Call };

/** Services whose answers depend on nothing but the request, so that the doors can be tested by themselves. */
export type CannedServices = {
  readonly services: readonly ServedService[];
  readonly asked: Asked[];
  /** How many answers the streams have made. */
  streamed(): number;
};

/**
 * Orders answer by their name: "refuse-<REASON>" is refused for that reason, "fault" has a fault, "deaf" never answers,
 * "slow" answers never either but heeds the signal. Of projections, "endless" streams until it is stopped,
 * "careless" too but then ends as if complete, "broken" fails after two answers, and any other streams three.
 */
export function cannedServices(): CannedServices {
  const asked: Asked[] = [];
  let streamed = 0;

  async function answer(request: { readonly orderId: string }, call: Call) {
    asked.push({ request, call });
    await behave(request.orderId, call.signal);
    return { order: orderOf(request.orderId) };
  }

  const tracking: ServiceHandlers<typeof OrderTrackingService> = {
    initTracking: async (request, call) => {
      const { order } = await answer(request, call);
      const { storeId, customerId, items, metadata, deliveryProvider } = request;
      return { order: { ...order, storeId, customerId, items, metadata, deliveryProvider } };
    },
    getTracking: answer,
    listTrackings: async (request, call) => {
      asked.push({ request, call });
      return { orders: [orderOf("order-1"), orderOf("order-2")], nextPageToken: "" };
    },
    getHistory: async (request, call) => {
      asked.push({ request, call });
      await behave(request.orderId, call.signal);
      return { events: [{ position: 7n, version: 1, type: "OrderSubmitted", status: OrderStatus.SUBMITTED }] };
    },
    updateStatus: answer,
    acknowledgeOrder: answer,
    updateSubstitutions: answer,
    resolveSubstitutions: answer,
    assignDriver: answer,
    updateLocation: answer,
    markDelivered: answer,
    cancelOrder: answer,
    async *watchTracking(request, call) {
      asked.push({ request, call });
      const { orderId, fromVersion } = request;
      await behave(orderId, call.signal);
      if (orderId === "over") return;
      const change = (version: number, ...eventTypes: string[]) => ({
        kind: { case: "change" as const, value: { order: { ...orderOf(orderId), version }, eventTypes } },
      });
      if (fromVersion === undefined) yield change(2);
      for (let version = 3; version < 5 || orderId === "endless"; version++) {
        if (orderId === "broken" && version === 4) throw new Refusal("UNAUTHENTICATED", "the token has expired: get a new one");
        call.signal.throwIfAborted();
        streamed += 1;
        yield change(version, "PickingStarted", `Event${version}`);
        await nextTurn();
      }
      yield { kind: { case: "heartbeat", value: { serverTime: { seconds: 1_800_000_000n }, position: 12n } } };
    },
  };

  const operations: ServiceHandlers<typeof OperationsService> = {
    listProjections: async (request, call) => {
      asked.push({ request, call });
      return { projections: [{ name: "order_tracking", position: 7n }], logPosition: 7n };
    },
    async *rebuildProjection(request, call) {
      asked.push({ request, call });
      if (request.name === "careless") {
        yield { position: 1n, target: 3n };
        await once(call.signal, "abort");
        return;
      }
      for (let position = 1n; ; position += 1n) {
        if (request.name === "broken" && position === 3n) throw new Error("the secret cause");
        call.signal.throwIfAborted();
        const done = request.name !== "endless" && position === 3n;
        streamed += 1;
        yield { position, target: 3n, done };
        if (done) return;
        await nextTurn();
      }
    },
    listDenials: async () => ({ process: "canned", denials: [] }),
    getStore: async () => ({}),
    putStore: async () => ({}),
    async *verifyProjection(request, call) {
      asked.push({ request, call });
      yield { checked: 1n, done: true };
    },
    async *rotateKeys(request, call) {
      asked.push({ request, call });
      yield { masterKeyId: "newest", rewrapped: 1n, done: true };
    },
  };

  return { services: [served(OrderTrackingService, tracking), served(OperationsService, operations)], asked, streamed: () => streamed };
}

/** Takes tokens such as "operator-ann"; refuses any other. */
export async function verifyCannedToken(token: string): Promise<Caller> {
  const [role, subject] = token.split("-");
  const known = Object.entries(Role).find(([name]) => name.toLowerCase() === role)?.[1];
  if (typeof known !== "number" || subject === undefined) throw new Refusal("UNAUTHENTICATED", "the token does not verify: get a new one");
  return { role: known, subject };
}

/** Every reason of the protos but "unspecified". */
export const REASONS: readonly RefusalReason[] = Object.keys(ErrorReason).filter(
  (name): name is RefusalReason => Number.isNaN(Number(name)) && name !== "UNSPECIFIED",
);

async function behave(orderId: string, signal: AbortSignal): Promise<void> {
  const reason = REASONS.find((name) => orderId === `refuse-${name}`);
  if (reason) throw new Refusal(reason, `refused for the test: ${reason}`, { current_status: "SUBMITTED" });
  if (orderId === "fault") throw new Error("the secret cause");
  if (orderId === "deaf") await new Promise(() => undefined);
  if (orderId === "slow") {
    if (!signal.aborted) await once(signal, "abort");
    throw signal.reason;
  }
}

function orderOf(orderId: string) {
  return create(OrderTrackingSchema, {
    orderId,
    storeId: "store-1",
    customerId: "customer-1",
    currentStatus: OrderStatus.STORE_NOTIFIED,
    deliveryProvider: DeliveryProvider.UNSPECIFIED,
    statusHistory: [
      { status: OrderStatus.SUBMITTED, timestamp: { seconds: 1_800_000_000n }, actor: { role: Role.SERVICE, subject: "checkout" } },
      {
        status: OrderStatus.STORE_NOTIFIED,
        previousStatus: OrderStatus.SUBMITTED,
        timestamp: { seconds: 1_800_000_001n },
        actor: { role: Role.SERVICE, subject: "checkout" },
        inferred: true,
      },
    ],
    metadata: { channel: "app" },
    version: 2,
    position: 12n,
    createdAt: { seconds: 1_800_000_000n },
  });
}
