import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { OrderStatus } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { StreamLocationsRequestSchema } from "../../src/gen/ordertrail/v1/driver_location_service_pb.js";
import type { OrderCalls } from "../order-calls.ts";
import { createIdentifiers } from "../small-entry.ts";

const { STORE_NOTIFIED, STORE_ACKNOWLEDGED, PICKING_IN_PROGRESS, READY_FOR_PICKUP } = OrderStatus;
const AT_ONCE = 64;

/** Orders whose drivers are on the way to the store. */
export async function ordersUnderWay(calls: OrderCalls, count: number): Promise<string[]> {
  const identifier = createIdentifiers();
  const orderIds = Array.from({ length: count }, identifier);
  const left = [...orderIds];
  async function work(): Promise<void> {
    for (let orderId = left.pop(); orderId !== undefined; orderId = left.pop()) {
      await calls.open(orderId);
      for (const status of [STORE_NOTIFIED, STORE_ACKNOWLEDGED, PICKING_IN_PROGRESS, READY_FOR_PICKUP])
        await calls.updateStatus(orderId, status);
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return orderIds;
}

/** A message of points of these orders, all measured at one time and some kilometres from anywhere that matters. */
export function pointsMessage(orderIds: readonly string[], recordedAtMs: number): Buffer {
  const place = { latitude: 52.49, longitude: 13.41, headingDeg: 90, speedMps: 7, accuracyM: 8 };
  const points = orderIds.map((orderId) => ({ orderId, ...place, recordedAt: timestampFromMs(recordedAtMs) }));
  return Buffer.from(toBinary(StreamLocationsRequestSchema, create(StreamLocationsRequestSchema, { points })));
}
