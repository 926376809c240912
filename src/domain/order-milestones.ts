import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { DriverMilestone, OrderStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import { type DriverPoint, distanceMeters, type Place } from "./driver-point.ts";
import type { OrderState, ReachMilestone } from "./order.ts";
import { happened, implied } from "./order-event.ts";

/** A point of the way that the driver has come to. */
export type Milestone = { readonly milestone: DriverMilestone; readonly at: Date };

/** The places that a driver goes to, as far as they are known. */
export type Stops = { readonly store?: Place | undefined; readonly customer?: Place | undefined };

/** How close to a place a driver is near it, or there. In metres. */
export type Radii = { readonly nearMeters: number; readonly arrivedMeters: number };

type Rule = { readonly milestone: DriverMilestone; readonly stop: keyof Stops; readonly within: keyof Radii };

const { NEAR_STORE, AT_STORE, NEAR_CUSTOMER, ARRIVED } = DriverMilestone;

/** The milestones, in the order of the way. */
const RULES: readonly Rule[] = [
  { milestone: NEAR_STORE, stop: "store", within: "nearMeters" },
  { milestone: AT_STORE, stop: "store", within: "arrivedMeters" },
  { milestone: NEAR_CUSTOMER, stop: "customer", within: "nearMeters" },
  { milestone: ARRIVED, stop: "customer", within: "arrivedMeters" },
];

const TO_CUSTOMER: readonly OrderStatus[] = [OrderStatus.DRIVER_PICKUP_COMPLETE, OrderStatus.IN_TRANSIT];
const TO_NOBODY: readonly OrderStatus[] = [OrderStatus.RETURNING, OrderStatus.DELIVERED, OrderStatus.CANCELLED];

/** Where the driver of an order goes next: undefined when nobody waits for them. */
export function nextStop(status: OrderStatus): keyof Stops | undefined {
  if (TO_NOBODY.includes(status)) return undefined;
  return TO_CUSTOMER.includes(status) ? "customer" : "store";
}

/** The furthest milestone that a point shows its driver at, if the order has not got it yet. A point whose accuracy is worse than the radius shows nothing. */
export function milestoneAt(state: OrderState, point: DriverPoint, stops: Stops, radii: Radii): DriverMilestone | undefined {
  const stop = nextStop(state.status);
  const place = stop && stops[stop];
  if (!place) return undefined;
  const meters = distanceMeters(point, place);
  const reached = RULES.findLast((rule) => {
    const radius = radii[rule.within];
    return rule.stop === stop && meters <= radius && (point.accuracyM ?? 0) <= radius;
  });
  return reached && !has(state, reached.milestone) ? reached.milestone : undefined;
}

/**
 * Decides ReachMilestone: each once for each assignment of a driver, and what lies before it on the same leg as implied. What comes
 * too late, or of a driver who has left the order, yields no events.
 */
export function reachMilestone(state: OrderState, { milestone, driverId, at }: ReachMilestone): Event[] {
  const rule = RULES.find((known) => known.milestone === milestone);
  if (!rule || state.driver?.driverId !== driverId || nextStop(state.status) !== rule.stop || has(state, milestone)) return [];
  const passed = RULES.filter(
    (other) => other.stop === rule.stop && RULES.indexOf(other) < RULES.indexOf(rule) && !has(state, other.milestone),
  );
  const reached = (of: DriverMilestone) =>
    ({ case: "driverMilestoneReached", value: { milestone: of, reachedAt: timestampFromDate(at) } }) as const;
  return [...passed.map((other) => implied(reached(other.milestone))), happened(reached(milestone))];
}

function has({ milestones }: OrderState, milestone: DriverMilestone): boolean {
  return milestones.some((reached) => reached.milestone === milestone);
}
