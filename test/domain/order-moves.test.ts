import { describe, expect, it } from "vitest";
import type { OrderCommand } from "../../src/domain/order.ts";
import { isFinal, MOVES, type Move } from "../../src/domain/order-moves.ts";
import { OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import {
  acknowledge,
  answer,
  assign,
  cancel,
  deliver,
  go,
  orderIn,
  propose,
  ROLES,
  refusal,
  STATUSES,
  told,
  when,
} from "./order-fixtures.ts";

const name = (status: OrderStatus | undefined) => (status === undefined ? "as before" : String(OrderStatus[status]));

/** The moves as the design has them, written down a second time so that a slip in the table does not pass unseen. */
const DESIGN = `
nowhere yet                → SUBMITTED               orderSubmitted           SERVICE OPERATOR                       InitTracking
SUBMITTED                  → STORE_NOTIFIED          storeNotified            SERVICE STORE OPERATOR SYSTEM          UpdateStatus
STORE_NOTIFIED             → STORE_ACKNOWLEDGED      storeAcknowledged        SERVICE STORE OPERATOR                 AcknowledgeOrder UpdateStatus
STORE_NOTIFIED             → CANCELLED               orderCancelled           SERVICE STORE OPERATOR                 AcknowledgeOrder
STORE_ACKNOWLEDGED         → PICKING_IN_PROGRESS     pickingStarted           SERVICE STORE OPERATOR                 UpdateStatus
PICKING_IN_PROGRESS        → SUBSTITUTIONS_NEEDED    substitutionsProposed    SERVICE STORE OPERATOR                 ProposeSubstitutions
SUBSTITUTIONS_NEEDED       → SUBSTITUTIONS_NEEDED    substitutionsProposed    SERVICE STORE OPERATOR                 ProposeSubstitutions
SUBSTITUTIONS_NEEDED       → as before               substitutionsResolved    SERVICE CUSTOMER OPERATOR              ResolveSubstitutions
SUBSTITUTIONS_NEEDED       → PICKING_IN_PROGRESS     pickingResumed           SERVICE CUSTOMER OPERATOR              ResolveSubstitutions
SUBSTITUTIONS_NEEDED       → PICKING_IN_PROGRESS     pickingResumed           SERVICE STORE OPERATOR                 UpdateStatus
PICKING_IN_PROGRESS        → READY_FOR_PICKUP        orderReadied             SERVICE STORE OPERATOR                 UpdateStatus
SUBSTITUTIONS_NEEDED       → READY_FOR_PICKUP        orderReadied             SERVICE STORE OPERATOR                 UpdateStatus
SUBMITTED                  → as before               driverBooked             SERVICE STORE PARTNER OPERATOR         AssignDriver
STORE_NOTIFIED             → as before               driverBooked             SERVICE STORE PARTNER OPERATOR         AssignDriver
STORE_ACKNOWLEDGED         → as before               driverBooked             SERVICE STORE PARTNER OPERATOR         AssignDriver
PICKING_IN_PROGRESS        → as before               driverBooked             SERVICE STORE PARTNER OPERATOR         AssignDriver
SUBSTITUTIONS_NEEDED       → as before               driverBooked             SERVICE STORE PARTNER OPERATOR         AssignDriver
READY_FOR_PICKUP           → DRIVER_ASSIGNED         driverAssigned           SERVICE STORE PARTNER OPERATOR         AssignDriver
DRIVER_ASSIGNED            → DRIVER_ASSIGNED         driverAssigned           SERVICE STORE PARTNER OPERATOR         AssignDriver
RETURNING                  → DRIVER_ASSIGNED         driverAssigned           SERVICE STORE PARTNER OPERATOR         AssignDriver
DRIVER_ASSIGNED            → READY_FOR_PICKUP        driverUnassigned         SERVICE DRIVER PARTNER OPERATOR        UpdateStatus
DRIVER_ASSIGNED            → DRIVER_PICKUP_COMPLETE  driverPickupCompleted    SERVICE DRIVER PARTNER OPERATOR        UpdateStatus
DRIVER_PICKUP_COMPLETE     → IN_TRANSIT              transitStarted           SERVICE DRIVER PARTNER OPERATOR        UpdateStatus
IN_TRANSIT                 → DELIVERED               orderDelivered           SERVICE DRIVER PARTNER OPERATOR        MarkDelivered UpdateStatus
DRIVER_PICKUP_COMPLETE     → RETURNING               deliveryFailed           SERVICE DRIVER PARTNER OPERATOR        UpdateStatus
IN_TRANSIT                 → RETURNING               deliveryFailed           SERVICE DRIVER PARTNER OPERATOR        UpdateStatus
DRIVER_PICKUP_COMPLETE     → as before               driverBooked             PARTNER                                AssignDriver
IN_TRANSIT                 → as before               driverBooked             PARTNER                                AssignDriver
DELIVERED                  → as before               driverBooked             PARTNER                                AssignDriver
DRIVER_PICKUP_COMPLETE     → as before               courierReportRecorded    PARTNER                                AssignDriver
IN_TRANSIT                 → as before               courierReportRecorded    PARTNER                                AssignDriver
DELIVERED                  → as before               courierReportRecorded    PARTNER                                AssignDriver
CANCELLED                  → as before               courierReportRecorded    PARTNER                                AssignDriver
DRIVER_PICKUP_COMPLETE     → as before               courierReportRecorded    DRIVER PARTNER                         UpdateStatus MarkDelivered
IN_TRANSIT                 → as before               courierReportRecorded    DRIVER PARTNER                         UpdateStatus MarkDelivered
RETURNING                  → as before               courierReportRecorded    DRIVER PARTNER                         UpdateStatus MarkDelivered
DELIVERED                  → as before               courierReportRecorded    DRIVER PARTNER                         UpdateStatus MarkDelivered
CANCELLED                  → as before               courierReportRecorded    DRIVER PARTNER                         UpdateStatus MarkDelivered
SUBMITTED                  → as before               deliveryRequested        SERVICE STORE OPERATOR                 RequestDelivery
STORE_NOTIFIED             → as before               deliveryRequested        SERVICE STORE OPERATOR                 RequestDelivery
STORE_ACKNOWLEDGED         → as before               deliveryRequested        SERVICE STORE OPERATOR                 RequestDelivery
PICKING_IN_PROGRESS        → as before               deliveryRequested        SERVICE STORE OPERATOR                 RequestDelivery
SUBSTITUTIONS_NEEDED       → as before               deliveryRequested        SERVICE STORE OPERATOR                 RequestDelivery
READY_FOR_PICKUP           → as before               deliveryRequested        SERVICE STORE OPERATOR                 RequestDelivery
DRIVER_ASSIGNED            → as before               deliveryRequested        SERVICE STORE OPERATOR                 RequestDelivery
RETURNING                  → as before               deliveryRequested        SERVICE STORE OPERATOR                 RequestDelivery
SUBMITTED                  → as before               deliveryAccepted         PARTNER                                AcceptDelivery
STORE_NOTIFIED             → as before               deliveryAccepted         PARTNER                                AcceptDelivery
STORE_ACKNOWLEDGED         → as before               deliveryAccepted         PARTNER                                AcceptDelivery
PICKING_IN_PROGRESS        → as before               deliveryAccepted         PARTNER                                AcceptDelivery
SUBSTITUTIONS_NEEDED       → as before               deliveryAccepted         PARTNER                                AcceptDelivery
READY_FOR_PICKUP           → as before               deliveryAccepted         PARTNER                                AcceptDelivery
DRIVER_ASSIGNED            → as before               deliveryAccepted         PARTNER                                AcceptDelivery
DRIVER_PICKUP_COMPLETE     → as before               deliveryAccepted         PARTNER                                AcceptDelivery
IN_TRANSIT                 → as before               deliveryAccepted         PARTNER                                AcceptDelivery
DELIVERED                  → as before               deliveryAccepted         PARTNER                                AcceptDelivery
CANCELLED                  → as before               deliveryAccepted         PARTNER                                AcceptDelivery
RETURNING                  → as before               deliveryAccepted         PARTNER                                AcceptDelivery
SUBMITTED                  → as before               deliveryDeclined         PARTNER SYSTEM                         DeclineDelivery
STORE_NOTIFIED             → as before               deliveryDeclined         PARTNER SYSTEM                         DeclineDelivery
STORE_ACKNOWLEDGED         → as before               deliveryDeclined         PARTNER SYSTEM                         DeclineDelivery
PICKING_IN_PROGRESS        → as before               deliveryDeclined         PARTNER SYSTEM                         DeclineDelivery
SUBSTITUTIONS_NEEDED       → as before               deliveryDeclined         PARTNER SYSTEM                         DeclineDelivery
READY_FOR_PICKUP           → as before               deliveryDeclined         PARTNER SYSTEM                         DeclineDelivery
DRIVER_ASSIGNED            → as before               deliveryDeclined         PARTNER SYSTEM                         DeclineDelivery
DRIVER_PICKUP_COMPLETE     → as before               deliveryDeclined         PARTNER SYSTEM                         DeclineDelivery
IN_TRANSIT                 → as before               deliveryDeclined         PARTNER SYSTEM                         DeclineDelivery
DELIVERED                  → as before               deliveryDeclined         PARTNER SYSTEM                         DeclineDelivery
CANCELLED                  → as before               deliveryDeclined         PARTNER SYSTEM                         DeclineDelivery
RETURNING                  → as before               deliveryDeclined         PARTNER SYSTEM                         DeclineDelivery
SUBMITTED                  → as before               deliveryCalledOff        SERVICE STORE PARTNER OPERATOR SYSTEM  CallOffDelivery
STORE_NOTIFIED             → as before               deliveryCalledOff        SERVICE STORE PARTNER OPERATOR SYSTEM  CallOffDelivery
STORE_ACKNOWLEDGED         → as before               deliveryCalledOff        SERVICE STORE PARTNER OPERATOR SYSTEM  CallOffDelivery
PICKING_IN_PROGRESS        → as before               deliveryCalledOff        SERVICE STORE PARTNER OPERATOR SYSTEM  CallOffDelivery
SUBSTITUTIONS_NEEDED       → as before               deliveryCalledOff        SERVICE STORE PARTNER OPERATOR SYSTEM  CallOffDelivery
READY_FOR_PICKUP           → as before               deliveryCalledOff        SERVICE STORE PARTNER OPERATOR SYSTEM  CallOffDelivery
DRIVER_ASSIGNED            → as before               deliveryCalledOff        SERVICE STORE PARTNER OPERATOR SYSTEM  CallOffDelivery
DRIVER_PICKUP_COMPLETE     → as before               deliveryCalledOff        SERVICE STORE PARTNER OPERATOR SYSTEM  CallOffDelivery
IN_TRANSIT                 → as before               deliveryCalledOff        SERVICE STORE PARTNER OPERATOR SYSTEM  CallOffDelivery
DELIVERED                  → as before               deliveryCalledOff        SERVICE STORE PARTNER OPERATOR SYSTEM  CallOffDelivery
CANCELLED                  → as before               deliveryCalledOff        SERVICE STORE PARTNER OPERATOR SYSTEM  CallOffDelivery
RETURNING                  → as before               deliveryCalledOff        SERVICE STORE PARTNER OPERATOR SYSTEM  CallOffDelivery
SUBMITTED                  → CANCELLED               orderCancelled           SERVICE CUSTOMER STORE OPERATOR SYSTEM CancelOrder UpdateStatus
STORE_NOTIFIED             → CANCELLED               orderCancelled           SERVICE CUSTOMER STORE OPERATOR SYSTEM CancelOrder UpdateStatus
STORE_ACKNOWLEDGED         → CANCELLED               orderCancelled           SERVICE CUSTOMER STORE OPERATOR SYSTEM CancelOrder UpdateStatus
PICKING_IN_PROGRESS        → CANCELLED               orderCancelled           SERVICE CUSTOMER STORE OPERATOR SYSTEM CancelOrder UpdateStatus
SUBSTITUTIONS_NEEDED       → CANCELLED               orderCancelled           SERVICE CUSTOMER STORE OPERATOR SYSTEM CancelOrder UpdateStatus
READY_FOR_PICKUP           → CANCELLED               orderCancelled           SERVICE CUSTOMER STORE OPERATOR SYSTEM CancelOrder UpdateStatus
DRIVER_ASSIGNED            → CANCELLED               orderCancelled           SERVICE CUSTOMER STORE OPERATOR SYSTEM CancelOrder UpdateStatus
RETURNING                  → CANCELLED               orderCancelled           SERVICE STORE OPERATOR SYSTEM          CancelOrder UpdateStatus
STORE_NOTIFIED             → as before               deadlineReminded         SYSTEM                                 CheckDeadline
SUBSTITUTIONS_NEEDED       → as before               deadlineReminded         SYSTEM                                 CheckDeadline
READY_FOR_PICKUP           → as before               deadlineReminded         SYSTEM                                 CheckDeadline
DRIVER_ASSIGNED            → as before               deadlineReminded         SYSTEM                                 CheckDeadline
STORE_NOTIFIED             → as before               deadlineEscalated        SYSTEM                                 CheckDeadline
SUBSTITUTIONS_NEEDED       → as before               deadlineEscalated        SYSTEM                                 CheckDeadline
READY_FOR_PICKUP           → as before               deadlineEscalated        SYSTEM                                 CheckDeadline
DRIVER_ASSIGNED            → as before               deadlineEscalated        SYSTEM                                 CheckDeadline
STORE_NOTIFIED             → CANCELLED               orderCancelled           SYSTEM                                 CheckDeadline
SUBSTITUTIONS_NEEDED       → as before               substitutionsResolved    SYSTEM                                 CheckDeadline
SUBSTITUTIONS_NEEDED       → PICKING_IN_PROGRESS     pickingResumed           SYSTEM                                 CheckDeadline
`
  .trim()
  .split("\n")
  .map((line) => line.replace(/ +/g, " "));

describe("the table of moves", () => {
  it("says what the design says", () => {
    const lines = MOVES.flatMap((move) => {
      const roles = [...move.roles].sort((a, b) => a - b).map((role) => Role[role]);
      const rest = `→ ${name(move.to)} ${move.event} ${roles.join(" ")} ${move.commands.join(" ")}`;
      return (move.from.length > 0 ? move.from.map(name) : ["nowhere yet"]).map((from) => `${from} ${rest}`);
    });
    expect(lines).toEqual(DESIGN);
  });

  it("leads each event to one status", () => {
    const leads = new Map<string, Set<OrderStatus | undefined>>();
    for (const { event, to } of MOVES) leads.set(event, (leads.get(event) ?? new Set()).add(to));
    for (const [event, to] of leads) expect([event, to.size]).toEqual([event, 1]);
  });

  it("ends in DELIVERED and CANCELLED", () => {
    expect(STATUSES.filter(isFinal)).toEqual([OrderStatus.DELIVERED, OrderStatus.CANCELLED]);
  });
});

/** Each command once for each status that it can ask for, each with effect in a status where the table allows it. */
const ASKED: readonly { readonly command: OrderCommand; readonly to: OrderStatus; readonly title: string }[] = [
  ...STATUSES.map((to) => ({ command: go(to), to, title: `UpdateStatus(${name(to)})` })),
  { command: acknowledge(true), to: OrderStatus.STORE_ACKNOWLEDGED, title: "AcknowledgeOrder(accepted)" },
  { command: acknowledge(false), to: OrderStatus.CANCELLED, title: "AcknowledgeOrder(declined)" },
  { command: propose("s-9"), to: OrderStatus.SUBSTITUTIONS_NEEDED, title: "ProposeSubstitutions" },
  { command: assign("d-9"), to: OrderStatus.DRIVER_ASSIGNED, title: "AssignDriver" },
  { command: deliver(), to: OrderStatus.DELIVERED, title: "MarkDelivered" },
  { command: cancel(), to: OrderStatus.CANCELLED, title: "CancelOrder" },
];
const STRICT_ROLES = ROLES.filter((role) => role !== Role.DRIVER && role !== Role.PARTNER);
const REACHED_OTHERWISE = new Map([
  [OrderStatus.DRIVER_ASSIGNED, "AssignDriver"],
  [OrderStatus.SUBSTITUTIONS_NEEDED, "UpdateSubstitutions"],
]);

const does = (move: Move, command: OrderCommand, to: OrderStatus) =>
  move.commands.includes(command.type) && (move.to === to || (move.to === undefined && command.type === "AssignDriver"));

describe.each(STRICT_ROLES.map((role) => ({ role, title: Role[role] })))("an order at the hands of role $title", ({ role }) => {
  describe.each(STATUSES.map((from) => ({ from, title: name(from) })))("in $title", ({ from }) => {
    it.each(ASKED)("answers $title as the table says", ({ command, to }) => {
      const order = orderIn(from);
      const doing = MOVES.filter((move) => does(move, command, to));
      const mine = doing.filter((move) => move.roles.includes(role));
      const move = mine.find((candidate) => candidate.from.includes(from));
      const repeatable = command.type === "AssignDriver" || command.type === "ProposeSubstitutions";
      // UpdateStatus can name statuses that only other commands lead to; those who may use these are told which.
      const anyway = doing.length > 0 ? mine : MOVES.filter((candidate) => candidate.to === to && candidate.roles.includes(role));

      if (anyway.length === 0) {
        expect(refusal(order, command, role)).toMatchObject({ reason: "PERMISSION_DENIED", metadata: { role: Role[role] } });
      } else if (from === to && !repeatable) {
        expect(when(order, command, role).types).toEqual([]);
      } else if (move) {
        const { order: after, types } = when(order, command, role);
        const expires = from === OrderStatus.SUBSTITUTIONS_NEEDED && after.status !== from ? ["substitutionsResolved"] : [];
        expect(types).toEqual([...expires, move.event]);
        expect(after.status).toBe(move.to ?? from);
        expect(after.history.length).toBe(order.history.length + (after.status === from ? 0 : 1));
      } else if (doing.some((candidate) => candidate.from.includes(from) && candidate.to !== undefined)) {
        expect(refusal(order, command, role)).toMatchObject({ reason: "PERMISSION_DENIED", metadata: { role: Role[role] } });
      } else {
        const possible = MOVES.filter(
          (candidate) => candidate.from.includes(from) && candidate.roles.includes(role) && candidate.to !== from,
        );
        const allowed = new Set(possible.flatMap((candidate) => candidate.to ?? []));
        const refused = refusal(order, command, role);
        expect(refused).toMatchObject({
          reason: "INVALID_STATUS_TRANSITION",
          metadata: {
            current_status: name(from),
            requested_status: name(to),
            allowed_statuses: [...allowed]
              .sort((a, b) => a - b)
              .map(name)
              .join(","),
          },
        });
        for (const status of [from, to, ...allowed]) expect(refused.message).toContain(name(status));
        const instead = command.type === "UpdateStatus" ? REACHED_OTHERWISE.get(to) : undefined;
        if (instead) {
          expect(refused.metadata.rpc).toBe(instead);
          expect(refused.message).toContain(instead);
        }
      }
    });
  });
});

/** What couriers' reports lead to: + a move, ++ a move with inferred steps before it, = already so, . kept as late, - no move from here, x not theirs. */
const REPORTS = `
                        READY_FOR_PICKUP DRIVER_PICKUP_COMPLETE IN_TRANSIT DELIVERED RETURNING
SUBMITTED               -                ++                     ++         ++        -
STORE_NOTIFIED          -                ++                     ++         ++        -
STORE_ACKNOWLEDGED      -                ++                     ++         ++        -
PICKING_IN_PROGRESS     x                ++                     ++         ++        -
SUBSTITUTIONS_NEEDED    x                ++                     ++         ++        -
READY_FOR_PICKUP        =                ++                     ++         ++        -
DRIVER_ASSIGNED         +                +                      ++         ++        -
DRIVER_PICKUP_COMPLETE  .                =                      +          ++        +
IN_TRANSIT              .                .                      =          +         +
RETURNING               .                .                      .          -         =
DELIVERED               .                .                      .          =         .
CANCELLED               .                .                      .          .         .
`
  .trim()
  .split("\n")
  .map((line) => line.trim().split(/ +/));

describe.each([Role.DRIVER, Role.PARTNER].map((role) => ({ role, title: Role[role] })))(
  "an order at the hands of role $title",
  ({ role }) => {
    const [targets = [], ...rows] = REPORTS;
    const cases = rows.flatMap(([from = "", ...outcomes]) =>
      outcomes.map((outcome, column) => ({ from, to: targets[column] ?? "", outcome })),
    );

    it.each(cases)("in $from answers the report of $to: $outcome", ({ from, to, outcome }) => {
      const order = orderIn(OrderStatus[from as keyof typeof OrderStatus]);
      const target = OrderStatus[to as keyof typeof OrderStatus];
      const commands = target === OrderStatus.DELIVERED ? [go(target), deliver()] : [go(target)];
      expect(commands.map((command) => outcomeOf(order.status, command, target, role))).toEqual(commands.map(() => outcome));
    });

    it.each(STATUSES.map((from) => ({ from, title: name(from) })))("in $title may not bring about what others do", ({ from }) => {
      const others = [OrderStatus.STORE_NOTIFIED, OrderStatus.STORE_ACKNOWLEDGED, OrderStatus.PICKING_IN_PROGRESS, OrderStatus.CANCELLED];
      for (const command of [
        ...others.map((status) => go(status)),
        cancel(),
        acknowledge(true),
        acknowledge(false),
        propose("s-9"),
        answer(true, "s-1"),
      ]) {
        expect(refusal(orderIn(from), command, role).reason).toBe("PERMISSION_DENIED");
      }
    });

    function outcomeOf(from: OrderStatus, command: OrderCommand, target: OrderStatus, by: Role): string {
      try {
        const { order, types } = when(orderIn(from), command, by);
        if (types.length === 0) return "=";
        if (types.includes("courierReportRecorded")) return order.status === from ? "." : "moved by a late report";
        if (order.status !== target) return "moved elsewhere";
        return types.some((event) => event.endsWith("*")) ? "++" : "+";
      } catch {
        const { reason } = refusal(orderIn(from), command, by);
        return reason === "INVALID_STATUS_TRANSITION" ? "-" : reason === "PERMISSION_DENIED" ? "x" : reason;
      }
    }
  },
);

describe("a refusal", () => {
  it("names to a courier the statuses that a report may skip to", () => {
    expect(told(refusal(orderIn(OrderStatus.PICKING_IN_PROGRESS), go(OrderStatus.RETURNING), Role.DRIVER))).toEqual({
      reason: "INVALID_STATUS_TRANSITION",
      current_status: "PICKING_IN_PROGRESS",
      requested_status: "RETURNING",
      allowed_statuses: "DRIVER_PICKUP_COMPLETE,IN_TRANSIT,DELIVERED",
    });
  });

  it("reads well", () => {
    expect(refusal(orderIn(OrderStatus.PICKING_IN_PROGRESS), go(OrderStatus.DRIVER_ASSIGNED), Role.STORE).message).toBe(
      "UpdateStatus cannot take the order from PICKING_IN_PROGRESS to DRIVER_ASSIGNED; DRIVER_ASSIGNED is reached by AssignDriver; " +
        "role STORE may move it from there to SUBSTITUTIONS_NEEDED, READY_FOR_PICKUP, CANCELLED",
    );
    expect(refusal(orderIn(OrderStatus.DELIVERED), cancel(), Role.CUSTOMER).message).toBe(
      "CancelOrder cannot take the order from DELIVERED to CANCELLED; DELIVERED is final",
    );
    expect(refusal(orderIn(OrderStatus.IN_TRANSIT), cancel(), Role.CUSTOMER).message).toBe(
      "CancelOrder cannot take the order from IN_TRANSIT to CANCELLED; role CUSTOMER may move it from there to no other status",
    );
    expect(refusal(orderIn(OrderStatus.RETURNING), cancel(), Role.CUSTOMER).message).toBe(
      "role CUSTOMER may not cancel an order whose goods come back; it may move the order from RETURNING to no other status",
    );
  });

  it("names AssignDriver to a provider, even where what it says there comes too late", () => {
    expect(told(refusal(orderIn(OrderStatus.DRIVER_PICKUP_COMPLETE), go(OrderStatus.DRIVER_ASSIGNED), Role.PARTNER))).toEqual({
      reason: "INVALID_STATUS_TRANSITION",
      current_status: "DRIVER_PICKUP_COMPLETE",
      requested_status: "DRIVER_ASSIGNED",
      allowed_statuses: "IN_TRANSIT,DELIVERED,RETURNING",
      rpc: "AssignDriver",
    });
  });

  it("names no command that would lead back to SUBMITTED", () => {
    expect(told(refusal(orderIn(OrderStatus.IN_TRANSIT), go(OrderStatus.SUBMITTED), Role.SERVICE))).toEqual({
      reason: "INVALID_STATUS_TRANSITION",
      current_status: "IN_TRANSIT",
      requested_status: "SUBMITTED",
      allowed_statuses: "DELIVERED,RETURNING",
    });
  });

  it("names CancelOrder to a store that declines too late", () => {
    expect(refusal(orderIn(OrderStatus.RETURNING), acknowledge(false), Role.STORE).metadata.rpc).toBe("CancelOrder");
    expect(refusal(orderIn(OrderStatus.IN_TRANSIT), acknowledge(false), Role.STORE).metadata.rpc).toBeUndefined();
    expect(told(refusal(orderIn(OrderStatus.PICKING_IN_PROGRESS), acknowledge(false), Role.STORE))).toEqual({
      reason: "INVALID_STATUS_TRANSITION",
      current_status: "PICKING_IN_PROGRESS",
      requested_status: "CANCELLED",
      allowed_statuses: "SUBSTITUTIONS_NEEDED,READY_FOR_PICKUP,CANCELLED",
      rpc: "CancelOrder",
    });
  });
});
