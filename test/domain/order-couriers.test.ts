import { describe, expect, it } from "vitest";
import { OrderStatus, Role, SubstitutionStatus } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { actor, assign, deliver, driver, go, LATER, NOW, orderIn, refusal, sealed, told, when } from "./order-fixtures.ts";

const { DRIVER_PICKUP_COMPLETE, IN_TRANSIT, DELIVERED, RETURNING } = OrderStatus;

describe("a courier's report", () => {
  it("implies every step that nobody reported", () => {
    const { order, types } = when(orderIn(OrderStatus.SUBMITTED), go(DELIVERED, sealed("at last")), Role.PARTNER);
    expect(types).toEqual([
      "storeNotified*",
      "storeAcknowledged*",
      "pickingStarted*",
      "orderReadied*",
      "driverAssigned*",
      "driverPickupCompleted*",
      "transitStarted*",
      "orderDelivered",
    ]);
    expect(order.history.map(({ inferred }) => inferred)).toEqual([false, true, true, true, true, true, true, true, false]);
    expect(order.history.map(({ note }) => note)).toEqual([...Array(8).fill(undefined), sealed("at last")]);
    expect(new Set(order.history.slice(1).map((step) => step.actor.subject))).toEqual(new Set([actor(Role.PARTNER).subject]));
  });

  it("lets open proposals expire before it skips over them", () => {
    const { order, types } = when(orderIn(OrderStatus.SUBSTITUTIONS_NEEDED), go(DRIVER_PICKUP_COMPLETE), Role.DRIVER);
    expect(types).toEqual(["substitutionsResolved", "orderReadied*", "driverAssigned*", "driverPickupCompleted"]);
    expect(order.substitutions).toMatchObject([
      { substitutionId: "s-1", status: SubstitutionStatus.EXPIRED, resolvedAt: NOW, resolvedBy: actor(Role.DRIVER) },
    ]);
  });

  it("implies the assignment of the driver who was booked", () => {
    const booked = when(orderIn(OrderStatus.STORE_ACKNOWLEDGED), assign("d-5", { eta: LATER }), Role.PARTNER).order;
    const { order, events } = when(booked, go(DRIVER_PICKUP_COMPLETE), Role.DRIVER);
    expect(events.find(({ kind }) => kind.case === "driverAssigned")?.kind.value).toMatchObject({ driver: driver("d-5") });
    expect(order).toMatchObject({ driver: driver("d-5"), eta: LATER });
  });

  it("names no driver in the assignment that it implies when none is known", () => {
    const { order } = when(orderIn(OrderStatus.READY_FOR_PICKUP), go(DRIVER_PICKUP_COMPLETE), Role.DRIVER);
    expect(order.driver).toBeUndefined();
    expect(order.deliveryProvider).toBe(orderIn(OrderStatus.READY_FOR_PICKUP).deliveryProvider);
  });

  it("of the handover implies that the driver was under way, and carries the proof", () => {
    const { order, types } = when(orderIn(DRIVER_PICKUP_COMPLETE), deliver(LATER, sealed("left with Bob")), Role.DRIVER);
    expect(types).toEqual(["transitStarted*", "orderDelivered"]);
    expect(order.proof).toEqual({ deliveredAt: LATER, details: sealed("left with Bob") });
  });

  it("is not made up for others: they are held to the table", () => {
    for (const role of [Role.SERVICE, Role.OPERATOR]) {
      expect(told(refusal(orderIn(DRIVER_PICKUP_COMPLETE), deliver(), role))).toEqual({
        reason: "INVALID_STATUS_TRANSITION",
        current_status: "DRIVER_PICKUP_COMPLETE",
        requested_status: "DELIVERED",
        allowed_statuses: "IN_TRANSIT,RETURNING",
      });
    }
  });

  it("that comes late is kept, once for each status, and moves nothing", () => {
    const first = when(orderIn(DELIVERED), go(IN_TRANSIT, sealed("tunnel")), Role.PARTNER);
    expect(first.types).toEqual(["courierReportRecorded"]);
    expect(first.events[0]?.note).toEqual(sealed("tunnel"));
    const second = when(first.order, go(DRIVER_PICKUP_COMPLETE), Role.DRIVER);
    expect(second.order).toEqual({ ...orderIn(DELIVERED), lateReports: [IN_TRANSIT, DRIVER_PICKUP_COMPLETE] });
    expect(when(second.order, go(IN_TRANSIT), Role.DRIVER).types).toEqual([]);
  });

  it("of a handover is kept after the order was called off", () => {
    const cancelled = orderIn(OrderStatus.CANCELLED);
    expect(when(cancelled, deliver(), Role.DRIVER).order).toEqual({ ...cancelled, lateReports: [DELIVERED] });
  });

  it("of a handover is refused while the goods come back, and possible after a new assignment", () => {
    const returning = orderIn(RETURNING);
    expect(refusal(returning, deliver(), Role.DRIVER).reason).toBe("INVALID_STATUS_TRANSITION");
    const again = when(returning, assign("d-2"), Role.STORE).order;
    expect(when(again, deliver(), Role.DRIVER).order.status).toBe(DELIVERED);
  });
});
