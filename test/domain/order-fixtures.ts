import { create } from "@bufbuild/protobuf";
import type { Actor } from "../../src/domain/caller.ts";
import { type AssignDriver, decide, evolve, type InitTracking, type OrderCommand, type OrderState } from "../../src/domain/order.ts";
import { type Happening, happened } from "../../src/domain/order-event.ts";
import { Refusal, type RefusalReason } from "../../src/domain/refusal.ts";
import type { Event } from "../../src/gen/ordertrail/events/v1/log_entry_pb.js";
import {
  DeliveryJobSchema,
  DriverSchema,
  OrderDeadlinesSchema,
  type ProposedSubstitution,
  ProposedSubstitutionSchema,
} from "../../src/gen/ordertrail/events/v1/order_events_pb.js";
import {
  DeliveryProvider,
  ItemSchema,
  OrderStatus,
  Role,
  type Sealed,
  SealedSchema,
  SubstitutionPolicy,
} from "../../src/gen/ordertrail/events/v1/values_pb.js";

export const NOW = new Date("2026-03-01T12:00:00Z");
export const LATER = new Date("2026-03-01T12:30:00Z");

export const actor = (role: Role): Actor => ({ role, subject: `the-${Role[role]?.toLowerCase()}` });
export const sealed = (text: string): Sealed =>
  create(SealedSchema, { keyId: new Uint8Array(16), nonce: new Uint8Array(12), ciphertext: new TextEncoder().encode(text) });
export const item = (itemId: string) =>
  create(ItemSchema, { itemId, name: itemId, quantity: 1, unitPrice: { amountMinor: 129n, currency: "EUR" } });
export const driver = (driverId: string) =>
  create(DriverSchema, { driverId, vehicleType: "bicycle", personal: sealed(`about ${driverId}`) });
export const delivery = (providerDeliveryId: string, attempt = 0) =>
  create(DeliveryJobSchema, { providerDeliveryId, attempt, fee: { amountMinor: 399n, currency: "EUR" } });
export const proposal = (substitutionId: string, reason = "sold out"): ProposedSubstitution =>
  create(ProposedSubstitutionSchema, { substitutionId, originalItem: item("milk"), replacementItem: item("oat-milk"), reason });

export const LIMITS = create(OrderDeadlinesSchema, {
  acknowledgmentSeconds: 60,
  substitutionsSeconds: 120,
  driverAssignmentSeconds: 180,
  pickupSeconds: 240,
  escalationSeconds: 30,
});

export const INIT: InitTracking = {
  type: "InitTracking",
  orderId: "order-7",
  storeId: "store-7",
  customerId: "customer-7",
  deliveryProvider: DeliveryProvider.UBER,
  items: [item("milk")],
  recipient: sealed("Ada"),
  metadata: { basket: "b-1" },
  substitutionPolicy: SubstitutionPolicy.BEST_MATCH,
  deadlines: LIMITS,
};
export const go = (status: OrderStatus, note?: Sealed): OrderCommand => ({ type: "UpdateStatus", status, note });
export const propose = (...ids: string[]): OrderCommand => ({ type: "ProposeSubstitutions", substitutions: ids.map((id) => proposal(id)) });
export const answer = (approved: boolean, ...ids: string[]): OrderCommand => ({
  type: "ResolveSubstitutions",
  resolutions: ids.map((substitutionId) => ({ substitutionId, approved })),
});
export const assign = (driverId: string, more: Partial<AssignDriver> = {}): AssignDriver => ({
  type: "AssignDriver",
  driver: driver(driverId),
  deliveryProvider: DeliveryProvider.UNSPECIFIED,
  ...more,
});
export const deliver = (deliveredAt = LATER, proof?: Sealed): OrderCommand => ({ type: "MarkDelivered", deliveredAt, proof });
export const acknowledge = (accepted: boolean, readyAt?: Date): OrderCommand => ({
  type: "AcknowledgeOrder",
  accepted,
  reason: "closed",
  readyAt,
});
export const check = (at: Date): OrderCommand => ({ type: "CheckDeadline", at });
export const cancel = (reason = "changed my mind"): OrderCommand => ({ type: "CancelOrder", reason });

