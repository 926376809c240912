import { create, toJson } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { Door, OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OrderTrackingSchema } from "../../src/gen/ordertrail/v1/order_tracking_pb.js";
import { presentEventToLink, presentToLink } from "../../src/services/link-view.ts";

const at = { seconds: 1_800_000_000n };
const actor = { role: Role.STORE, subject: "clerk-1" };

describe("what the holder of a tracking link sees", () => {
  it("of an order with everything in it is this, and nothing else", () => {
    const order = create(OrderTrackingSchema, {
      orderId: "order-1",
      storeId: "store-1",
      customerId: "customer-1",
      currentStatus: OrderStatus.IN_TRANSIT,
      statusHistory: [{ status: OrderStatus.IN_TRANSIT, timestamp: at, actor, note: "third floor", inferred: true }],
      driverDetails: {
        driverId: "driver-1",
        name: " Kim  Secondname",
        phone: "+49",
        vehicleType: "bicycle",
        licensePlate: "B-XY 1",
        photoUrl: "https://p",
      },
      driverLocation: { latitude: 1, longitude: 2, recordedAt: at },
      items: [{ itemId: "apples", name: "Apples", quantity: 1 }],
      substitutions: [{ substitutionId: "s-1", reason: "none left" }],
      recipient: { name: "Ada" },
      metadata: { a: "b" },
      cancellation: { reason: "no", actor },
      proofOfDelivery: { recipientName: "Ada", deliveredAt: at },
      delivery: { providerDeliveryId: "d-1", trackingUrl: "https://t" },
      version: 7,
    });
    expect(toJson(OrderTrackingSchema, presentToLink(order))).toEqual({
      orderId: "order-1",
      currentStatus: "ORDER_STATUS_IN_TRANSIT",
      statusHistory: [
        { status: "ORDER_STATUS_IN_TRANSIT", timestamp: "2027-01-15T08:00:00Z", actor: { role: "ROLE_STORE" }, inferred: true },
      ],
      driverDetails: { name: "Kim", vehicleType: "bicycle" },
      driverLocation: { latitude: 1, longitude: 2, recordedAt: "2027-01-15T08:00:00Z" },
      proofOfDelivery: { deliveredAt: "2027-01-15T08:00:00Z" },
      version: 7,
    });
  });

  it("of an event is what happened, when, and in what role", () => {
    const event = { position: 7n, version: 3, type: "StoreAcknowledged", status: OrderStatus.STORE_ACKNOWLEDGED, inferred: false, actor };
    expect(presentEventToLink({ ...event, door: Door.GRPC, method: "a.B/C", requestId: "r-1", note: "third floor" })).toEqual({
      ...event,
      actor: { role: Role.STORE },
    });
  });
});
