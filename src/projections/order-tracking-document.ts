import { create, type JsonObject } from "@bufbuild/protobuf";
import { Binary, Long } from "mongodb";
import type { Actor } from "../domain/caller.ts";
import type { OrderState, StatusStep, SubstitutionState } from "../domain/order.ts";
import type { Waiting } from "../domain/order-deadlines.ts";
import type { CourierJob, JobStatus } from "../domain/order-delivery.ts";

import {
  type DeliveryJob,
  DeliveryJobSchema,
  type Driver,
  DriverSchema,
  type OrderDeadlines,
  OrderDeadlinesSchema,
} from "../gen/ordertrail/events/v1/order_events_pb.js";

import {
  Deadline,
  DeliveryProvider,
  DriverMilestone,
  type Item,
  ItemSchema,
  type Money,
  MoneySchema,
  OrderStatus,
  Role,
  type Sealed,
  SealedSchema,
  SubstitutionPolicy,
  SubstitutionStatus,
} from "../gen/ordertrail/events/v1/values_pb.js";
import type { Snapshot } from "../log/transact.ts";

type ActorDocument = { readonly role: string; readonly subject: string };
type SealedDocument = { readonly key_id: Binary; readonly nonce: Binary; readonly ciphertext: Binary };
/** Written as a 64-bit integer; the driver reads it as a number where that is exact. */
type Integer = Long | number;
type MoneyDocument = { readonly amount_minor: Integer; readonly currency: string };
type ItemDocument = {
  readonly item_id: string;
  readonly name: string;
  readonly quantity: number;
  readonly unit_price: MoneyDocument | null;
};

/** How long an order may wait for what. */
export type DeadlinesDocument = {
  readonly acknowledgment_seconds: number;
  readonly substitutions_seconds: number;
  readonly driver_assignment_seconds: number;
  readonly pickup_seconds: number;
  readonly escalation_seconds: number;
  readonly cancel_unacknowledged: boolean;
};

/** What an order waits for. */
export type WaitingDocument = {
  readonly deadline: string;
  readonly since: Date;
  readonly due_at: Date;
  readonly escalates_at: Date;
  readonly reminded_at: Date | null;
  readonly escalated_at: Date | null;
};

type DeliveryDocument = {
  readonly provider_delivery_id: string;
  readonly fee: MoneyDocument | null;
  readonly tracking_url: string;
  readonly attempt: number;
};

/** Where a driver was, as documents hold it. The place itself is sealed: at the end of the way it is the customer's address. */
export type LocationDocument = {
  readonly place: SealedDocument;
  readonly heading_deg: number | null;
  readonly speed_mps: number | null;
  readonly accuracy_m: number | null;
  readonly recorded_at: Date;
  /** When the driver is expected at the customer's, as of then; absent in points of before that was kept. */
  readonly eta?: Date | null;
};

/** A document of `order_tracking` as far as the log tells it. What is absent is null; enum values are their bare names; personal data is sealed. */
export type OrderDocument = {
  readonly order_id: string;
  readonly store_id: string;
  readonly customer_id: string;
  readonly current_status: string;
  readonly delivery_provider: string | null;
  readonly status_history: readonly {
    readonly status: string;
    readonly previous_status: string | null;
    readonly timestamp: Date;
    readonly actor: ActorDocument;
    readonly note: SealedDocument | null;
    readonly inferred: boolean;
  }[];
  readonly milestones: readonly { readonly milestone: string; readonly reached_at: Date }[];
  readonly driver_details: { readonly driver_id: string; readonly vehicle_type: string; readonly personal: SealedDocument | null } | null;
  readonly substitutions: readonly {
    readonly substitution_id: string;
    readonly original_item: ItemDocument | null;
    readonly replacement_item: ItemDocument | null;
    readonly reason: string;
    readonly status: string;
    readonly proposed_at: Date;
    readonly resolved_at: Date | null;
    readonly resolved_by: ActorDocument | null;
  }[];
  readonly metadata: JsonObject | null;
  readonly items: readonly ItemDocument[];
  readonly recipient: SealedDocument | null;
  readonly ready_at: Date | null;
  readonly eta: Date | null;
  readonly cancellation: {
    readonly reason: string;
    readonly actor: ActorDocument;
    readonly cancelled_at: Date;
    readonly previous_status: string;
  } | null;
  readonly proof_of_delivery: { readonly delivered_at: Date; readonly details: SealedDocument | null } | null;
  readonly delivery: DeliveryDocument | null;
  /** The newest request for a courier. */
  readonly courier_job: {
    readonly provider: string;
    readonly attempt: number;
    readonly state: string;
    readonly quote_id: string;
    readonly quoted_fee: MoneyDocument | null;
    readonly alternatives: readonly string[];
    readonly requested_at: Date;
    readonly delivery: DeliveryDocument | null;
    readonly reason: string;
    readonly overruled: boolean;
    readonly unanswered: readonly { readonly provider: string; readonly attempt: number }[];
  } | null;
  readonly late_reports: readonly string[];
  readonly substitution_policy: string | null;
  readonly deadlines: DeadlinesDocument | null;
  readonly waiting_for: WaitingDocument | null;
  readonly version: number;
  readonly position: Integer;
  readonly created_at: Date;
  readonly updated_at: Date;
};

