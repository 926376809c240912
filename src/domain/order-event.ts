import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type Event, EventSchema } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import type { OrderStatus, Sealed } from "../gen/ordertrail/events/v1/values_pb.js";
import type { OrderState } from "./order.ts";

/** What happened, in the parts that the generated code makes an event of. */
export type Happening = NonNullable<MessageInitShape<typeof EventSchema>["kind"]>;

/** An event that somebody brought about. */
export function happened(kind: Happening, note?: Sealed): Event {
  return create(EventSchema, { kind, note });
}

/** An event that nobody reported, but that another implies. */
export function implied(kind: Happening): Event {
  return create(EventSchema, { kind, inferred: true });
}

/** That a driver is booked or assigned, with all that is known of the delivery. */
export function driverNamed(
  event: "driverBooked" | "driverAssigned",
  known: Pick<OrderState, "driver" | "deliveryProvider" | "delivery" | "eta">,
): Happening {
  const { driver, deliveryProvider, delivery, eta } = known;
  return { case: event, value: { driver, deliveryProvider, delivery, eta: eta && timestampFromDate(eta) } };
}

/** That a courier reported something past; nothing when the same has been reported before. */
export function lateReport(state: OrderState, reportedStatus: OrderStatus, note?: Sealed): Event[] {
  return state.lateReports.includes(reportedStatus) ? [] : [happened({ case: "courierReportRecorded", value: { reportedStatus } }, note)];
}
