import { describe, expect, it } from "vitest";
import type { OrderCommand } from "../../src/domain/order.ts";
import { MAX_SUBSTITUTIONS } from "../../src/domain/order-substitutions.ts";
import { OrderStatus, Role, SubstitutionStatus } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { actor, answer, cancel, go, item, NOW, orderIn, proposal, propose, refusal, told, when } from "./order-fixtures.ts";

const { PICKING_IN_PROGRESS, SUBSTITUTIONS_NEEDED, READY_FOR_PICKUP, CANCELLED } = OrderStatus;
const { PROPOSED, APPROVED, REJECTED, EXPIRED } = SubstitutionStatus;

const picking = orderIn(PICKING_IN_PROGRESS);
const asked = when(picking, propose("s-1", "s-2"), Role.STORE).order;
const both = (first: boolean, second: boolean): OrderCommand => ({
  type: "ResolveSubstitutions",
  resolutions: [
    { substitutionId: "s-1", approved: first },
    { substitutionId: "s-2", approved: second },
  ],
});

describe("proposals", () => {
  it("take the order to SUBSTITUTIONS_NEEDED", () => {
    const { order, types } = when(picking, propose("s-1", "s-2"), Role.STORE);
    expect(types).toEqual(["substitutionsProposed"]);
    expect(order.status).toBe(SUBSTITUTIONS_NEEDED);
    expect(order.substitutions).toEqual(
      ["s-1", "s-2"].map((substitutionId) => ({
        substitutionId,
        originalItem: item("milk"),
        replacementItem: item("oat-milk"),
        reason: "sold out",
        status: PROPOSED,
        proposedAt: NOW,
      })),
    );
  });

  it("may be added to open ones, without another step in the history", () => {
    const { order, types } = when(asked, propose("s-3"), Role.STORE);
    expect(types).toEqual(["substitutionsProposed"]);
    expect(order.substitutions.map(({ substitutionId }) => substitutionId)).toEqual(["s-1", "s-2", "s-3"]);
    expect(order.history).toBe(asked.history);
  });

  it("that the order has already are not recorded again", () => {
    const { events } = when(asked, propose("s-2", "s-3"), Role.STORE);
    expect(events[0]?.kind.value).toMatchObject({ substitutions: [{ substitutionId: "s-3" }] });
    expect(when(asked, propose("s-1", "s-2"), Role.STORE).types).toEqual([]);
    const later = when(asked, go(READY_FOR_PICKUP), Role.STORE).order;
    expect(when(later, propose("s-1", "s-2"), Role.STORE).types).toEqual([]);
  });

  it("are not the customer's to make, not even those that the order has already", () => {
    expect(told(refusal(asked, propose("s-1"), Role.CUSTOMER))).toEqual({
      reason: "PERMISSION_DENIED",
      move: "propose substitutions",
      role: "CUSTOMER",
      current_status: "SUBSTITUTIONS_NEEDED",
      allowed_statuses: "PICKING_IN_PROGRESS,CANCELLED",
    });
  });

  it("are refused whole when one is another than that known by its identifier", () => {
    const command: OrderCommand = { type: "ProposeSubstitutions", substitutions: [proposal("s-3"), proposal("s-1", "broken")] };
    expect(told(refusal(asked, command, Role.STORE))).toEqual({ reason: "SUBSTITUTION_ALREADY_EXISTS", substitution_id: "s-1" });
  });

  it("are refused when an identifier is there twice", () => {
    expect(refusal(picking, propose("s-1", "s-2", "s-1", "s-2", "s-1"), Role.STORE)).toMatchObject({
      reason: "VALIDATION_FAILED",
      violations: [
        { field: "substitutions[2].substitution_id", rule: "unique" },
        { field: "substitutions[3].substitution_id", rule: "unique" },
        { field: "substitutions[4].substitution_id", rule: "unique" },
      ],
    });
  });

  it("are refused beyond the most that an order may have", () => {
    const ids = Array.from({ length: MAX_SUBSTITUTIONS }, (_, index) => `s-${index}`);
    const { order } = when(picking, propose(...ids), Role.STORE);
    expect(refusal(order, propose("one-more"), Role.STORE)).toMatchObject({
      reason: "VALIDATION_FAILED",
      message: "substitutions: an order has at most 200 proposals; with these it would have 201",
      violations: [{ field: "substitutions", rule: "max_per_order" }],
    });
    expect(when(order, propose(...ids), Role.STORE).types).toEqual([]);
  });

  it("expire when the order moves on without an answer", () => {
    const partly = when(asked, answer(true, "s-1"), Role.CUSTOMER).order;
    for (const [command, event, role] of [
      [go(PICKING_IN_PROGRESS), "pickingResumed", Role.STORE],
      [go(READY_FOR_PICKUP), "orderReadied", Role.STORE],
      [cancel(), "orderCancelled", Role.CUSTOMER],
      [go(CANCELLED), "orderCancelled", Role.STORE],
    ] as const) {
      const { order, types } = when(partly, command, role);
      expect(types).toEqual(["substitutionsResolved", event]);
      expect(order.substitutions).toMatchObject([
        { status: APPROVED, resolvedBy: actor(Role.CUSTOMER) },
        { status: EXPIRED, resolvedAt: NOW, resolvedBy: actor(role) },
      ]);
    }
  });
});

