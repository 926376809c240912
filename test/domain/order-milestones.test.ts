import { describe, expect, it } from "vitest";
import { estimateArrival, recentSpeed } from "../../src/domain/arrival.ts";
import { decide, evolve, type OrderState } from "../../src/domain/order.ts";
import { milestoneAt } from "../../src/domain/order-milestones.ts";
import { DriverMilestone, OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { actor, assign, go, INIT, NOW } from "./order-fixtures.ts";

const { STORE_NOTIFIED, STORE_ACKNOWLEDGED, PICKING_IN_PROGRESS, READY_FOR_PICKUP, DRIVER_PICKUP_COMPLETE, IN_TRANSIT, RETURNING } =
  OrderStatus;
const { NEAR_STORE, AT_STORE, NEAR_CUSTOMER, ARRIVED } = DriverMilestone;
const METER = 1 / 111_195;
const STOPS = { store: { latitude: 0, longitude: 0 }, customer: { latitude: 3000 * METER, longitude: 0 } };
const RADII = { nearMeters: 500, arrivedMeters: 75 };

/** An order after commands of a service. */
function orderAfter(...commands: Parameters<typeof decide>[1][]): OrderState {
  const by = actor(Role.SERVICE);
  const state = [INIT, ...commands].reduce<OrderState | undefined>(
    (before, command) => decide(before, command, by).reduce((now, event) => evolve(now, event, { actor: by, recordedAt: NOW }), before),
    undefined,
  );
  if (!state) throw new Error("no order");
  return state;
}

const READY = [go(STORE_NOTIFIED), go(STORE_ACKNOWLEDGED), go(PICKING_IN_PROGRESS), go(READY_FOR_PICKUP)];
const ASSIGNED = [...READY, assign("d-1")];
const PICKED_UP = [...ASSIGNED, go(DRIVER_PICKUP_COMPLETE)];
const reach = (milestone: DriverMilestone, driverId = "d-1") => ({ type: "ReachMilestone", milestone, driverId, at: NOW }) as const;
const metersFromStore = (meters: number, accuracyM?: number) => ({ latitude: meters * METER, longitude: 0, accuracyM, recordedAt: NOW });

describe("a driver's milestone", () => {
  it.each<[string, OrderState, number, DriverMilestone | undefined]>([
    ["far from the store", orderAfter(...ASSIGNED), 501, undefined],
    ["near the store", orderAfter(...ASSIGNED), 499, NEAR_STORE],
    ["at the store", orderAfter(...ASSIGNED), 74, AT_STORE],
    ["near the customer before the goods are picked up", orderAfter(...ASSIGNED), 2900, undefined],
    ["near the store with the goods", orderAfter(...PICKED_UP), 100, undefined],
    ["near the customer", orderAfter(...PICKED_UP), 2501, NEAR_CUSTOMER],
    ["at the customer's", orderAfter(...PICKED_UP, go(IN_TRANSIT)), 2926, ARRIVED],
    ["at the customer's, bringing the goods back", orderAfter(...PICKED_UP, go(RETURNING)), 3000, undefined],
    ["at the store, booked for an order that is not ready", orderAfter(...READY.slice(0, 3), assign("d-1")), 0, AT_STORE],
    ["at the store, which is known already", orderAfter(...ASSIGNED, reach(AT_STORE)), 0, undefined],
  ])("of one %s", (_, state, meters, expected) => {
    expect(milestoneAt(state, metersFromStore(meters), STOPS, RADII)).toBe(expected);
  });

  it("is not shown by a point that is less exact than the radius, nor where the place is not known", () => {
    expect(milestoneAt(orderAfter(...ASSIGNED), metersFromStore(0, 76), STOPS, RADII)).toBe(NEAR_STORE);
    expect(milestoneAt(orderAfter(...ASSIGNED), metersFromStore(0, 501), STOPS, RADII)).toBeUndefined();
    expect(milestoneAt(orderAfter(...ASSIGNED), metersFromStore(0), { customer: STOPS.customer }, RADII)).toBeUndefined();
  });

  it("is recorded once, with what was passed on the way to it, and moves no status", () => {
    const before = orderAfter(...ASSIGNED);
    const events = decide(before, reach(AT_STORE), actor(Role.SYSTEM));
    expect(events.map(({ inferred }) => inferred)).toEqual([true, false]);
    const state = orderAfter(...ASSIGNED, reach(AT_STORE), reach(NEAR_STORE), reach(AT_STORE));
    expect(state.milestones).toEqual([
      { milestone: NEAR_STORE, at: NOW },
      { milestone: AT_STORE, at: NOW },
    ]);
    expect(state.status).toBe(before.status);
    expect(state.history).toHaveLength(before.history.length);
  });

  it.each<[string, OrderState, ReturnType<typeof reach>]>([
    ["of another driver", orderAfter(...ASSIGNED), reach(AT_STORE, "d-2")],
    ["of the store with the goods on the way", orderAfter(...PICKED_UP), reach(AT_STORE)],
    ["of the customer before that", orderAfter(...ASSIGNED), reach(ARRIVED)],
    ["of an order without a driver", orderAfter(...READY), reach(AT_STORE)],
  ])("%s is not recorded", (_, state, command) => {
    expect(decide(state, command, actor(Role.SYSTEM))).toEqual([]);
  });

  it("counts for one assignment: with another driver, or none, it is open again", () => {
    const reached = [...ASSIGNED, reach(AT_STORE)];
    expect(orderAfter(...reached, assign("d-1")).milestones).toHaveLength(2);
    expect(orderAfter(...reached, assign("d-2")).milestones).toEqual([]);
    expect(orderAfter(...reached, go(READY_FOR_PICKUP)).milestones).toEqual([]);
    expect(orderAfter(...PICKED_UP, reach(ARRIVED), go(RETURNING), assign("d-1")).milestones).toEqual([]);
  });
});

describe("the arrival of a driver", () => {
  it.each([
    ["at the usual speed when nothing is known", [7000], undefined, 1300],
    ["at the recent speed", [7000], 14, 650],
    ["not slower than at a walk", [2500], 0, 1300],
    ["not faster than a town allows", [2200], 60, 130],
    ["with a stop at the store", [3500, 3500], 7, 1480],
    ["at once, when there is no way left", [0], 7, 0],
  ])("is %s", (_, legsMeters, speedMps, seconds) => {
    expect(estimateArrival({ legsMeters, speedMps })).toBeCloseTo(seconds);
  });

  it("goes by a speed in which the newest minute counts most", () => {
    expect(recentSpeed(undefined, 100, 10)).toBe(10);
    expect(recentSpeed(10, 0, 60)).toBeCloseTo(10 / Math.E);
    expect(recentSpeed(10, 50, 0)).toBe(10);
  });
});