/** A document of `order_tracking`. */
export type OrderTrackingDocument = OrderDocument & { readonly driver_location: LocationDocument | null };

/** An order as a document. `fromDocument` of it gives the same order again. */
export function toDocument({ state, version, position }: Snapshot<OrderState>): OrderDocument {
  return {
    order_id: state.orderId,
    store_id: state.storeId,
    customer_id: state.customerId,
    current_status: statusName(state.status),
    delivery_provider: state.deliveryProvider === DeliveryProvider.UNSPECIFIED ? null : providerName(state.deliveryProvider),
    status_history: state.history.map((step) => ({
      status: statusName(step.status),
      previous_status: step.previousStatus === OrderStatus.UNSPECIFIED ? null : statusName(step.previousStatus),
      timestamp: step.at,
      actor: actorToDocument(step.actor),
      note: sealedToDocument(step.note),
      inferred: step.inferred,
    })),
    milestones: state.milestones.map(({ milestone, at }) => ({ milestone: nameOf(DriverMilestone, milestone), reached_at: at })),
    driver_details: state.driver
      ? { driver_id: state.driver.driverId, vehicle_type: state.driver.vehicleType, personal: sealedToDocument(state.driver.personal) }
      : null,
    substitutions: state.substitutions.map((substitution) => ({
      substitution_id: substitution.substitutionId,
      original_item: substitution.originalItem ? itemToDocument(substitution.originalItem) : null,
      replacement_item: substitution.replacementItem ? itemToDocument(substitution.replacementItem) : null,
      reason: substitution.reason,
      status: nameOf(SubstitutionStatus, substitution.status),
      proposed_at: substitution.proposedAt,
      resolved_at: substitution.resolvedAt ?? null,
      resolved_by: substitution.resolvedBy ? actorToDocument(substitution.resolvedBy) : null,
    })),
    metadata: state.metadata ?? null,
    items: state.items.map(itemToDocument),
    recipient: sealedToDocument(state.recipient),
    ready_at: state.readyAt ?? null,
    eta: state.eta ?? null,
    cancellation: state.cancellation
      ? {
          reason: state.cancellation.reason,
          actor: actorToDocument(state.cancellation.actor),
          cancelled_at: state.cancellation.at,
          previous_status: statusName(state.cancellation.previousStatus),
        }
      : null,
    proof_of_delivery: state.proof ? { delivered_at: state.proof.deliveredAt, details: sealedToDocument(state.proof.details) } : null,
    delivery: deliveryToDocument(state.delivery),
    courier_job: state.job
      ? {
          provider: providerName(state.job.provider),
          attempt: state.job.attempt,
          state: state.job.status,
          quote_id: state.job.quoteId,
          quoted_fee: moneyToDocument(state.job.quotedFee),
          alternatives: state.job.alternatives.map(providerName),
          requested_at: state.job.requestedAt,
          delivery: deliveryToDocument(state.job.delivery),
          reason: state.job.reason,
          overruled: state.job.overruled,
          unanswered: state.job.unanswered.map(({ provider, attempt }) => ({ provider: providerName(provider), attempt })),
        }
      : null,
    late_reports: state.lateReports.map(statusName),
    substitution_policy:
      state.substitutionPolicy === SubstitutionPolicy.UNSPECIFIED ? null : nameOf(SubstitutionPolicy, state.substitutionPolicy),
    deadlines: deadlinesToDocument(state.deadlines),
    waiting_for: waitingToDocument(state.waiting),
    version,
    position: Long.fromNumber(position),
    created_at: state.createdAt,
    updated_at: state.updatedAt,
  };
}

