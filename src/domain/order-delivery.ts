import { create, equals } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { type DeliveryJob, DeliveryJobSchema } from "../gen/ordertrail/events/v1/order_events_pb.js";
import { DeliveryProvider, type Money, OrderStatus, Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { Actor } from "./caller.ts";
import type { EventContext, OrderState } from "./order.ts";
import { happened, implied } from "./order-event.ts";
import { MOVES, type Move } from "./order-moves.ts";
import { mayNot } from "./order-refusals.ts";
import { statusesAllowed } from "./order-route.ts";
import { Refusal } from "./refusal.ts";

/** A request for a courier, and what became of it. */
export type CourierJob = {
  readonly provider: DeliveryProvider;
  /** From 1 for each order. */
  readonly attempt: number;
  readonly status: JobStatus;
  readonly quoteId: string;
  readonly quotedFee?: Money | undefined;
  /** Who is asked next should this one not take it. */
  readonly alternatives: readonly DeliveryProvider[];
  readonly requestedAt: Date;
  /** Known once it is accepted, and then for good. */
  readonly delivery?: DeliveryJob | undefined;
  /** Why it was declined, as the provider's own code. */
  readonly reason: string;
  /** Whether somebody has assigned a driver of their own since: then its courier is not to come, and is called off. */
  readonly overruled: boolean;
  /** Requests given up without an answer. Their providers may have taken them all the same: they are to be called off. */
  readonly unanswered: readonly { readonly provider: DeliveryProvider; readonly attempt: number }[];
};

/** Where a request for a courier stands; ENDED when its courier has delivered, or brings the goods back. */
export type JobStatus = "REQUESTED" | "ACCEPTED" | "DECLINED" | "CALLED_OFF" | "ENDED";

/** Records that a provider is about to be asked. */
export type RequestDelivery = {
  readonly type: "RequestDelivery";
  readonly deliveryProvider: DeliveryProvider;
  /** Empty without a quote. */
  readonly quoteId: string;
  readonly quotedFee?: Money | undefined;
  readonly alternatives: readonly DeliveryProvider[];
};

/** Records that the provider has taken a request on, or what it changed about it. */
export type AcceptDelivery = {
  readonly type: "AcceptDelivery";
  readonly attempt: number;
  readonly providerDeliveryId: string;
  /** Absent: as before. */
  readonly fee?: Money | undefined;
  /** Empty: as before. */
  readonly trackingUrl: string;
  readonly eta?: Date | undefined;
};

/** Records that a request was not taken on, or was given up before the goods were picked up, and goes on to the next provider. */
export type DeclineDelivery = {
  readonly type: "DeclineDelivery";
  readonly attempt: number;
  /** The provider's own code, or UNANSWERED. */
  readonly reason: string;
  /** Whether the next alternative, if there is one, is asked. */
  readonly failOver: boolean;
};

/** Records that a request has been called off with its provider: the current one, or one that was left unanswered. */
export type CallOffDelivery = { readonly type: "CallOffDelivery"; readonly attempt: number };

/** What is done about a courier's job. */
export type DeliveryCommand = RequestDelivery | AcceptDelivery | DeclineDelivery | CallOffDelivery;

/** The reason of a request that was given up although its provider may have taken it. */
export const UNANSWERED = "unanswered";

/** Whether a request stands: its provider is being asked, or has taken it on. */
export function isOpen(job: CourierJob | undefined): boolean {
  return job?.status === "REQUESTED" || job?.status === "ACCEPTED";
}

/** Decides what is done about a courier's job. Of requests other than the current one nothing is recorded, except that one left unanswered is called off. */
export function decideDelivery(state: OrderState, command: DeliveryCommand, actor: Actor): Event[] {
  const move = moveOf(command.type);
  if (!move.roles.includes(actor.role)) throw mayNot(actor.role, move, state.status, statusesAllowed(state.status, actor.role));
  if (command.type === "RequestDelivery") return request(state, command, move);
  const { job } = state;
  if (!job || command.attempt > job.attempt) throw notRequested(state);
  if (command.type === "AcceptDelivery") return accept(job, command);
  if (job.attempt !== command.attempt || !isOpen(job)) return command.type === "CallOffDelivery" ? callOffUnanswered(job, command) : [];
  if (job.status === "ACCEPTED" && hasGoods(state, job)) throw tooLate(state, move);
  const { provider: deliveryProvider, attempt } = job;
  if (command.type === "CallOffDelivery") {
    return [...unassign(state, job), happened({ case: "deliveryCalledOff", value: { deliveryProvider, attempt } })];
  }
  const [next, ...alternatives] = command.failOver && moveOf("RequestDelivery").from.includes(state.status) ? job.alternatives : [];
  return [
    ...unassign(state, job),
    happened({ case: "deliveryDeclined", value: { deliveryProvider, attempt, reason: command.reason } }),
    ...(next === undefined
      ? []
      : [implied({ case: "deliveryRequested", value: { deliveryProvider: next, attempt: attempt + 1, alternatives } })]),
  ];
}

function request(state: OrderState, command: RequestDelivery, move: Move): Event[] {
  const { job } = state;
  const { deliveryProvider, quoteId, quotedFee, alternatives } = command;
  if (job && isOpen(job)) {
    if (job.provider === deliveryProvider && job.quoteId === quoteId) return [];
    throw underWay(state, job);
  }
  if (!move.from.includes(state.status)) throw tooLate(state, move);
  const attempt = (job?.attempt ?? 0) + 1;
  return [
    happened({
      case: "deliveryRequested",
      value: { deliveryProvider, attempt, quoteId, alternatives: [...alternatives], ...(quotedFee && { quotedFee }) },
    }),
  ];
}

function accept(job: CourierJob, command: AcceptDelivery): Event[] {
  const { attempt, providerDeliveryId, eta } = command;
  if (job.attempt !== attempt || !isOpen(job)) return [];
  const { delivery: known } = job;
  // One request is one delivery; a provider that names another contradicts itself, and the first stands.
  if (known && known.providerDeliveryId !== providerDeliveryId) return [];
  const fee = command.fee ?? known?.fee;
  const delivery = create(DeliveryJobSchema, {
    providerDeliveryId,
    trackingUrl: command.trackingUrl || (known?.trackingUrl ?? ""),
    attempt,
    ...(fee && { fee }),
  });
  if (known && equals(DeliveryJobSchema, known, delivery)) return [];
  return [
    happened({
      case: "deliveryAccepted",
      value: { deliveryProvider: job.provider, delivery, ...(eta && { eta: timestampFromDate(eta) }) },
    }),
  ];
}

function callOffUnanswered(job: CourierJob, { attempt }: CallOffDelivery): Event[] {
  const left = job.unanswered.find((unanswered) => unanswered.attempt === attempt);
  return left ? [happened({ case: "deliveryCalledOff", value: { deliveryProvider: left.provider, attempt } })] : [];
}

/** The driver of a job that ends does not come: one who was assigned is taken off the order; one who was booked goes with the job. */
function unassign(state: OrderState, job: CourierJob): Event[] {
  const comes = state.status === OrderStatus.DRIVER_ASSIGNED && isDriverOf(state, job.attempt);
  return comes ? [implied({ case: "driverUnassigned", value: {} })] : [];
}

/** Whether the goods are under way with a job's courier; where no driver is known, they are. */
function hasGoods(state: OrderState, { attempt }: CourierJob): boolean {
  const isUnderWay = state.status === OrderStatus.DRIVER_PICKUP_COMPLETE || state.status === OrderStatus.IN_TRANSIT;
  return isUnderWay && !isBroughtByAnother(state, attempt);
}

/** Whether the driver of an order is known, and was not sent by one of its requests. */
export function isBroughtByAnother(state: OrderState, attempt: number): boolean {
  return state.driver !== undefined && !isDriverOf(state, attempt);
}

/** Whether the driver of an order was sent by one of its requests. */
export function isDriverOf({ driver, delivery }: OrderState, attempt: number): boolean {
  return driver !== undefined && delivery?.attempt === attempt;
}

/** What events change about a courier's job. */
export function deliveryChanges(before: OrderState, kind: Event["kind"], { recordedAt, actor }: EventContext): Partial<OrderState> {
  const { job } = before;
  switch (kind.case) {
    case "deliveryRequested": {
      const { deliveryProvider, attempt, quoteId, quotedFee, alternatives } = kind.value;
      const requested: CourierJob = {
        ...{ provider: deliveryProvider, attempt, status: "REQUESTED", quoteId, quotedFee, alternatives, requestedAt: recordedAt },
        ...{ delivery: undefined, reason: "", overruled: false, unanswered: job?.unanswered ?? [] },
      };
      return { job: requested, deliveryProvider };
    }
    case "deliveryAccepted": {
      const { deliveryProvider, delivery } = kind.value;
      if (!job || !delivery || job.attempt !== delivery.attempt) return {};
      const accepted: CourierJob = { ...job, status: "ACCEPTED", delivery };
      // A driver who was assigned by hand is not this delivery's, and stays so.
      if (isBroughtByAnother(before, job.attempt)) return { job: accepted, ...(!job.overruled && { deliveryProvider }) };
      // The courier's own assignment may have come first, and knows the time better.
      const eta = before.eta ?? (kind.value.eta && timestampDate(kind.value.eta));
      return { job: accepted, delivery, deliveryProvider, eta };
    }
    case "deliveryDeclined":
    case "deliveryCalledOff": {
      const { attempt, deliveryProvider } = kind.value;
      if (!job) return {};
      const isUnanswered = kind.case === "deliveryDeclined" && kind.value.reason === UNANSWERED;
      const unanswered = [
        ...job.unanswered.filter((left) => left.attempt !== attempt),
        ...(isUnanswered ? [{ provider: deliveryProvider, attempt }] : []),
      ];
      if (job.attempt !== attempt) return { job: { ...job, unanswered } };
      const status = kind.case === "deliveryDeclined" ? "DECLINED" : "CALLED_OFF";
      const reason = kind.case === "deliveryDeclined" ? kind.value.reason : "";
      return {
        job: { ...job, status, reason, unanswered },
        // Who does not deliver has no more to do with the order.
        deliveryProvider: before.deliveryProvider === deliveryProvider ? DeliveryProvider.UNSPECIFIED : before.deliveryProvider,
        ...(before.delivery?.attempt === attempt && { delivery: undefined, eta: undefined }),
        ...(isDriverOf(before, attempt) && { driver: undefined }),
      };
    }
    case "driverBooked":
    case "driverAssigned": {
      const { driver, delivery } = kind.value;
      // A driver who was booked before the request is only assigned now: then the courier takes their place.
      const isNew = driver?.driverId !== before.driver?.driverId;
      const isOwn = isNew && actor.role !== Role.PARTNER && delivery?.attempt !== job?.attempt;
      return job && isOpen(job) && isOwn && job.provider !== DeliveryProvider.IN_HOUSE ? { job: { ...job, overruled: true } } : {};
    }
    case "driverUnassigned":
      return job?.overruled ? { job: { ...job, overruled: false } } : {};
    case "orderDelivered":
    case "deliveryFailed":
      return job?.status === "ACCEPTED" ? { job: { ...job, status: "ENDED" } } : {};
    default:
      return {};
  }
}

function moveOf(command: DeliveryCommand["type"]): Move {
  const move = MOVES.find(({ commands }) => commands.includes(command));
  if (!move) throw new Error(`the table of moves has no ${command}`);
  return move;
}

function underWay({ orderId }: OrderState, { provider, attempt, status }: CourierJob): Refusal {
  const name = String(DeliveryProvider[provider]);
  return new Refusal(
    "DELIVERY_UNDER_WAY",
    `order ${orderId} has a delivery with ${name} already (request ${attempt}, ${status}): cancel it first, by CancelDelivery`,
    { order_id: orderId, delivery_provider: name, attempt: String(attempt), state: status },
  );
}

function notRequested({ orderId }: OrderState): Refusal {
  return new Refusal("DELIVERY_NOT_REQUESTED", `no courier has been requested for order ${orderId}: use RequestDelivery`, {
    order_id: orderId,
  });
}

/** The order has come too far for what is asked about its courier. */
function tooLate({ orderId, status }: OrderState, move: Move): Refusal {
  return new Refusal("INVALID_STATUS_TRANSITION", `order ${orderId} is ${OrderStatus[status]}: it is too late to ${move.name}`, {
    order_id: orderId,
    current_status: String(OrderStatus[status]),
  });
}
