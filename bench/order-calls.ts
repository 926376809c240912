import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { DeliveryProvider, OrderStatus } from "../src/gen/ordertrail/events/v1/values_pb.js";
import type { OrderTracking } from "../src/gen/ordertrail/v1/order_tracking_pb.js";
import {
  AssignDriverRequestSchema,
  GetTrackingRequestSchema,
  InitTrackingRequestSchema,
  ListTrackingsRequestSchema,
  UpdateStatusRequestSchema,
  UpdateStatusResponseSchema,
} from "../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import type { GrpcCaller } from "./grpc-caller.ts";

const SERVICE = "/ordertrail.v1.OrderTrackingService";

/** The statuses through which UpdateStatus takes an order whose driver is booked, one real move each. */
export const WALK: readonly OrderStatus[] = [
  OrderStatus.STORE_NOTIFIED,
  OrderStatus.STORE_ACKNOWLEDGED,
  OrderStatus.PICKING_IN_PROGRESS,
  OrderStatus.READY_FOR_PICKUP,
  OrderStatus.DRIVER_PICKUP_COMPLETE,
  OrderStatus.IN_TRANSIT,
  OrderStatus.DELIVERED,
];

const ITEMS = [
  { itemId: "item-1001", name: "Whole milk, 1 l", quantity: 2, unitPrice: { amountMinor: 129n, currency: "EUR" } },
  { itemId: "item-1002", name: "Sourdough bread", quantity: 1, unitPrice: { amountMinor: 449n, currency: "EUR" } },
  { itemId: "item-1003", name: "Bananas", quantity: 1.2, unitPrice: { amountMinor: 199n, currency: "EUR" } },
];

/** The calls about orders that are made here. */
export type OrderCalls = {
  /** Submits an order with items and a recipient, and books its driver. */
  open(orderId: string): Promise<void>;
  /** Answers the encoded response. */
  updateStatus(orderId: string, status: OrderStatus): Promise<Uint8Array>;
  getTracking(orderId: string): Promise<Uint8Array>;
  /** Resolves when the read model has what the position stands for, so that nothing is left to be done in the background. */
  untilProjected(position: bigint): Promise<void>;
};

/** The calls, made by a caller who shows a back-end service's token. */
export function createOrderCalls({ call }: GrpcCaller): OrderCalls {
  return {
    async open(orderId) {
      await call(`${SERVICE}/InitTracking`, toBinary(InitTrackingRequestSchema, create(InitTrackingRequestSchema, submission(orderId))));
      const assignment = {
        orderId,
        driverDetails: { driverId: "driver-17", name: "Kim Example", vehicleType: "bicycle" },
        requestId: `${orderId}-driver`,
      };
      await call(`${SERVICE}/AssignDriver`, toBinary(AssignDriverRequestSchema, create(AssignDriverRequestSchema, assignment)));
    },
    updateStatus: (orderId, status) =>
      call(
        `${SERVICE}/UpdateStatus`,
        toBinary(UpdateStatusRequestSchema, create(UpdateStatusRequestSchema, { orderId, status, requestId: `${orderId}-${status}` })),
      ),
    getTracking: (orderId) =>
      call(`${SERVICE}/GetTracking`, toBinary(GetTrackingRequestSchema, create(GetTrackingRequestSchema, { orderId }))),
    async untilProjected(minPosition) {
      await call(
        `${SERVICE}/ListTrackings`,
        toBinary(ListTrackingsRequestSchema, create(ListTrackingsRequestSchema, { pageSize: 1, minPosition })),
      );
    },
  };
}

/** The order that an encoded answer of UpdateStatus holds. */
export function movedOrder(response: Uint8Array): OrderTracking {
  const { order } = fromBinary(UpdateStatusResponseSchema, response);
  if (!order) throw new Error("UpdateStatus answered without an order");
  return order;
}

function submission(orderId: string): MessageInitShape<typeof InitTrackingRequestSchema> {
  return {
    orderId,
    storeId: "store-17",
    customerId: `customer-${orderId.at(-1)}${orderId.at(-2)}`,
    deliveryProvider: DeliveryProvider.IN_HOUSE,
    items: ITEMS,
    recipient: {
      name: "Alex Example",
      phone: "+4930123456",
      address: {
        lines: ["12 Example Street", "3rd floor"],
        city: "Berlin",
        postalCode: "10115",
        country: "DE",
        latitude: 52.53,
        longitude: 13.38,
      },
      instructions: "ring twice",
    },
    metadata: { channel: "app" },
    requestId: `${orderId}-init`,
  };
}
