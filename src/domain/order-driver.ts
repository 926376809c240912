import { type DescMessage, equals, type MessageShape } from "@bufbuild/protobuf";
import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { DeliveryJobSchema, DriverSchema } from "../gen/ordertrail/events/v1/order_events_pb.js";
import { DeliveryProvider, OrderStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import type { Actor } from "./caller.ts";
import type { AssignDriver, OrderState } from "./order.ts";
import { driverNamed, happened, lateReport } from "./order-event.ts";
import { LATE_ASSIGNMENT, LATE_NAMING, MOVES } from "./order-moves.ts";
import { checkRole, refusalOf } from "./order-route.ts";

type Assignment = Pick<OrderState, "driver" | "deliveryProvider" | "delivery" | "eta">;

/**
 * Decides AssignDriver: assigns a driver to an order that is ready, books one for an order that is not, and keeps what a
 * provider says too late. The same driver again with the same particulars yields no events.
 */
export function assign(state: OrderState, command: AssignDriver, actor: Actor): Event[] {
  const request = { command: command.type, role: actor.role, from: state.status, to: OrderStatus.DRIVER_ASSIGNED };
  checkRole(request);
  const assignment: Assignment = {
    driver: command.driver,
    deliveryProvider: command.deliveryProvider === DeliveryProvider.UNSPECIFIED ? state.deliveryProvider : command.deliveryProvider,
    delivery: command.delivery,
    eta: command.eta,
  };
  const move = MOVES.find(
    (candidate) =>
      candidate.commands.includes(command.type) &&
      candidate.from.includes(state.status) &&
      candidate.roles.includes(actor.role) &&
      !(candidate === LATE_NAMING && state.driver),
  );
  const stays = move?.to === undefined || move.to === state.status;
  if (stays && isKnown(state, assignment)) return [];
  if (!move) throw refusalOf(request);
  if (move === LATE_ASSIGNMENT) return lateReport(state, OrderStatus.DRIVER_ASSIGNED);
  return [happened(driverNamed(move.to === undefined ? "driverBooked" : "driverAssigned", assignment))];
}

function isKnown(state: OrderState, assignment: Assignment): boolean {
  return (
    same(DriverSchema, state.driver, assignment.driver) &&
    state.deliveryProvider === assignment.deliveryProvider &&
    same(DeliveryJobSchema, state.delivery, assignment.delivery) &&
    state.eta?.getTime() === assignment.eta?.getTime()
  );
}

function same<Desc extends DescMessage>(schema: Desc, a: MessageShape<Desc> | undefined, b: MessageShape<Desc> | undefined): boolean {
  return a && b ? equals(schema, a, b) : a === b;
}
