import type { JsonObject } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import type { DeliveryJob, Driver, OrderDeadlines, ProposedSubstitution } from "../gen/ordertrail/events/v1/order_events_pb.js";
import {
  DeliveryProvider,
  type DriverMilestone,
  type Item,
  OrderStatus,
  type Sealed,
  SubstitutionPolicy,
  SubstitutionStatus,
} from "../gen/ordertrail/events/v1/values_pb.js";
import type { Actor } from "./caller.ts";
import { checkDeadline, type Waiting, waitingAfter } from "./order-deadlines.ts";
import { type CourierJob, type DeliveryCommand, decideDelivery, deliveryChanges } from "./order-delivery.ts";
import { assign } from "./order-driver.ts";
import { happened } from "./order-event.ts";
import { type Milestone, reachMilestone } from "./order-milestones.ts";
import { statusAfter } from "./order-moves.ts";
import { checkRole } from "./order-route.ts";
import { changeStatus } from "./order-status.ts";
import { propose, resolve } from "./order-substitutions.ts";
import { Refusal } from "./refusal.ts";

/** The stream of an order in the log. */
export const orderStream = (orderId: string): string => `order-${orderId}`;

/** One order as its events tell it. Plain data; parts that come from events are shared with them, so treat it as frozen. */
export type OrderState = {
  readonly orderId: string;
  readonly storeId: string;
  readonly customerId: string;
  readonly status: OrderStatus;
  readonly deliveryProvider: DeliveryProvider;
  /** Every status that it has had, oldest first. */
  readonly history: readonly StatusStep[];
  /** The driver, booked or assigned. Stays known while the goods come back. */
  readonly driver?: Driver | undefined;
  readonly delivery?: DeliveryJob | undefined;
  /** What the driver has come to on the way since they were assigned, oldest first. */
  readonly milestones: readonly Milestone[];
  /** The newest request for a courier. */
  readonly job?: CourierJob | undefined;
  readonly eta?: Date | undefined;
  readonly readyAt?: Date | undefined;
  /** Every proposal ever made, oldest first. */
  readonly substitutions: readonly SubstitutionState[];
  readonly items: readonly Item[];
  readonly recipient?: Sealed | undefined;
  readonly metadata?: JsonObject | undefined;
  readonly cancellation?: Cancellation | undefined;
  readonly proof?: Proof | undefined;
  /** What couriers reported too late to move anything, each status once. */
  readonly lateReports: readonly OrderStatus[];
  readonly substitutionPolicy: SubstitutionPolicy;
  /** How long it may wait for what; absent in orders of before that was kept. */
  readonly deadlines?: OrderDeadlines | undefined;
  /** What it waits for, for a limited time. */
  readonly waiting?: Waiting | undefined;
  readonly createdAt: Date;
  readonly updatedAt: Date;
};

/** One status that an order has had. */
export type StatusStep = {
  readonly status: OrderStatus;
  /** UNSPECIFIED in the first step. */
  readonly previousStatus: OrderStatus;
  readonly at: Date;
  readonly actor: Actor;
  readonly note?: Sealed | undefined;
  /** True when nobody reported it, but a later report implies it. */
  readonly inferred: boolean;
};

/** A proposal to replace an item, and what became of it. */
export type SubstitutionState = {
  readonly substitutionId: string;
  readonly originalItem?: Item | undefined;
  /** Absent when only a refund is offered. */
  readonly replacementItem?: Item | undefined;
  readonly reason: string;
  readonly status: SubstitutionStatus;
  readonly proposedAt: Date;
  readonly resolvedAt?: Date | undefined;
  readonly resolvedBy?: Actor | undefined;
};

/** Why, when and by whom an order was called off. */
export type Cancellation = {
  /** As an organisation gave it, or an entry of old; a person's own words are the note of the step. */
  readonly reason: string;
  readonly actor: Actor;
  readonly at: Date;
  readonly previousStatus: OrderStatus;
};

/** How an order was handed over. */
export type Proof = {
  readonly deliveredAt: Date;
  readonly details?: Sealed | undefined;
};

/** What somebody wants of an order. Carries every time and identifier that its events need. */
export type OrderCommand =
  | InitTracking
  | UpdateStatus
  | AcknowledgeOrder
  | ProposeSubstitutions
  | ResolveSubstitutions
  | AssignDriver
  | MarkDelivered
  | CancelOrder
  | CheckDeadline
  | ReachMilestone
  | DeliveryCommand;

/** Begins to track an order. */
export type InitTracking = {
  readonly type: "InitTracking";
  readonly orderId: string;
  readonly storeId: string;
  readonly customerId: string;
  readonly deliveryProvider: DeliveryProvider;
  readonly items: readonly Item[];
  readonly recipient?: Sealed | undefined;
  readonly metadata?: JsonObject | undefined;
  readonly substitutionPolicy: SubstitutionPolicy;
  readonly deadlines?: OrderDeadlines | undefined;
};

