import { describe, expect, it } from "vitest";
import type { OrderCommand, OrderState } from "../../src/domain/order.ts";
import { type AcceptDelivery, type RequestDelivery, UNANSWERED } from "../../src/domain/order-delivery.ts";
import { DeliveryProvider, OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { assign, cancel, deliver, delivery, go, orderIn, ROLES, refusal, STATUSES, told, when } from "./order-fixtures.ts";

const { UBER, DOORDASH, UNSPECIFIED } = DeliveryProvider;
const { READY_FOR_PICKUP, DRIVER_ASSIGNED, DRIVER_PICKUP_COMPLETE, IN_TRANSIT, RETURNING, CANCELLED } = OrderStatus;

const request = (more: Partial<RequestDelivery> = {}): OrderCommand => ({
  type: "RequestDelivery",
  ...{ deliveryProvider: UBER, quoteId: "q-1", alternatives: [] },
  ...more,
});
const accept = (attempt = 1, more: Partial<AcceptDelivery> = {}): OrderCommand => ({
  type: "AcceptDelivery",
  ...{ attempt, providerDeliveryId: `del-${attempt}`, trackingUrl: "https://t.example/1" },
  ...more,
});
const decline = (attempt = 1, reason = "couriers_busy", failOver = true): OrderCommand => ({
  type: "DeclineDelivery",
  attempt,
  reason,
  failOver,
});
const callOff = (attempt = 1): OrderCommand => ({ type: "CallOffDelivery", attempt });

/** The order after these commands, each by a role that may give it. */
function following(state: OrderState, ...commands: readonly (readonly [OrderCommand, Role])[]): OrderState {
  return commands.reduce((order, [command, role]) => when(order, command, role).order, state);
}
const accepted = (status = READY_FOR_PICKUP, more: Partial<RequestDelivery> = {}) =>
  following(orderIn(status), [request(more), Role.STORE], [accept(), Role.PARTNER]);

describe("a request for a courier", () => {
  it.each(STATUSES.map((status) => ({ status, title: OrderStatus[status] })))("in $title is as the table has it", ({ status }) => {
    const possible = ![DRIVER_PICKUP_COMPLETE, IN_TRANSIT, OrderStatus.DELIVERED, CANCELLED].includes(status);
    for (const role of ROLES) {
      const mayAsk = [Role.STORE, Role.SERVICE, Role.OPERATOR].includes(role);
      if (!mayAsk) expect(refusal(orderIn(status), request(), role).reason).toBe("PERMISSION_DENIED");
      else if (!possible) expect(refusal(orderIn(status), request(), role).reason).toBe("INVALID_STATUS_TRANSITION");
      else {
        const { order, types } = when(orderIn(status), request({ alternatives: [DOORDASH] }), role);
        expect(types).toEqual(["deliveryRequested"]);
        expect(order).toMatchObject({
          status,
          deliveryProvider: UBER,
          job: { attempt: 1, status: "REQUESTED", quoteId: "q-1", alternatives: [DOORDASH] },
        });
      }
    }
  });

  it("is one at a time, and numbered", () => {
    const requested = following(orderIn(READY_FOR_PICKUP), [request(), Role.STORE]);
    expect(when(requested, request(), Role.STORE).types).toEqual([]);
    expect(told(refusal(requested, request({ deliveryProvider: DOORDASH }), Role.STORE))).toMatchObject({
      reason: "DELIVERY_UNDER_WAY",
      attempt: "1",
    });
    expect(refusal(accepted(), request({ quoteId: "q-2" }), Role.STORE).reason).toBe("DELIVERY_UNDER_WAY");
    const again = following(requested, [decline(), Role.PARTNER], [request(), Role.STORE]);
    expect(again.job).toMatchObject({ attempt: 2, status: "REQUESTED" });
  });

  it("is accepted with what the provider calls it, once; what changes about it is kept", () => {
    const order = accepted();
    expect(order).toMatchObject({
      deliveryProvider: UBER,
      delivery: { providerDeliveryId: "del-1", attempt: 1 },
      job: { status: "ACCEPTED" },
    });
    expect(when(order, accept(), Role.PARTNER).types).toEqual([]);
    expect(when(order, accept(1, { providerDeliveryId: "del-other" }), Role.PARTNER).types).toEqual([]);
    expect(when(order, accept(1, { trackingUrl: "" }), Role.PARTNER).types).toEqual([]);
    expect(when(order, accept(1, { trackingUrl: "https://t.example/2" }), Role.PARTNER).order.job?.delivery?.trackingUrl).toBe(
      "https://t.example/2",
    );
  });

  it("that is declined goes to the next provider in the same entry, as long as there is one", () => {
    const requested = following(orderIn(READY_FOR_PICKUP), [request({ alternatives: [DOORDASH] }), Role.STORE]);
    const { order, types } = when(requested, decline(), Role.PARTNER);
    expect(types).toEqual(["deliveryDeclined", "deliveryRequested*"]);
    expect(order).toMatchObject({ deliveryProvider: DOORDASH, job: { attempt: 2, status: "REQUESTED", quoteId: "", alternatives: [] } });
    expect(when(order, accept(1), Role.PARTNER).types).toEqual([]);
    const last = when(order, decline(2, "distance_too_long"), Role.PARTNER);
    expect(last.types).toEqual(["deliveryDeclined"]);
    expect(last.order).toMatchObject({
      deliveryProvider: UNSPECIFIED,
      job: { attempt: 2, status: "DECLINED", reason: "distance_too_long" },
    });
    expect(when(requested, decline(1, "x", false), Role.SYSTEM).types).toEqual(["deliveryDeclined"]);
    const called = following(requested, [cancel(), Role.STORE]);
    expect(when(called, decline(), Role.PARTNER).types).toEqual(["deliveryDeclined"]);
  });

  it("that is given up takes its driver along, and no other", () => {
    const named = following(accepted(), [assign("d-1", { delivery: delivery("del-1", 1) }), Role.PARTNER]);
    expect(named.status).toBe(DRIVER_ASSIGNED);
    for (const command of [decline(), callOff()]) {
      const { order, types } = when(named, command, Role.PARTNER);
      expect(types).toEqual(["driverUnassigned*", command.type === "CallOffDelivery" ? "deliveryCalledOff" : "deliveryDeclined"]);
      expect(order).toMatchObject({ status: READY_FOR_PICKUP, driver: undefined, delivery: undefined, deliveryProvider: UNSPECIFIED });
    }
    const booked = following(accepted(OrderStatus.PICKING_IN_PROGRESS), [assign("d-1", { delivery: delivery("del-1", 1) }), Role.PARTNER]);
    expect(when(booked, decline(), Role.PARTNER).order).toMatchObject({ status: OrderStatus.PICKING_IN_PROGRESS, driver: undefined });
    const byHand = following(accepted(), [assign("d-9"), Role.STORE]);
    expect(when(byHand, decline(), Role.PARTNER).order).toMatchObject({ status: DRIVER_ASSIGNED, driver: { driverId: "d-9" } });
  });

  it("cannot be given up once its courier has the goods, and ends with the delivery", () => {
    const underWay = following(
      accepted(),
      [assign("d-1", { delivery: delivery("del-1", 1) }), Role.PARTNER],
      [go(DRIVER_PICKUP_COMPLETE), Role.PARTNER],
    );
    for (const command of [decline(), callOff()]) expect(refusal(underWay, command, Role.PARTNER).reason).toBe("INVALID_STATUS_TRANSITION");
    expect(following(underWay, [deliver(), Role.PARTNER]).job?.status).toBe("ENDED");
    const back = following(underWay, [go(RETURNING), Role.PARTNER]);
    expect(back.job?.status).toBe("ENDED");
    expect(when(back, request(), Role.STORE).order.job).toMatchObject({ attempt: 2, status: "REQUESTED" });
  });

  it("left unanswered is remembered until it is called off", () => {
    const requested = following(orderIn(READY_FOR_PICKUP), [request({ alternatives: [DOORDASH] }), Role.STORE]);
    const next = following(requested, [decline(1, UNANSWERED), Role.SYSTEM], [accept(2), Role.PARTNER]);
    expect(next.job).toMatchObject({ attempt: 2, status: "ACCEPTED", unanswered: [{ provider: UBER, attempt: 1 }] });
    const { order, types } = when(next, callOff(1), Role.SYSTEM);
    expect(types).toEqual(["deliveryCalledOff"]);
    expect(order.job).toMatchObject({ attempt: 2, status: "ACCEPTED", unanswered: [] });
    expect(order.deliveryProvider).toBe(DOORDASH);
    expect(when(order, callOff(1), Role.SYSTEM).types).toEqual([]);
  });

  it("that was never made is told of by nobody", () => {
    for (const command of [accept(), decline(), callOff()])
      expect(refusal(orderIn(READY_FOR_PICKUP), command, Role.PARTNER).reason).toBe("DELIVERY_NOT_REQUESTED");
    expect(refusal(accepted(), accept(2), Role.PARTNER).reason).toBe("DELIVERY_NOT_REQUESTED");
  });

  it("is called off although the order is", () => {
    const called = following(accepted(), [cancel(), Role.STORE]);
    expect(when(called, callOff(), Role.SYSTEM).order).toMatchObject({ status: CANCELLED, job: { status: "CALLED_OFF" } });
  });
});
