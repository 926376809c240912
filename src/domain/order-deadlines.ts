import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import type { OrderDeadlines } from "../gen/ordertrail/events/v1/order_events_pb.js";
import { Deadline, OrderStatus, SubstitutionPolicy, SubstitutionStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import type { Actor } from "./caller.ts";
import type { CheckDeadline, OrderState } from "./order.ts";
import { happened } from "./order-event.ts";
import { type EventCase, MOVES } from "./order-moves.ts";
import { mayNot } from "./order-refusals.ts";
import { statusesAllowed } from "./order-route.ts";

/** The reason of an order that is called off because its store did not acknowledge it. */
export const UNACKNOWLEDGED = "store_did_not_acknowledge";

/** What an order waits for, for a limited time: first somebody is reminded, then people are told. */
export type Waiting = {
  readonly deadline: Deadline;
  readonly since: Date;
  readonly dueAt: Date;
  readonly escalatesAt: Date;
  readonly remindedAt?: Date | undefined;
  readonly escalatedAt?: Date | undefined;
};

type Limit = { readonly deadline: Deadline; readonly seconds: (limits: OrderDeadlines) => number };

/** What an order waits for in which status. */
const AWAITED: ReadonlyMap<OrderStatus, Limit> = new Map([
  [OrderStatus.STORE_NOTIFIED, { deadline: Deadline.ACKNOWLEDGMENT, seconds: (limits: OrderDeadlines) => limits.acknowledgmentSeconds }],
  [
    OrderStatus.SUBSTITUTIONS_NEEDED,
    { deadline: Deadline.SUBSTITUTIONS, seconds: (limits: OrderDeadlines) => limits.substitutionsSeconds },
  ],
  [
    OrderStatus.READY_FOR_PICKUP,
    { deadline: Deadline.DRIVER_ASSIGNMENT, seconds: (limits: OrderDeadlines) => limits.driverAssignmentSeconds },
  ],
  [OrderStatus.DRIVER_ASSIGNED, { deadline: Deadline.PICKUP, seconds: (limits: OrderDeadlines) => limits.pickupSeconds }],
]);

/** Events after which the same thing is waited for anew: of other proposals, or of another driver. */
const BEGIN_ANEW: readonly (EventCase | undefined)[] = ["substitutionsProposed", "driverAssigned"];

/** What an order waits for after an event that led it to a status. Orders of before deadlines were kept wait for nothing. */
export function waitingAfter(
  before: Pick<OrderState, "status" | "waiting">,
  limits: OrderDeadlines | undefined,
  { kind }: Event,
  status: OrderStatus,
  at: Date,
): Waiting | undefined {
  const { waiting } = before;
  if (kind.case === "deadlineReminded") return waiting && { ...waiting, remindedAt: at };
  if (kind.case === "deadlineEscalated") return waiting && { ...waiting, escalatedAt: at };
  return status === before.status && !BEGIN_ANEW.includes(kind.case) ? waiting : beginToWait(limits, status, at);
}

function beginToWait(limits: OrderDeadlines | undefined, status: OrderStatus, since: Date): Waiting | undefined {
  const awaited = AWAITED.get(status);
  if (!limits || !awaited) return undefined;
  const dueAt = new Date(since.getTime() + awaited.seconds(limits) * 1000);
  return { deadline: awaited.deadline, since, dueAt, escalatesAt: new Date(dueAt.getTime() + limits.escalationSeconds * 1000) };
}

/** When something is to be done about what an order waits for; undefined when nothing is, any more. */
export function nextAct(waiting: Waiting | undefined): Date | undefined {
  if (!waiting || waiting.escalatedAt) return undefined;
  return waiting.remindedAt ? waiting.escalatesAt : waiting.dueAt;
}

/**
 * Decides CheckDeadline: what has become due by its time and has not been done. A second time, or when the order does not wait any
 * more, yields no events. Substitutions are answered by the order's policy when the reminder did not help.
 */
export function checkDeadline(state: OrderState, command: CheckDeadline, actor: Actor): Event[] {
  const { waiting, status } = state;
  refuseOthers(command, actor, status);
  if (!waiting || waiting.escalatedAt) return [];
  const { deadline, dueAt, escalatesAt, remindedAt } = waiting;
  const events: Event[] = [];
  if (!remindedAt && dueAt <= command.at)
    events.push(happened({ case: "deadlineReminded", value: { deadline, dueAt: timestampFromDate(dueAt) } }));
  if (escalatesAt > command.at) return events;
  events.push(happened({ case: "deadlineEscalated", value: { deadline, dueAt: timestampFromDate(escalatesAt) } }));
  if (deadline === Deadline.SUBSTITUTIONS) events.push(...answerByPolicy(state));
  if (deadline === Deadline.ACKNOWLEDGMENT && state.deadlines?.cancelUnacknowledged)
    events.push(happened({ case: "orderCancelled", value: { reason: UNACKNOWLEDGED } }));
  return events;
}

/** Throws a Refusal PERMISSION_DENIED for whoever has no clock to mind. */
function refuseOthers({ type }: CheckDeadline, { role }: Actor, from: OrderStatus): void {
  const moves = MOVES.filter(({ commands }) => commands.includes(type));
  const [first] = moves;
  if (first && !first.roles.includes(role))
    throw mayNot(role, moves.find((move) => move.from.includes(from)) ?? first, from, statusesAllowed(from, role));
}

/** The answers that nobody gave: the replacement where the customer wanted the best match and there is one, or else the refund. */
function answerByPolicy(state: OrderState): Event[] {
  const takesReplacement = state.substitutionPolicy === SubstitutionPolicy.BEST_MATCH;
  const resolutions = state.substitutions
    .filter(({ status }) => status === SubstitutionStatus.PROPOSED)
    .map(({ substitutionId, replacementItem }) => ({
      substitutionId,
      status: takesReplacement && replacementItem ? SubstitutionStatus.APPROVED : SubstitutionStatus.EXPIRED,
    }));
  return [
    ...(resolutions.length > 0 ? [happened({ case: "substitutionsResolved", value: { resolutions } })] : []),
    happened({ case: "pickingResumed", value: {} }),
  ];
}