/** Moves the order along a step that needs no further data. */
export type UpdateStatus = {
  readonly type: "UpdateStatus";
  readonly status: OrderStatus;
  /** When the status is CANCELLED, the reason in a person's own words. */
  readonly note?: Sealed | undefined;
  /** Only used when the status is CANCELLED: the reason of an organisation, in the clear. */
  readonly reason?: string | undefined;
  /** True when the caller has given it an identifier: the same command sent again is then recognised, and never decided again. */
  readonly identified?: boolean;
};

/** The store's answer to the order. */
export type AcknowledgeOrder = {
  readonly type: "AcknowledgeOrder";
  readonly accepted: boolean;
  /** Why not; only used when not accepted. */
  readonly reason: string;
  readonly readyAt?: Date | undefined;
};

/** Asks the customer about replacements. */
export type ProposeSubstitutions = {
  readonly type: "ProposeSubstitutions";
  readonly substitutions: readonly ProposedSubstitution[];
};

/** Answers proposals. */
export type ResolveSubstitutions = {
  readonly type: "ResolveSubstitutions";
  readonly resolutions: readonly { readonly substitutionId: string; readonly approved: boolean }[];
};

/** Names the driver. */
export type AssignDriver = {
  readonly type: "AssignDriver";
  readonly driver: Driver;
  /** UNSPECIFIED: as before. */
  readonly deliveryProvider: DeliveryProvider;
  /** Absent: as before. */
  readonly delivery?: DeliveryJob | undefined;
  /** Absent: as before. */
  readonly eta?: Date | undefined;
};

/** Ends the delivery. */
export type MarkDelivered = {
  readonly type: "MarkDelivered";
  readonly deliveredAt: Date;
  readonly proof?: Sealed | undefined;
};

/** Calls the order off. */
export type CancelOrder = {
  readonly type: "CancelOrder";
  /** Why, in the clear; empty where a person calls it off, whose own words are the note. */
  readonly reason: string;
  readonly note?: Sealed | undefined;
};

/** Has what is overdue acted upon. */
export type CheckDeadline = {
  readonly type: "CheckDeadline";
  /** The time by which it is judged. */
  readonly at: Date;
};

/** Records what a driver has come to on the way. */
export type ReachMilestone = {
  readonly type: "ReachMilestone";
  readonly milestone: DriverMilestone;
  /** Whose point it is. */
  readonly driverId: string;
  /** When, by the device's clock. */
  readonly at: Date;
};

/** What evolve must know of the entry that an event is part of. */
export type EventContext = {
  readonly actor: Actor;
  readonly recordedAt: Date;
};

/**
 * What a command brings about: the events to record together, none when all is so already. A command decided a second
 * time yields no events, InitTracking excepted. Throws a Refusal when the table of moves does not allow it.
 */
export function decide(state: OrderState | undefined, command: OrderCommand, actor: Actor): Event[] {
  if (command.type === "InitTracking") return submit(state, command, actor);
  if (!state) throw new Refusal("ORDER_NOT_FOUND", "there is no such order");
  return change(state, command, actor);
}

function change(state: OrderState, command: Exclude<OrderCommand, InitTracking>, actor: Actor): Event[] {
  switch (command.type) {
    case "UpdateStatus":
      return changeStatus(state, command, command.status, actor);
    case "AcknowledgeOrder":
      return changeStatus(state, command, command.accepted ? OrderStatus.STORE_ACKNOWLEDGED : OrderStatus.CANCELLED, actor);
    case "ProposeSubstitutions":
      return propose(state, command, actor);
    case "ResolveSubstitutions":
      return resolve(state, command, actor);
    case "AssignDriver":
      return assign(state, command, actor);
    case "MarkDelivered":
      return changeStatus(state, command, OrderStatus.DELIVERED, actor);
    case "CancelOrder":
      return changeStatus(state, command, OrderStatus.CANCELLED, actor);
    case "CheckDeadline":
      return checkDeadline(state, command, actor);
    case "ReachMilestone":
      return reachMilestone(state, command);
    case "RequestDelivery":
    case "AcceptDelivery":
    case "DeclineDelivery":
    case "CallOffDelivery":
      return decideDelivery(state, command, actor);
  }
}

function submit(state: OrderState | undefined, command: InitTracking, actor: Actor): Event[] {
  checkRole({ command: command.type, role: actor.role, from: OrderStatus.UNSPECIFIED, to: OrderStatus.SUBMITTED });
  const { type: _, items, ...order } = command;
  if (state) throw new Refusal("ORDER_ALREADY_EXISTS", `order ${order.orderId} is tracked already`, { order_id: order.orderId });
  return [happened({ case: "orderSubmitted", value: { ...order, items: [...items] } })];
}

/**
 * The order after an event. Never throws and reads no clock: an event of a kind that is not known here, as of a newer
 * writer, leaves all as it was but for updatedAt.
 */
