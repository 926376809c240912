import { create, toBinary } from "@bufbuild/protobuf";
import { type Driver, DriverSchema } from "../gen/ordertrail/events/v1/order_events_pb.js";
import { type DriverDetails, DriverDetailsSchema } from "../gen/ordertrail/v1/order_tracking_pb.js";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import { sealedContext } from "./present-order.ts";

/** A driver as an order's events hold them: what is personal is sealed under the driver's own key. */
export async function sealDriver(
  keys: PersonalKeys,
  orderId: string,
  { driverId, vehicleType, name, phone, licensePlate, photoUrl }: Omit<DriverDetails, "$typeName" | "$unknown">,
): Promise<Driver> {
  const personal = toBinary(DriverDetailsSchema, create(DriverDetailsSchema, { name, phone, licensePlate, photoUrl }));
  const sealed = personal.length === 0 ? undefined : await keys.seal(`driver-${driverId}`, personal, sealedContext.driver(orderId));
  return create(DriverSchema, { driverId, vehicleType, ...(sealed && { personal: sealed }) });
}
