import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { OrderStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import type { Actor } from "./caller.ts";
import type { AcknowledgeOrder, CancelOrder, MarkDelivered, OrderState, UpdateStatus } from "./order.ts";
import { driverNamed, type Happening, happened, implied, lateReport } from "./order-event.ts";
import { LATE_REPORT, type Move } from "./order-moves.ts";
import { route, statusesAllowed } from "./order-route.ts";
import { expireOpen } from "./order-substitutions.ts";

type MovingCommand = UpdateStatus | AcknowledgeOrder | MarkDelivered | CancelOrder;

/**
 * Decides the commands that ask for a status. A courier's report may bring several steps about, or be too late for any;
 * proposals still open run out when the order moves on; an order that becomes ready goes to a driver booked before.
 */
export function changeStatus(state: OrderState, command: MovingCommand, to: OrderStatus, actor: Actor): Event[] {
  if (to === OrderStatus.READY_FOR_PICKUP && wasReadiedBy(state, actor) && !isWishToUnassign(state, command, actor)) return [];
  const moves = route({ command: command.type, role: actor.role, from: state.status, to });
  const last = moves.at(-1);
  if (!last) return [];
  const note = "note" in command ? command.note : undefined;
  if (last === LATE_REPORT) return lateReport(state, to, note);
  return [
    ...expireOpen(state),
    ...moves.slice(0, -1).map((skipped) => implied(happening(skipped, state, command))),
    happened(happening(last, state, command), note),
    ...(last.event === "orderReadied" && state.driver ? [implied(driverNamed("driverAssigned", state))] : []),
  ];
}

/**
 * True when this very actor's READY_FOR_PICKUP went straight on to DRIVER_ASSIGNED because a driver was booked. Said again
 * it must not be taken for the wish to unassign that driver, unless it is known to be another command.
 */
function wasReadiedBy(state: OrderState, actor: Actor): boolean {
  const step = state.history.at(-1);
  return (
    step?.status === OrderStatus.DRIVER_ASSIGNED && step.inferred && step.actor.role === actor.role && step.actor.subject === actor.subject
  );
}

/** True when it cannot be the same report again, and its actor may take a driver from the order. */
function isWishToUnassign({ status }: OrderState, command: MovingCommand, { role }: Actor): boolean {
  const isAnother = command.type === "UpdateStatus" && command.identified === true;
  return isAnother && statusesAllowed(status, role).includes(OrderStatus.READY_FOR_PICKUP);
}

/** What a move records, with what the command says of it. */
function happening(move: Move, state: OrderState, command: MovingCommand): Happening {
  switch (move.event) {
    case "storeAcknowledged": {
      const readyAt = command.type === "AcknowledgeOrder" ? command.readyAt : undefined;
      return { case: move.event, value: { readyAt: readyAt && timestampFromDate(readyAt) } };
    }
    case "driverAssigned":
      return driverNamed(move.event, state);
    case "orderDelivered":
      return {
        case: move.event,
        value: command.type === "MarkDelivered" ? { deliveredAt: timestampFromDate(command.deliveredAt), proof: command.proof } : {},
      };
    case "orderCancelled":
      return { case: move.event, value: { reason: ("reason" in command && command.reason) || "" } };
    default:
      // More kinds than the compiler tries one by one; those that are left say nothing but that they happened.
      return { case: move.event, value: {} } as Happening;
  }
}
