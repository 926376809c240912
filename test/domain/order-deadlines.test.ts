import { describe, expect, it } from "vitest";
import { nextAct } from "../../src/domain/order-deadlines.ts";
import { Deadline, OrderStatus, Role, SubstitutionPolicy, SubstitutionStatus } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import {
  acknowledge,
  assign,
  cancel,
  check,
  go,
  INIT,
  LIMITS,
  NOW,
  orderIn,
  propose,
  ROLES,
  refusal,
  STATUSES,
  told,
  when,
} from "./order-fixtures.ts";

const { STORE_NOTIFIED, PICKING_IN_PROGRESS, SUBSTITUTIONS_NEEDED, READY_FOR_PICKUP, CANCELLED } = OrderStatus;

/** So many seconds after everything else has happened. */
const past = (seconds: number) => new Date(NOW.getTime() + seconds * 1000);

/** An order with limits, after some commands of an operator. */
function ordered(commands: Parameters<typeof when>[1][], init = INIT) {
  return commands.reduce((order, command) => when(order, command, Role.OPERATOR).order, when(undefined, init, Role.SERVICE).order);
}

const TO = {
  notified: [go(STORE_NOTIFIED)],
  asked: [go(STORE_NOTIFIED), acknowledge(true), go(PICKING_IN_PROGRESS), propose("s-1", "s-2")],
  ready: [go(STORE_NOTIFIED), acknowledge(true), go(PICKING_IN_PROGRESS), go(READY_FOR_PICKUP)],
  assigned: [go(STORE_NOTIFIED), acknowledge(true), go(PICKING_IN_PROGRESS), go(READY_FOR_PICKUP), assign("d-1")],
};

const WAITS = [
  { title: "its store's acknowledgment", commands: TO.notified, deadline: Deadline.ACKNOWLEDGMENT, seconds: LIMITS.acknowledgmentSeconds },
  { title: "an answer about substitutions", commands: TO.asked, deadline: Deadline.SUBSTITUTIONS, seconds: LIMITS.substitutionsSeconds },
  { title: "a driver", commands: TO.ready, deadline: Deadline.DRIVER_ASSIGNMENT, seconds: LIMITS.driverAssignmentSeconds },
  { title: "its pickup", commands: TO.assigned, deadline: Deadline.PICKUP, seconds: LIMITS.pickupSeconds },
];

describe.each(WAITS)("an order that waits for $title", ({ commands, deadline, seconds }) => {
  const order = ordered(commands);

  it("knows since when, and until when", () => {
    expect(order.waiting).toEqual({ deadline, since: NOW, dueAt: past(seconds), escalatesAt: past(seconds + LIMITS.escalationSeconds) });
    expect(nextAct(order.waiting)).toEqual(past(seconds));
  });

  it("is reminded of once, when that is due, and told of once, when that did not help", () => {
    expect(when(order, check(past(seconds - 1)), Role.SYSTEM).types).toEqual([]);
    const reminded = when(order, check(past(seconds)), Role.SYSTEM);
    expect(reminded.types).toEqual(["deadlineReminded"]);
    expect(reminded.order.status).toBe(order.status);
    expect(nextAct(reminded.order.waiting)).toEqual(past(seconds + LIMITS.escalationSeconds));
    expect(when(reminded.order, check(past(seconds + LIMITS.escalationSeconds - 1)), Role.SYSTEM).types).toEqual([]);
    const escalated = when(reminded.order, check(past(seconds + LIMITS.escalationSeconds)), Role.SYSTEM);
    expect(escalated.types[0]).toBe("deadlineEscalated");
    expect(when(escalated.order, check(past(1_000_000)), Role.SYSTEM).types).toEqual([]);
  });

  it("is both reminded and told of at once by who slept through", () => {
    expect(when(order, check(past(1_000_000)), Role.SYSTEM).types.slice(0, 2)).toEqual(["deadlineReminded", "deadlineEscalated"]);
  });

  it("waits no more once it has moved on, or is called off", () => {
    const cancelled = when(order, cancel(), Role.OPERATOR).order;
    expect(cancelled.waiting).toBeUndefined();
    expect(when(cancelled, check(past(1_000_000)), Role.SYSTEM).types).toEqual([]);
  });
});

