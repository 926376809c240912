import { setTimeout as pause } from "node:timers/promises";
import type { Client } from "@connectrpc/connect";
import { DeliveryProvider, OrderStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import type { DeliveryService } from "../gen/ordertrail/v1/delivery_service_pb.js";
import type { OperationsService } from "../gen/ordertrail/v1/operations_service_pb.js";
import type { OrderTracking } from "../gen/ordertrail/v1/order_tracking_pb.js";
import type { OrderTrackingService } from "../gen/ordertrail/v1/order_tracking_service_pb.js";

/** The providers that a demonstration may ask. */
export const DEMO_PROVIDERS = { uber: DeliveryProvider.UBER, doordash: DeliveryProvider.DOORDASH } as const;

export type DemoProvider = keyof typeof DEMO_PROVIDERS;

/** Whose clients it needs, by what they do. */
export type DemoClients = {
  readonly operator: Client<typeof OperationsService>;
  readonly checkout: Client<typeof DeliveryService>;
  readonly customer: Client<typeof OrderTrackingService>;
};

/** Two places in Berlin, some two kilometres apart. */
export const DEMO_STORE = {
  name: "Market",
  phone: "+4930654321",
  address: { lines: ["Marktplatz 1"], city: "Berlin", postalCode: "10178", country: "DE", latitude: 52.5219, longitude: 13.4132 },
};
export const DEMO_RECIPIENT = {
  name: "Ada Example",
  phone: "+4930123456",
  address: { lines: ["Lindenstraße 1"], city: "Berlin", postalCode: "10969", country: "DE", latitude: 52.5065, longitude: 13.4244 },
};

const LOOK_MS = 500;
const PATIENCE_MS = 120_000;

/** Requests a courier for an order, once its store is known. */
export async function requestCourier(orderId: string, provider: DemoProvider, clients: DemoClients): Promise<OrderTracking | undefined> {
  await clients.operator.putStore({ storeId: "store-1", ...DEMO_STORE });
  const { order } = await clients.checkout.requestDelivery({ orderId, deliveryProvider: DEMO_PROVIDERS[provider] });
  return order;
}

/** Shows what the customer sees, every change and every new place of the driver, until the order has ended. */
export async function followCourier(
  orderId: string,
  { customer }: DemoClients,
  show: (order: OrderTracking, what: string) => void,
): Promise<void> {
  let status = OrderStatus.UNSPECIFIED;
  let place = "";
  for (const until = performance.now() + PATIENCE_MS; performance.now() < until; await pause(LOOK_MS)) {
    const { order } = await customer.getTracking({ orderId });
    if (!order) continue;
    const { driverDetails: driver, driverLocation: at } = order;
    if (order.currentStatus !== status) {
      status = order.currentStatus;
      show(order, driver?.name ? `${driver.name}, by ${driver.vehicleType}` : "");
    }
    const newPlace = at ? `${at.latitude.toFixed(4)}, ${at.longitude.toFixed(4)}` : place;
    if (newPlace !== place) show(order, `the driver is at ${newPlace}`);
    place = newPlace;
    if (status === OrderStatus.DELIVERED || status === OrderStatus.CANCELLED) return;
  }
  throw new Error(`order ${orderId} was not delivered within ${PATIENCE_MS / 1000} seconds`);
}