/** The part of the state that each field is made of; a part that is the same object as before has not changed. */
const PARTS: { readonly [Field in keyof OrderDocument]: keyof OrderState | keyof Snapshot<OrderState> } = {
  order_id: "orderId",
  store_id: "storeId",
  customer_id: "customerId",
  current_status: "status",
  delivery_provider: "deliveryProvider",
  status_history: "history",
  milestones: "milestones",
  driver_details: "driver",
  substitutions: "substitutions",
  metadata: "metadata",
  items: "items",
  recipient: "recipient",
  ready_at: "readyAt",
  eta: "eta",
  cancellation: "cancellation",
  proof_of_delivery: "proof",
  delivery: "delivery",
  courier_job: "job",
  late_reports: "lateReports",
  substitution_policy: "substitutionPolicy",
  deadlines: "deadlines",
  waiting_for: "waiting",
  version: "version",
  position: "position",
  created_at: "createdAt",
  updated_at: "updatedAt",
};

/** Those fields of an order's document that are not as they were before. */
export function toChanges(before: Snapshot<OrderState>, after: Snapshot<OrderState>): Partial<OrderDocument> {
  const was = { ...before.state, ...before };
  const is = { ...after.state, ...after };
  const changed = Object.entries(toDocument(after)).filter(([field]) => {
    const part = PARTS[field as keyof OrderDocument];
    return was[part] !== is[part];
  });
  return Object.fromEntries(changed);
}

/** The order of a document. */
export function fromDocument(document: OrderDocument): Snapshot<OrderState> {
  const state: OrderState = {
    orderId: document.order_id,
    storeId: document.store_id,
    customerId: document.customer_id,
    status: statusOf(document.current_status),
    deliveryProvider: document.delivery_provider === null ? DeliveryProvider.UNSPECIFIED : providerOf(document.delivery_provider),
    history: document.status_history.map(
      (step): StatusStep => ({
        status: statusOf(step.status),
        previousStatus: step.previous_status === null ? OrderStatus.UNSPECIFIED : statusOf(step.previous_status),
        at: step.timestamp,
        actor: actorFromDocument(step.actor),
        note: sealedFromDocument(step.note),
        inferred: step.inferred,
      }),
    ),
    // A document of an older revision, which lists show until it is made anew, has none.
    milestones: (document.milestones ?? []).map(({ milestone, reached_at }) => ({
      milestone: valueNamed(DriverMilestone, milestone),
      at: reached_at,
    })),
    driver: driverFromDocument(document.driver_details),
    delivery: deliveryFromDocument(document.delivery),
    job: jobFromDocument(document.courier_job),
    eta: document.eta ?? undefined,
    readyAt: document.ready_at ?? undefined,
    substitutions: document.substitutions.map(
      (substitution): SubstitutionState => ({
        substitutionId: substitution.substitution_id,
        originalItem: substitution.original_item ? itemFromDocument(substitution.original_item) : undefined,
        replacementItem: substitution.replacement_item ? itemFromDocument(substitution.replacement_item) : undefined,
        reason: substitution.reason,
        status: valueNamed(SubstitutionStatus, substitution.status),
        proposedAt: substitution.proposed_at,
        resolvedAt: substitution.resolved_at ?? undefined,
        resolvedBy: substitution.resolved_by ? actorFromDocument(substitution.resolved_by) : undefined,
      }),
    ),
    items: document.items.map(itemFromDocument),
    recipient: sealedFromDocument(document.recipient),
    metadata: document.metadata ?? undefined,
    cancellation: document.cancellation
      ? {
          reason: document.cancellation.reason,
          actor: actorFromDocument(document.cancellation.actor),
          at: document.cancellation.cancelled_at,
          previousStatus: statusOf(document.cancellation.previous_status),
        }
      : undefined,
    proof: document.proof_of_delivery
      ? { deliveredAt: document.proof_of_delivery.delivered_at, details: sealedFromDocument(document.proof_of_delivery.details) }
      : undefined,
    lateReports: document.late_reports.map(statusOf),
    substitutionPolicy:
      document.substitution_policy === null ? SubstitutionPolicy.UNSPECIFIED : valueNamed(SubstitutionPolicy, document.substitution_policy),
    deadlines: deadlinesFromDocument(document.deadlines),
    waiting: waitingFromDocument(document.waiting_for),
    createdAt: document.created_at,
    updatedAt: document.updated_at,
  };
  return { state, version: document.version, position: Number(document.position) };
}