const SUBMITTED: Happening = {
  case: "orderSubmitted",
  value: { orderId: "order-7", storeId: "store-7", customerId: "customer-7", deliveryProvider: DeliveryProvider.UBER },
};
const PICKING: Happening[] = [
  SUBMITTED,
  { case: "storeNotified", value: {} },
  { case: "storeAcknowledged", value: {} },
  { case: "pickingStarted", value: {} },
];
const READY: Happening[] = [...PICKING, { case: "orderReadied", value: {} }];
const ASSIGNED: Happening[] = [
  ...READY,
  { case: "driverAssigned", value: { driver: driver("d-1"), deliveryProvider: DeliveryProvider.UBER } },
];
const PICKED_UP: Happening[] = [...ASSIGNED, { case: "driverPickupCompleted", value: {} }];
const IN_TRANSIT: Happening[] = [...PICKED_UP, { case: "transitStarted", value: {} }];

/** What happens until an order first has a status, told in events and without `decide`. */
export const UNTIL: ReadonlyMap<OrderStatus, readonly Happening[]> = new Map<OrderStatus, Happening[]>([
  [OrderStatus.SUBMITTED, PICKING.slice(0, 1)],
  [OrderStatus.STORE_NOTIFIED, PICKING.slice(0, 2)],
  [OrderStatus.STORE_ACKNOWLEDGED, PICKING.slice(0, 3)],
  [OrderStatus.PICKING_IN_PROGRESS, PICKING],
  [OrderStatus.SUBSTITUTIONS_NEEDED, [...PICKING, { case: "substitutionsProposed", value: { substitutions: [proposal("s-1")] } }]],
  [OrderStatus.READY_FOR_PICKUP, READY],
  [OrderStatus.DRIVER_ASSIGNED, ASSIGNED],
  [OrderStatus.DRIVER_PICKUP_COMPLETE, PICKED_UP],
  [OrderStatus.IN_TRANSIT, IN_TRANSIT],
  [OrderStatus.DELIVERED, [...IN_TRANSIT, { case: "orderDelivered", value: {} }]],
  [OrderStatus.CANCELLED, [SUBMITTED, { case: "orderCancelled", value: { reason: "changed my mind" } }]],
  [OrderStatus.RETURNING, [...IN_TRANSIT, { case: "deliveryFailed", value: {} }]],
]);

/** An order that first has a status now. */
export function orderIn(status: OrderStatus): OrderState {
  const events = (UNTIL.get(status) ?? []).map((kind) => happened(kind));
  return fold(undefined, events, Role.SERVICE);
}

/** The order after events that one actor brought about. */
export function fold(state: OrderState | undefined, events: readonly Event[], role: Role): OrderState {
  const after = events.reduce<OrderState | undefined>(
    (before, event) => evolve(before, event, { actor: actor(role), recordedAt: NOW }),
    state,
  );
  if (!after) throw new Error("an order needs an event");
  return after;
}

/** The order after a command, and the command's events in short: "pickingStarted", or "pickingStarted*" when inferred. */
export function when(
  state: OrderState | undefined,
  command: OrderCommand,
  role: Role,
): { order: OrderState; events: Event[]; types: string[] } {
  const events = decide(state, command, actor(role));
  const order = events.length === 0 && state ? state : fold(state, events, role);
  return { order, events, types: events.map((event) => `${event.kind.case}${event.inferred ? "*" : ""}`) };
}

/** The refusal that a command meets. */
export function refusal(state: OrderState | undefined, command: OrderCommand, role: Role): Refusal {
  try {
    decide(state, command, actor(role));
  } catch (error) {
    if (error instanceof Refusal) return error;
    throw error;
  }
  throw new Error(`${command.type} was not refused`);
}

/** What a refusal tells a program, in one value. */
export function told({ reason, metadata }: Refusal): { reason: RefusalReason } & Record<string, string> {
  return { reason, ...metadata };
}

export const ROLES: readonly Role[] = [
  Role.SERVICE,
  Role.CUSTOMER,
  Role.STORE,
  Role.DRIVER,
  Role.PARTNER,
  Role.AUDITOR,
  Role.OPERATOR,
  Role.SYSTEM,
];
export const STATUSES: readonly OrderStatus[] = [...UNTIL.keys()];
