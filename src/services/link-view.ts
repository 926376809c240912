import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type OrderTracking, OrderTrackingSchema } from "../gen/ordertrail/v1/order_tracking_pb.js";
import type { HistoryEventSchema } from "../gen/ordertrail/v1/order_tracking_service_pb.js";

type HistoryEventInit = Exclude<MessageInitShape<typeof HistoryEventSchema>, { readonly $typeName: string }>;

/**
 * What of an order the holder of a tracking link sees: links are passed on, so nothing that tells who ordered what, or
 * where it goes. Of the driver, the first name and the vehicle. What is not named here is not shown.
 */
export function presentToLink(order: OrderTracking): OrderTracking {
  const { orderId, currentStatus, deliveryProvider, statusHistory, driverDetails, driverLocation } = order;
  const { version, position, createdAt, updatedAt, readyAt, eta, proofOfDelivery, milestones } = order;
  return create(OrderTrackingSchema, {
    orderId,
    currentStatus,
    deliveryProvider,
    version,
    position,
    milestones,
    statusHistory: statusHistory.map(({ status, previousStatus, timestamp, actor, inferred }) => ({
      status,
      previousStatus,
      inferred,
      ...(timestamp && { timestamp }),
      ...(actor && { actor: { role: actor.role } }),
    })),
    ...(driverDetails && { driverDetails: { name: firstWord(driverDetails.name), vehicleType: driverDetails.vehicleType } }),
    ...(driverLocation && { driverLocation }),
    ...(createdAt && { createdAt }),
    ...(updatedAt && { updatedAt }),
    ...(readyAt && { readyAt }),
    ...(eta && { eta }),
    ...(proofOfDelivery?.deliveredAt && { proofOfDelivery: { deliveredAt: proofOfDelivery.deliveredAt } }),
  });
}

/** What of an order's history the holder of a tracking link sees. */
export function presentEventToLink(event: HistoryEventInit): HistoryEventInit {
  const { position, version, recordedAt, type, previousStatus, status, actor, inferred, milestone } = event;
  return {
    ...(position !== undefined && { position }),
    ...(version !== undefined && { version }),
    ...(recordedAt && { recordedAt }),
    ...(type !== undefined && { type }),
    ...(previousStatus !== undefined && { previousStatus }),
    ...(status !== undefined && { status }),
    ...(actor?.role !== undefined && { actor: { role: actor.role } }),
    ...(inferred !== undefined && { inferred }),
    ...(milestone !== undefined && { milestone }),
  };
}

function firstWord(name: string): string {
  return name.trim().split(/\s+/)[0] ?? "";
}
