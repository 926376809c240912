import { writeFile } from "node:fs/promises";
import { COURSE, isFinal, MOVES, type Move } from "../src/domain/order-moves.ts";
import { rpcOf } from "../src/domain/order-refusals.ts";
import { EventSchema } from "../src/gen/ordertrail/events/v1/log_entry_pb.js";
import { OrderStatus, Role } from "../src/gen/ordertrail/events/v1/values_pb.js";

/** Where the page stands. */
export const ORDER_STATES_PAGE = new URL("../docs/order-states.md", import.meta.url);

/** The text of docs/order-states.md, made from the table of moves. */
export function orderStatesPage(): string {
  return `# The life of an order

<!-- Made from src/domain/order-moves.ts by \`node tools/order-states.ts\`; a test fails when it is out of date. -->

${diagram()}

## The moves

${table()}

"as before" means that the order stays in the status that it is in. Asking for the status that the order has already
succeeds and records nothing, for every role that may ask for it at all. ${finals()} are final.

A role that the table does not name for a move is refused with \`PERMISSION_DENIED\`. A move that is not possible from
the current status is refused with \`INVALID_STATUS_TRANSITION\`; the error names the current status, the one asked for,
those to which the caller's role may move the order now, and the RPC that does what was asked if it is another one.

## What the table does not show

**Couriers** (roles \`DRIVER\` and \`PARTNER\`) tell what they have done already.
- They may report a status of theirs while steps before it are missing. Each of the missing steps is recorded as
  \`inferred\`, along the edges of the diagram and without SUBSTITUTIONS_NEEDED. All others are held to the table.
- What they report of a status that the order has passed, or of an order that has ended, is kept as a
  \`CourierReportRecorded\` – once for each status – and moves nothing. That the goods were handed over after all, from
  RETURNING, is no such report: it is refused, and needs a new assignment.

**Couriers of providers** ([deliveries.md](deliveries.md)) are a track of their own beside the order's status.
- An order has one request for a courier at a time, each with a number. What is said of another than the current one
  records nothing, except that one which was left unanswered is called off.
- When a request that has alternatives is declined, the next one follows in the same entry, as \`inferred\`; not after
  the goods were picked up or the order has ended.
- A request that is declined or called off takes the driver whom it sent along: \`DriverUnassigned\`, as \`inferred\`, if they were
  assigned. It cannot be once that driver has the goods.

**Drivers.**
- A driver may be booked before the order is READY_FOR_PICKUP. When it becomes so, the \`DriverAssigned\` follows in the
  same entry, as \`inferred\`. The actor who reported it ready may say so again: without a new
  request_id, that does not unassign the driver.
- An assignment says all there is to say: a delivery job or an expected time that it does not name is no longer known.
  Only the delivery provider stays as before when it is not named.
- While the goods come back the driver stays known, until a new one is assigned. \`DriverUnassigned\` forgets the driver,
  the delivery job and the expected time.
- A provider may name the driver late, when the goods have left and none is known. Another driver named so late is kept as
  a report of DRIVER_ASSIGNED.

**Substitutions.**
- Picking goes on at once, in the same entry, when the last open proposal is answered.
- Proposals are open in SUBSTITUTIONS_NEEDED and in no other status. An order that leaves it without all the answers
  lets the open ones expire, in the same entry and before anything else.
- A command with several proposals or answers is recorded whole or not at all. The same proposals or answers again record
  nothing, in whatever status; an answer that differs from the first is refused with \`SUBSTITUTION_ALREADY_RESOLVED\`.

**Acknowledging** again is fine in STORE_ACKNOWLEDGED only: in a later status it is refused like any other step back.
`;
}

function diagram(): string {
  const edges = MOVES.flatMap((move) => {
    const { to } = move;
    if (to === undefined) return [];
    return (move.from.length > 0 ? move.from.map(statusName) : ["[*]"]).map((from) => `  ${from} --> ${statusName(to)}: ${move.name}`);
  });
  const ends = [...COURSE, OrderStatus.CANCELLED].filter(isFinal).map((status) => `  ${statusName(status)} --> [*]`);
  return ["```mermaid", "stateDiagram-v2", ...edges, ...ends, "```"].join("\n");
}

function table(): string {
  const rows = MOVES.map((move) => [
    move.name,
    move.commands.map(rpcOf).join(", ") || "–",
    move.from.map(statusName).join(", ") || "–",
    move.to === undefined ? "as before" : statusName(move.to),
    move.roles.map((role) => Role[role]).join(", "),
    eventType(move),
  ]);
  return [["move", "RPC", "from", "to", "roles", "event"], Array(6).fill("---"), ...rows]
    .map((cells) => `| ${cells.join(" | ")} |`)
    .join("\n");
}

function finals(): string {
  return [...COURSE, OrderStatus.CANCELLED].filter(isFinal).map(statusName).join(" and ");
}

function statusName(status: OrderStatus): string {
  return String(OrderStatus[status]);
}

function eventType({ event }: Move): string {
  return EventSchema.fields.find((field) => field.localName === event)?.message?.name ?? event;
}

if (import.meta.main) await writeFile(ORDER_STATES_PAGE, orderStatesPage());
