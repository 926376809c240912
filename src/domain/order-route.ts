import { OrderStatus, type Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { OrderCommand } from "./order.ts";
import { COURIERS, COURSE, DETOURS, isFinal, LATE_REPORT, MOVES, type Move } from "./order-moves.ts";
import { impossible, mayNot } from "./order-refusals.ts";
import type { Refusal } from "./refusal.ts";

/** What somebody asks: to take an order from one status to another by a command. */
export type Request = {
  readonly command: OrderCommand["type"];
  readonly role: Role;
  readonly from: OrderStatus;
  readonly to: OrderStatus;
};

/**
 * The moves that take an order where it is asked to go: none when it is there already; several when a courier's report
 * implies steps that nobody reported, all but the last being inferred; LATE_REPORT when a courier reports what is past.
 * Throws a Refusal PERMISSION_DENIED or INVALID_STATUS_TRANSITION for what the table does not allow.
 */
export function route(request: Request): readonly Move[] {
  const { command, role, from, to } = request;
  checkRole(request);
  if (from === to) return [];
  const own = MOVES.filter((move) => move.to === to && move.commands.includes(command) && move.roles.includes(role));
  const direct = own.find((move) => move.from.includes(from));
  if (direct) return [direct];
  if (COURIERS.includes(role) && own.length > 0) {
    const steps = stepsBetween(from, to);
    // A courier's report implies the steps of others, never one of theirs: the last must be the courier's own.
    if (own.some((move) => move === steps.at(-1))) return steps;
    if (isPast(from, to)) return [LATE_REPORT];
  }
  throw refusalOf(request);
}

/** Throws a Refusal PERMISSION_DENIED when the role may do what is asked from no status at all. */
export function checkRole(request: Request): void {
  const candidates = candidatesFor(request);
  const [first] = candidates;
  if (!first || candidates.some((move) => move.roles.includes(request.role))) return;
  const { role, from } = request;
  throw mayNot(role, candidates.find((move) => move.from.includes(from)) ?? first, from, statusesAllowed(from, role));
}

/** Why what is asked is not possible: it is for others to do, or for nobody from here. */
export function refusalOf(request: Request): Refusal {
  const { command, role, from } = request;
  const forOthers = candidatesFor(request).find(
    (move) => move.commands.includes(command) && move.from.includes(from) && !move.roles.includes(role),
  );
  const allowed = statusesAllowed(from, role);
  return forOthers ? mayNot(role, forOthers, from, allowed) : impossible(request, allowed, otherCommand(request));
}

/** The statuses to which a role may move an order now, by whatever command. */
export function statusesAllowed(from: OrderStatus, role: Role): readonly OrderStatus[] {
  const direct = MOVES.filter((move) => move.from.includes(from) && move.roles.includes(role));
  const skips = COURIERS.includes(role) ? stepsBetween(from, OrderStatus.DELIVERED) : [];
  const reached = [...direct, ...skips.filter((move) => move.roles.includes(role) && move.commands.includes("UpdateStatus"))];
  return [...new Set(reached.flatMap(({ to }) => (to === undefined || to === from ? [] : [to])))].sort((a, b) => a - b);
}

/** The moves that do what is asked; those of other commands when this one never does. */
function candidatesFor({ command, to }: Request): readonly Move[] {
  const leading = MOVES.filter((move) => move.to === to);
  const own = leading.filter((move) => move.commands.includes(command));
  return own.length > 0 ? own : leading;
}

/** The moves from one status to a later one without detours; none when the table has no such way. */
function stepsBetween(from: OrderStatus, to: OrderStatus): readonly Move[] {
  const steps: Move[] = [];
  let at = from;
  for (const next of COURSE.slice(COURSE.indexOf(from) + 1, COURSE.indexOf(to) + 1)) {
    if (DETOURS.includes(next)) continue;
    const step = MOVES.find((move) => move.to === next && move.from.includes(at));
    if (!step) return [];
    steps.push(step);
    at = next;
  }
  return steps;
}

/** True when a report of `to` tells nothing new of an order that stands at `from`. */
function isPast(from: OrderStatus, to: OrderStatus): boolean {
  return LATE_REPORT.from.includes(from) && (isFinal(from) || COURSE.indexOf(to) < COURSE.indexOf(from));
}

/** The command that does what was asked when this one does not: from here, or at all when this one never does. */
function otherCommand({ command, role, from, to }: Request): OrderCommand["type"] | undefined {
  const leading = MOVES.filter((move) => move.to === to && move.from.length > 0 && move.roles.includes(role));
  const others = leading.filter((move) => !move.commands.includes(command));
  const never = others.length === leading.length;
  return others.find((move) => never || move.from.includes(from))?.commands[0];
}