describe("answers", () => {
  it("leave the order where it is while a proposal is open", () => {
    const { order, types } = when(asked, answer(false, "s-2"), Role.CUSTOMER);
    expect(types).toEqual(["substitutionsResolved"]);
    expect(order.status).toBe(SUBSTITUTIONS_NEEDED);
    expect(order.substitutions).toMatchObject([
      { status: PROPOSED },
      { status: REJECTED, resolvedAt: NOW, resolvedBy: actor(Role.CUSTOMER) },
    ]);
  });

  it("let picking go on with the last of them, at once", () => {
    for (const role of [Role.CUSTOMER, Role.SERVICE, Role.OPERATOR]) {
      const { order, types } = when(asked, both(true, false), role);
      expect(types).toEqual(["substitutionsResolved", "pickingResumed"]);
      expect(order.status).toBe(PICKING_IN_PROGRESS);
      expect(order.substitutions).toMatchObject([{ status: APPROVED }, { status: REJECTED }]);
    }
  });

  it("are not the store's to give", () => {
    expect(told(refusal(asked, answer(true, "s-1"), Role.STORE))).toEqual({
      reason: "PERMISSION_DENIED",
      move: "answer substitutions",
      role: "STORE",
      current_status: "SUBSTITUTIONS_NEEDED",
      allowed_statuses: "PICKING_IN_PROGRESS,READY_FOR_PICKUP,CANCELLED",
    });
  });

  it("that were given already are not recorded again, in whatever status", () => {
    const partly = when(asked, answer(true, "s-1"), Role.CUSTOMER).order;
    expect(when(partly, answer(true, "s-1"), Role.CUSTOMER).types).toEqual([]);
    const { order, events } = when(partly, both(true, true), Role.CUSTOMER);
    expect(events[0]?.kind.value).toMatchObject({ resolutions: [{ substitutionId: "s-2", status: APPROVED }] });
    const called = when(order, cancel(), Role.CUSTOMER).order;
    expect(when(called, both(true, true), Role.CUSTOMER).types).toEqual([]);
  });

  it("to something never proposed are refused whole", () => {
    expect(told(refusal(asked, answer(true, "s-1", "s-9"), Role.CUSTOMER))).toEqual({
      reason: "SUBSTITUTION_NOT_FOUND",
      substitution_id: "s-9",
    });
  });

  it("that differ from the first are refused whole", () => {
    const partly = when(asked, answer(true, "s-1"), Role.CUSTOMER).order;
    expect(told(refusal(partly, both(false, true), Role.CUSTOMER))).toEqual({
      reason: "SUBSTITUTION_ALREADY_RESOLVED",
      substitution_id: "s-1",
      status: "APPROVED",
    });
  });

  it("to a proposal that has run out are refused", () => {
    const ready = when(asked, go(READY_FOR_PICKUP), Role.STORE).order;
    expect(told(refusal(ready, answer(true, "s-2"), Role.CUSTOMER))).toMatchObject({
      reason: "SUBSTITUTION_ALREADY_RESOLVED",
      status: "EXPIRED",
    });
  });

  it("are refused when a proposal is answered twice", () => {
    expect(refusal(asked, answer(true, "s-1", "s-1"), Role.CUSTOMER)).toMatchObject({
      reason: "VALIDATION_FAILED",
      violations: [{ field: "resolutions[1].substitution_id", rule: "unique" }],
    });
  });
});
