import { OrderStatus, Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { OrderCommand } from "./order.ts";
import { isFinal, type Move } from "./order-moves.ts";
import { Refusal } from "./refusal.ts";

/** The table has the move, but not for this role. `allowed` are the statuses to which it may move the order now. */
export function mayNot(role: Role, move: Move, from: OrderStatus, allowed: readonly OrderStatus[]): Refusal {
  const isThere = from !== OrderStatus.UNSPECIFIED;
  return new Refusal(
    "PERMISSION_DENIED",
    `role ${Role[role]} may not ${move.name}${isThere ? `; it may move the order from ${OrderStatus[from]} to ${listOf(allowed)}` : ""}`,
    {
      move: move.name,
      role: String(Role[role]),
      ...(isThere && { current_status: String(OrderStatus[from]), allowed_statuses: namesOf(allowed).join(",") }),
    },
  );
}

/** The RPC by which a command comes in; empty for what only providers' answers bring about. */
export function rpcOf(command: OrderCommand["type"]): string {
  switch (command) {
    case "ProposeSubstitutions":
      return "UpdateSubstitutions";
    case "CallOffDelivery":
      return "CancelDelivery";
    case "AcceptDelivery":
    case "DeclineDelivery":
      return "";
    default:
      return command;
  }
}

/** The table has no such move from here. `allowed` are the statuses to which this role may move the order now; `instead` does what was asked. */
export function impossible(
  asked: { readonly command: OrderCommand["type"]; readonly role: Role; readonly from: OrderStatus; readonly to: OrderStatus },
  allowed: readonly OrderStatus[],
  instead?: OrderCommand["type"],
): Refusal {
  const rpc = instead && rpcOf(instead);
  return new Refusal(
    "INVALID_STATUS_TRANSITION",
    [
      `${rpcOf(asked.command)} cannot take the order from ${OrderStatus[asked.from]} to ${OrderStatus[asked.to]}`,
      ...(rpc ? [`${OrderStatus[asked.to]} is reached by ${rpc}`] : []),
      isFinal(asked.from) ? `${OrderStatus[asked.from]} is final` : `role ${Role[asked.role]} may move it from there to ${listOf(allowed)}`,
    ].join("; "),
    {
      current_status: String(OrderStatus[asked.from]),
      requested_status: String(OrderStatus[asked.to]),
      allowed_statuses: namesOf(allowed).join(","),
      ...(rpc && { rpc }),
    },
  );
}

function listOf(statuses: readonly OrderStatus[]): string {
  return namesOf(statuses).join(", ") || "no other status";
}

function namesOf(statuses: readonly OrderStatus[]): string[] {
  return statuses.map((status) => String(OrderStatus[status]));
}

/** What whoever asks for an order that is not there, or is another's, is told: the same, so that nobody learns which. */
export function orderNotFound(orderId: string): Refusal {
  return new Refusal("ORDER_NOT_FOUND", `there is no order ${orderId} that you may see`, { order_id: orderId });
}
