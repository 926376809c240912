import { OrderStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import type { OrderState } from "./order.ts";
import { isFinal } from "./order-moves.ts";

/** In which statuses the driver of an order has a place worth showing. */
export const STATUSES_WITH_LOCATION: ReadonlySet<OrderStatus> = new Set([
  OrderStatus.DRIVER_ASSIGNED,
  OrderStatus.DRIVER_PICKUP_COMPLETE,
  OrderStatus.IN_TRANSIT,
  OrderStatus.RETURNING,
]);

/** Whether the place of an order's driver may be shown at present. */
export function showsLocation({ status }: Pick<OrderState, "status">): boolean {
  return STATUSES_WITH_LOCATION.has(status);
}

/** Whether an order's driver may say where they are: also one who is booked early, and not shown yet. */
export function takesLocation({ status, driver }: Pick<OrderState, "status" | "driver">): boolean {
  return !isFinal(status) && (driver !== undefined || STATUSES_WITH_LOCATION.has(status));
}
