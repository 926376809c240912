import { OrderStatus, Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { OrderCommand } from "./order.ts";
import { isFinal, type Move } from "./order-moves.ts";
import { Refusal } from "./refusal.ts";

/** The table has the move, but not for this role. */
export function mayNot(role: Role, move: Move): Refusal {
  return new Refusal("PERMISSION_DENIED", `role ${Role[role]} may not ${move.name}`, { move: move.name, role: String(Role[role]) });
}

/** The RPC by which a command comes in. */
export function rpcOf(command: OrderCommand["type"]): string {
  return command === "ProposeSubstitutions" ? "UpdateSubstitutions" : command;
}

/** The table has no such move from here. `allowed` are the statuses to which this role may move the order now; `instead` does what was asked. */
export function impossible(
  asked: { readonly command: OrderCommand["type"]; readonly role: Role; readonly from: OrderStatus; readonly to: OrderStatus },
  allowed: readonly OrderStatus[],
  instead?: OrderCommand["type"],
): Refusal {
  const names = allowed.map((status) => OrderStatus[status]);
  const rpc = instead && rpcOf(instead);
  return new Refusal(
    "INVALID_STATUS_TRANSITION",
    [
      `${rpcOf(asked.command)} cannot take the order from ${OrderStatus[asked.from]} to ${OrderStatus[asked.to]}`,
      ...(rpc ? [`${OrderStatus[asked.to]} is reached by ${rpc}`] : []),
      isFinal(asked.from)
        ? `${OrderStatus[asked.from]} is final`
        : `role ${Role[asked.role]} may move it from there to ${names.length > 0 ? names.join(", ") : "no other status"}`,
    ].join("; "),
    {
      current_status: String(OrderStatus[asked.from]),
      requested_status: String(OrderStatus[asked.to]),
      allowed_statuses: names.join(","),
      ...(rpc && { rpc }),
    },
  );
}