/** The bare name of a status, such as "STORE_NOTIFIED". */
export function statusName(status: OrderStatus): string {
  return nameOf(OrderStatus, status);
}

/** The bare name of a delivery provider, such as "UBER". */
export function providerName(provider: DeliveryProvider): string {
  return nameOf(DeliveryProvider, provider);
}

/** How long an order may wait, as a document. */
export function deadlinesToDocument(deadlines: OrderDeadlines | undefined): DeadlinesDocument | null {
  return deadlines
    ? {
        acknowledgment_seconds: deadlines.acknowledgmentSeconds,
        substitutions_seconds: deadlines.substitutionsSeconds,
        driver_assignment_seconds: deadlines.driverAssignmentSeconds,
        pickup_seconds: deadlines.pickupSeconds,
        escalation_seconds: deadlines.escalationSeconds,
        cancel_unacknowledged: deadlines.cancelUnacknowledged,
      }
    : null;
}

/** How long the order of a document may wait. */
export function deadlinesFromDocument(document: DeadlinesDocument | null): OrderDeadlines | undefined {
  return document === null
    ? undefined
    : create(OrderDeadlinesSchema, {
        acknowledgmentSeconds: document.acknowledgment_seconds,
        substitutionsSeconds: document.substitutions_seconds,
        driverAssignmentSeconds: document.driver_assignment_seconds,
        pickupSeconds: document.pickup_seconds,
        escalationSeconds: document.escalation_seconds,
        cancelUnacknowledged: document.cancel_unacknowledged,
      });
}

/** What an order waits for, as a document. */
export function waitingToDocument(waiting: Waiting | undefined): WaitingDocument | null {
  return waiting
    ? {
        deadline: nameOf(Deadline, waiting.deadline),
        since: waiting.since,
        due_at: waiting.dueAt,
        escalates_at: waiting.escalatesAt,
        reminded_at: waiting.remindedAt ?? null,
        escalated_at: waiting.escalatedAt ?? null,
      }
    : null;
}

/** What the order of a document waits for. */
export function waitingFromDocument(document: WaitingDocument | null): Waiting | undefined {
  return document === null
    ? undefined
    : {
        deadline: valueNamed(Deadline, document.deadline),
        since: document.since,
        dueAt: document.due_at,
        escalatesAt: document.escalates_at,
        remindedAt: document.reminded_at ?? undefined,
        escalatedAt: document.escalated_at ?? undefined,
      };
}

type Names = Readonly<Record<string | number, string | number>>;

/** A value that only a newer writer knows keeps its number, so that nothing is lost. */
function nameOf(names: Names, value: number): string {
  return String(names[value] ?? value);
}

function valueNamed<Value extends number>(names: Readonly<Record<string, Value | string>>, name: string): Value {
  return Number(names[name] ?? name) as Value;
}

/** The status of a bare name. */
export function statusOf(name: string): OrderStatus {
  return valueNamed(OrderStatus, name);
}

function providerOf(name: string): DeliveryProvider {
  return valueNamed(DeliveryProvider, name);
}

