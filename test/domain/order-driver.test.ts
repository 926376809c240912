import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { decide } from "../../src/domain/order.ts";
import { DriverSchema } from "../../src/gen/ordertrail/events/v1/order_events_pb.js";
import { DeliveryProvider, OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { assign, delivery, driver, go, LATER, NOW, orderIn, refusal, sealed, told, when } from "./order-fixtures.ts";

const { PICKING_IN_PROGRESS, READY_FOR_PICKUP, DRIVER_ASSIGNED, DRIVER_PICKUP_COMPLETE, IN_TRANSIT, DELIVERED, RETURNING } = OrderStatus;
const DISPATCHERS = [Role.PARTNER, Role.STORE, Role.SERVICE, Role.OPERATOR];
const full = assign("d-5", { deliveryProvider: DeliveryProvider.DOORDASH, delivery: delivery("job-1"), eta: LATER });

/** An order whose goods a driver has whom nobody named. */
const withoutDriver = (status: OrderStatus) => when(orderIn(READY_FOR_PICKUP), go(status), Role.DRIVER).order;

describe("a driver", () => {
  it("is assigned when the order is ready", () => {
    for (const role of DISPATCHERS) {
      const { order, types } = when(orderIn(READY_FOR_PICKUP), full, role);
      expect(types).toEqual(["driverAssigned"]);
      expect(order).toMatchObject({
        status: DRIVER_ASSIGNED,
        driver: driver("d-5"),
        deliveryProvider: DeliveryProvider.DOORDASH,
        delivery: delivery("job-1"),
        eta: LATER,
      });
    }
  });

  it("leaves the provider as before when the command names none", () => {
    expect(when(orderIn(READY_FOR_PICKUP), assign("d-5"), Role.STORE).order.deliveryProvider).toBe(DeliveryProvider.UBER);
  });

  it("is booked early, moves nothing, and is assigned as soon as the order is ready", () => {
    const booked = when(orderIn(PICKING_IN_PROGRESS), full, Role.PARTNER);
    expect(booked.types).toEqual(["driverBooked"]);
    expect(booked.order).toMatchObject({ status: PICKING_IN_PROGRESS, driver: driver("d-5"), eta: LATER });

    const ready = when(booked.order, go(READY_FOR_PICKUP, sealed("by the door")), Role.STORE);
    expect(ready.types).toEqual(["orderReadied", "driverAssigned*"]);
    expect(ready.order.history.slice(-2)).toMatchObject([
      { status: READY_FOR_PICKUP, inferred: false, note: sealed("by the door") },
      { status: DRIVER_ASSIGNED, previousStatus: READY_FOR_PICKUP, inferred: true, note: undefined },
    ]);
    expect(ready.order).toMatchObject({
      driver: driver("d-5"),
      delivery: delivery("job-1"),
      eta: LATER,
      deliveryProvider: DeliveryProvider.DOORDASH,
    });
  });

  it("who was booked is assigned, too, when the order becomes ready with open proposals", () => {
    const booked = when(orderIn(OrderStatus.SUBSTITUTIONS_NEEDED), full, Role.PARTNER).order;
    expect(when(booked, go(READY_FOR_PICKUP), Role.STORE).types).toEqual(["substitutionsResolved", "orderReadied", "driverAssigned*"]);
  });

  it("stays on the order when the one who reported it ready says so again", () => {
    const booked = when(orderIn(PICKING_IN_PROGRESS), full, Role.PARTNER).order;
    for (const role of [Role.STORE, Role.SERVICE, Role.OPERATOR]) {
      const { order } = when(booked, go(READY_FOR_PICKUP), role);
      expect(when(order, go(READY_FOR_PICKUP), role).types).toEqual([]);
      expect(decide(order, go(READY_FOR_PICKUP), { role: Role.SERVICE, subject: "another" })).toHaveLength(1);
      expect(when(order, go(READY_FOR_PICKUP), Role.PARTNER).types).toEqual(["driverUnassigned"]);
      const another = { ...go(READY_FOR_PICKUP), identified: true };
      expect(when(order, another, role).types).toEqual(role === Role.STORE ? [] : ["driverUnassigned"]);
    }
  });

  it("gives way to another one, booked or assigned", () => {
    const booked = when(orderIn(PICKING_IN_PROGRESS), full, Role.PARTNER).order;
    expect(when(booked, assign("d-6"), Role.STORE)).toMatchObject({
      types: ["driverBooked"],
      order: { driver: driver("d-6"), eta: undefined },
    });
    const assigned = when(orderIn(READY_FOR_PICKUP), full, Role.PARTNER).order;
    const { order, types } = when(assigned, assign("d-6"), Role.PARTNER);
    expect(types).toEqual(["driverAssigned"]);
    expect(order).toMatchObject({ status: DRIVER_ASSIGNED, driver: driver("d-6"), delivery: undefined, eta: undefined });
    expect(order.history).toBe(assigned.history);
  });

  it.each([
    ["vehicle", { driver: create(DriverSchema, { ...driver("d-5"), vehicleType: "car" }) }],
    ["personal data", { driver: create(DriverSchema, { ...driver("d-5"), personal: sealed("another number") }) }],
    ["provider", { deliveryProvider: DeliveryProvider.IN_HOUSE }],
    ["delivery", { delivery: delivery("job-2") }],
    ["lack of a delivery", { delivery: undefined }],
    ["expected time", { eta: NOW }],
    ["lack of an expected time", { eta: undefined }],
  ])("is recorded anew with another %s, and not without", (_, other) => {
    for (const status of [PICKING_IN_PROGRESS, READY_FOR_PICKUP]) {
      const { order } = when(orderIn(status), full, Role.PARTNER);
      expect(when(order, structuredClone(full), Role.PARTNER).types).toEqual([]);
      expect(when(order, { ...full, ...other }, Role.PARTNER).types).toHaveLength(1);
    }
  });

  it("is the same in whatever status the order is by now", () => {
    for (const status of [DRIVER_PICKUP_COMPLETE, IN_TRANSIT, DELIVERED]) {
      const order = orderIn(status);
      for (const role of DISPATCHERS) expect(when(order, assign("d-1"), role).types).toEqual([]);
    }
  });

  it("may be unassigned until the goods are picked up, which forgets driver, delivery and expected time", () => {
    const assigned = when(orderIn(READY_FOR_PICKUP), full, Role.PARTNER).order;
    const { order, types } = when(assigned, go(READY_FOR_PICKUP), Role.DRIVER);
    expect(types).toEqual(["driverUnassigned"]);
    expect(order).toMatchObject({ status: READY_FOR_PICKUP, driver: undefined, delivery: undefined, eta: undefined });
    expect(order.deliveryProvider).toBe(DeliveryProvider.DOORDASH);
    expect(when(order, assign("d-6"), Role.STORE).order).toMatchObject({ status: DRIVER_ASSIGNED, driver: driver("d-6") });
  });

  it("is not unassigned by a store", () => {
    expect(told(refusal(orderIn(DRIVER_ASSIGNED), go(READY_FOR_PICKUP), Role.STORE))).toEqual({
      reason: "PERMISSION_DENIED",
      move: "unassign the driver",
      role: "STORE",
      current_status: "DRIVER_ASSIGNED",
      allowed_statuses: "CANCELLED",
    });
  });

  it("stays known while the goods come back, and may set out again", () => {
    const returning = orderIn(RETURNING);
    expect(returning.driver).toEqual(driver("d-1"));
    const { order, types } = when(returning, assign("d-1"), Role.STORE);
    expect(types).toEqual(["driverAssigned"]);
    expect(order.status).toBe(DRIVER_ASSIGNED);
    expect(when(order, assign("d-1"), Role.STORE).types).toEqual([]);
  });

  it("whom the provider names late is known from then on", () => {
    for (const status of [DRIVER_PICKUP_COMPLETE, IN_TRANSIT, DELIVERED]) {
      const { order, types } = when(withoutDriver(status), full, Role.PARTNER);
      expect(types).toEqual(["driverBooked"]);
      expect(order).toMatchObject({ status, driver: driver("d-5"), delivery: delivery("job-1") });
      expect(when(order, full, Role.PARTNER).types).toEqual([]);
    }
  });

  it("is not named late by anyone else", () => {
    for (const role of [Role.STORE, Role.SERVICE, Role.OPERATOR]) {
      expect(told(refusal(withoutDriver(IN_TRANSIT), full, role))).toMatchObject({
        reason: "INVALID_STATUS_TRANSITION",
        requested_status: "DRIVER_ASSIGNED",
      });
    }
    expect(refusal(withoutDriver(IN_TRANSIT), full, Role.DRIVER).reason).toBe("PERMISSION_DENIED");
  });

  it("who is another than the known one is kept as a late report of the provider", () => {
    for (const status of [DRIVER_PICKUP_COMPLETE, IN_TRANSIT, DELIVERED]) {
      const { order, types } = when(orderIn(status), full, Role.PARTNER);
      expect(types).toEqual(["courierReportRecorded"]);
      expect(order).toEqual({ ...orderIn(status), lateReports: [DRIVER_ASSIGNED] });
      expect(when(order, assign("d-6"), Role.PARTNER).types).toEqual([]);
      expect(refusal(order, full, Role.SERVICE).reason).toBe("INVALID_STATUS_TRANSITION");
    }
  });

  it("of an order called off is kept as a late report", () => {
    const { order, types } = when(orderIn(OrderStatus.CANCELLED), full, Role.PARTNER);
    expect(types).toEqual(["courierReportRecorded"]);
    expect(order.driver).toBeUndefined();
  });
});