describe("what happens when nobody does what an order waits for", () => {
  it("leaves an order that its store did not acknowledge to people, and late acknowledgments are taken", () => {
    const { order } = when(ordered(TO.notified), check(past(1_000_000)), Role.SYSTEM);
    expect(order.status).toBe(STORE_NOTIFIED);
    expect(when(order, acknowledge(true), Role.STORE).types).toEqual(["storeAcknowledged"]);
  });

  it("calls it off where that is configured, with the reason, and refuses late acknowledgments", () => {
    const limits = { ...LIMITS, cancelUnacknowledged: true };
    const { order, types } = when(ordered(TO.notified, { ...INIT, deadlines: limits }), check(past(1_000_000)), Role.SYSTEM);
    expect(types).toEqual(["deadlineReminded", "deadlineEscalated", "orderCancelled"]);
    expect(order).toMatchObject({ status: CANCELLED, cancellation: { reason: "store_did_not_acknowledge", actor: { role: Role.SYSTEM } } });
    expect(told(refusal(order, acknowledge(true), Role.STORE))).toMatchObject({
      reason: "INVALID_STATUS_TRANSITION",
      current_status: "CANCELLED",
    });
  });

  it.each([
    {
      policy: SubstitutionPolicy.BEST_MATCH,
      answers: [SubstitutionStatus.APPROVED, SubstitutionStatus.APPROVED, SubstitutionStatus.EXPIRED],
    },
    { policy: SubstitutionPolicy.REFUND, answers: [SubstitutionStatus.EXPIRED, SubstitutionStatus.EXPIRED, SubstitutionStatus.EXPIRED] },
    {
      policy: SubstitutionPolicy.UNSPECIFIED,
      answers: [SubstitutionStatus.EXPIRED, SubstitutionStatus.EXPIRED, SubstitutionStatus.EXPIRED],
    },
  ])("answers open substitutions by the order's policy ($policy), and picking goes on", ({ policy, answers }) => {
    const before = ordered(TO.asked, { ...INIT, substitutionPolicy: policy });
    const withoutReplacement = propose("s-3");
    if (withoutReplacement.type === "ProposeSubstitutions")
      for (const proposal of withoutReplacement.substitutions) delete proposal.replacementItem;
    const asked = when(before, withoutReplacement, Role.STORE).order;
    const { order, types } = when(asked, check(past(1_000_000)), Role.SYSTEM);
    expect(types).toEqual(["deadlineReminded", "deadlineEscalated", "substitutionsResolved", "pickingResumed"]);
    expect(order.status).toBe(PICKING_IN_PROGRESS);
    expect(order.substitutions.map(({ status }) => status)).toEqual(answers);
    expect(order.waiting).toBeUndefined();
  });

  it("begins anew for another driver, and for further proposals", () => {
    const reminded = when(ordered(TO.assigned), check(past(LIMITS.pickupSeconds)), Role.SYSTEM).order;
    expect(when(reminded, assign("d-2"), Role.OPERATOR).order.waiting?.remindedAt).toBeUndefined();
    const asked = when(ordered(TO.asked), check(past(LIMITS.substitutionsSeconds)), Role.SYSTEM).order;
    expect(asked.status).toBe(SUBSTITUTIONS_NEEDED);
    expect(when(asked, propose("s-9"), Role.STORE).order.waiting?.remindedAt).toBeUndefined();
  });

  it("is nothing for an order of before limits were kept", () => {
    const old = ordered(TO.notified, { ...INIT, deadlines: undefined });
    expect(old.waiting).toBeUndefined();
    expect(when(old, check(past(1_000_000)), Role.SYSTEM).types).toEqual([]);
  });

  it("is for Ordertrail itself to do, and changes nothing in any other status", () => {
    for (const role of ROLES.filter((role) => role !== Role.SYSTEM))
      expect(told(refusal(ordered(TO.ready), check(past(1)), role)).reason, Role[role]).toBe("PERMISSION_DENIED");
    for (const status of STATUSES)
      expect(when(orderIn(status), check(past(1_000_000)), Role.SYSTEM).types, OrderStatus[status]).toEqual([]);
  });
});