function actorToDocument({ role, subject }: Actor): ActorDocument {
  return { role: nameOf(Role, role), subject };
}

function actorFromDocument({ role, subject }: ActorDocument): Actor {
  return { role: valueNamed(Role, role), subject };
}

function sealedToDocument(sealed: Sealed | undefined): SealedDocument | null {
  return sealed ? toSealedDocument(sealed) : null;
}

/** What is sealed, as documents hold it. */
export function toSealedDocument({ keyId, nonce, ciphertext }: Sealed): SealedDocument {
  return { key_id: new Binary(keyId), nonce: new Binary(nonce), ciphertext: new Binary(ciphertext) };
}

function sealedFromDocument(sealed: SealedDocument | null): Sealed | undefined {
  return sealed === null ? undefined : fromSealedDocument(sealed);
}

/** What documents hold sealed. */
export function fromSealedDocument(sealed: SealedDocument): Sealed {
  return create(SealedSchema, { keyId: bytesOf(sealed.key_id), nonce: bytesOf(sealed.nonce), ciphertext: bytesOf(sealed.ciphertext) });
}

/** A copy: what the driver reads shows a part of the whole reply, which would stay in memory as long as the part. */
function bytesOf(binary: Binary): Uint8Array<ArrayBuffer> {
  return new Uint8Array(binary.value());
}

function moneyToDocument(money: Money | undefined): MoneyDocument | null {
  return money ? { amount_minor: Long.fromBigInt(money.amountMinor), currency: money.currency } : null;
}

function moneyFromDocument(money: MoneyDocument | null): Money | undefined {
  if (money === null) return undefined;
  const { amount_minor } = money;
  return create(MoneySchema, {
    amountMinor: typeof amount_minor === "number" ? BigInt(amount_minor) : amount_minor.toBigInt(),
    currency: money.currency,
  });
}

function itemToDocument(item: Item): ItemDocument {
  return { item_id: item.itemId, name: item.name, quantity: item.quantity, unit_price: moneyToDocument(item.unitPrice) };
}

function itemFromDocument(item: ItemDocument): Item {
  const created = create(ItemSchema, { itemId: item.item_id, name: item.name, quantity: item.quantity });
  const unitPrice = moneyFromDocument(item.unit_price);
  if (unitPrice) created.unitPrice = unitPrice;
  return created;
}

function driverFromDocument(driver: OrderDocument["driver_details"]): Driver | undefined {
  if (driver === null) return undefined;
  const created = create(DriverSchema, { driverId: driver.driver_id, vehicleType: driver.vehicle_type });
  const personal = sealedFromDocument(driver.personal);
  if (personal) created.personal = personal;
  return created;
}

function deliveryToDocument(delivery: DeliveryJob | undefined): DeliveryDocument | null {
  if (!delivery) return null;
  const { providerDeliveryId, fee, trackingUrl, attempt } = delivery;
  return { provider_delivery_id: providerDeliveryId, fee: moneyToDocument(fee), tracking_url: trackingUrl, attempt };
}

function deliveryFromDocument(delivery: DeliveryDocument | null): DeliveryJob | undefined {
  if (delivery === null) return undefined;
  const { provider_delivery_id: providerDeliveryId, tracking_url: trackingUrl, attempt } = delivery;
  const created = create(DeliveryJobSchema, { providerDeliveryId, trackingUrl, attempt });
  const fee = moneyFromDocument(delivery.fee);
  if (fee) created.fee = fee;
  return created;
}

function jobFromDocument(job: OrderDocument["courier_job"]): CourierJob | undefined {
  if (job === null) return undefined;
  return {
    provider: providerOf(job.provider),
    attempt: job.attempt,
    status: job.state as JobStatus,
    quoteId: job.quote_id,
    quotedFee: moneyFromDocument(job.quoted_fee),
    alternatives: job.alternatives.map(providerOf),
    requestedAt: job.requested_at,
    delivery: deliveryFromDocument(job.delivery),
    reason: job.reason,
    overruled: job.overruled,
    unanswered: job.unanswered.map(({ provider, attempt }) => ({ provider: providerOf(provider), attempt })),
  };
}