export function evolve(state: OrderState | undefined, event: Event, context: EventContext): OrderState {
  const before = state ?? untracked(context);
  const status = statusAfter(event) ?? before.status;
  const step = {
    status,
    previousStatus: before.status,
    at: context.recordedAt,
    actor: context.actor,
    note: event.note,
    inferred: event.inferred,
  };
  return {
    ...before,
    ...changes(before, event.kind, context),
    status,
    history: status === before.status ? before.history : [...before.history, step],
    ...waits(before, event, status, context.recordedAt),
    updatedAt: context.recordedAt,
  };
}

/** What it waits for now, where that is anything or was. */
function waits(before: OrderState, event: Event, status: OrderStatus, at: Date): Pick<OrderState, "waiting"> {
  const limits = event.kind.case === "orderSubmitted" ? event.kind.value.deadlines : before.deadlines;
  const waiting = waitingAfter(before, limits, event, status, at);
  return waiting || before.waiting ? { waiting } : {};
}

/** Whether an order has had a status, or a courier has reported it too late. */
export function hasBeen({ history, lateReports }: OrderState, status: OrderStatus): boolean {
  return history.some((step) => step.status === status) || lateReports.includes(status);
}

/** What an order is before its first event. */
function untracked(context: EventContext): OrderState {
  return {
    orderId: "",
    storeId: "",
    customerId: "",
    status: OrderStatus.UNSPECIFIED,
    deliveryProvider: DeliveryProvider.UNSPECIFIED,
    history: [],
    milestones: [],
    substitutions: [],
    items: [],
    lateReports: [],
    substitutionPolicy: SubstitutionPolicy.UNSPECIFIED,
    createdAt: context.recordedAt,
    updatedAt: context.recordedAt,
  };
}

/** What an event changes beside the status. */
function changes(before: OrderState, kind: Event["kind"], context: EventContext): Partial<OrderState> {
  const { actor, recordedAt } = context;
  switch (kind.case) {
    case "orderSubmitted": {
      const { orderId, storeId, customerId, deliveryProvider, items, recipient, metadata, substitutionPolicy, deadlines } = kind.value;
      return {
        orderId,
        storeId,
        customerId,
        deliveryProvider,
        items,
        recipient,
        metadata,
        substitutionPolicy,
        ...(deadlines && { deadlines }),
      };
    }
    case "storeAcknowledged":
      return { readyAt: kind.value.readyAt && timestampDate(kind.value.readyAt) };
    case "substitutionsProposed":
      return {
        substitutions: [
          ...before.substitutions,
          ...kind.value.substitutions.map(({ substitutionId, originalItem, replacementItem, reason }) => ({
            substitutionId,
            originalItem,
            replacementItem,
            reason,
            status: SubstitutionStatus.PROPOSED,
            proposedAt: recordedAt,
          })),
        ],
      };
    case "substitutionsResolved": {
      const answers = new Map(kind.value.resolutions.map(({ substitutionId, status }) => [substitutionId, status]));
      return {
        substitutions: before.substitutions.map((substitution) => {
          const status = answers.get(substitution.substitutionId);
          return status === undefined ? substitution : { ...substitution, status, resolvedAt: recordedAt, resolvedBy: actor };
        }),
      };
    }
    case "driverBooked":
    case "driverAssigned": {
      const { driver, deliveryProvider, delivery, eta } = kind.value;
      if (!driver) return {};
      const isAnotherWay = driver.driverId !== before.driver?.driverId || before.status === OrderStatus.RETURNING;
      return {
        ...{ driver, deliveryProvider, delivery, eta: eta && timestampDate(eta) },
        ...deliveryChanges(before, kind, context),
        ...(isAnotherWay && before.milestones.length > 0 && { milestones: [] }),
      };
    }
    case "driverUnassigned":
      return { driver: undefined, delivery: undefined, eta: undefined, milestones: [], ...deliveryChanges(before, kind, context) };
    case "driverMilestoneReached": {
      const { milestone, reachedAt } = kind.value;
      return { milestones: [...before.milestones, { milestone, at: reachedAt ? timestampDate(reachedAt) : recordedAt }] };
    }
    case "deliveryRequested":
    case "deliveryAccepted":
    case "deliveryDeclined":
    case "deliveryCalledOff":
      return deliveryChanges(before, kind, context);
    case "deliveryFailed":
      return deliveryChanges(before, kind, context);
    case "orderDelivered": {
      const { deliveredAt, proof } = kind.value;
      const ended = deliveryChanges(before, kind, context);
      return { ...ended, proof: { deliveredAt: deliveredAt ? timestampDate(deliveredAt) : recordedAt, details: proof } };
    }
    case "orderCancelled":
      return { cancellation: { reason: kind.value.reason, actor, at: recordedAt, previousStatus: before.status } };
    case "courierReportRecorded":
      return { lateReports: [...before.lateReports, kind.value.reportedStatus] };
    default:
      return {};
  }
}
