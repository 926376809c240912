import { DeliveryProvider, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { startTestApp, type TestApp, type TestCaller } from "./app.ts";
import { courierOf, type SignedWebhook, startProvider, type TestProvider } from "./provider.ts";

export const CHECKOUT: TestCaller = { role: Role.SERVICE, subject: "checkout" };
export const CLERK: TestCaller = { role: Role.STORE, subject: "clerk-1", storeId: "store-1" };

const OPERATOR: TestCaller = { role: Role.OPERATOR, subject: "operator-1" };
const STORE = {
  ...{ name: "Market", phone: "+4930654321", time_zone: "Europe/Berlin" },
  address: { lines: ["Marktplatz 1"], city: "Berlin", postal_code: "10117", country: "DE", latitude: 52.5, longitude: 13.4 },
};

/** The application with two providers, a store that couriers find, and ways to what a test needs. */
export type Delivering = AsyncDisposable & {
  readonly app: TestApp;
  readonly uber: TestProvider;
  readonly doordash: TestProvider;
  /** An order on its way to READY_FOR_PICKUP, or until a status before. */
  order(orderId: string, upTo?: "SUBMITTED" | "STORE_ACKNOWLEDGED" | "READY_FOR_PICKUP"): Promise<void>;
  webhook(provider: "uber" | "doordash", webhook: SignedWebhook): Promise<number>;
  /** The types of the order's events, oldest first. */
  history(orderId: string): Promise<string[]>;
};

export const RECIPIENT = {
  name: "Ada Example",
  phone: "+4930123456",
  address: { lines: ["Lindenstraße 1"], city: "Berlin", postal_code: "10969", country: "DE", latitude: 52.5065, longitude: 13.4244 },
};

/** Starts all of it, by a clock of the test's own if one is given; it is gone at the end of the `await using` block. */
export async function startDelivering(environment: NodeJS.ProcessEnv = {}, clock?: () => Date): Promise<Delivering> {
  await using parts = new AsyncDisposableStack();
  const uber = parts.use(await startProvider("uber"));
  const doordash = parts.use(await startProvider("doordash"));
  const couriers = [courierOf(DeliveryProvider.UBER, uber.url), courierOf(DeliveryProvider.DOORDASH, doordash.url)];
  const app = parts.use(await startTestApp({ DELIVERY_ANSWER_MS: "700", ...environment }, clock, { couriers }));
  const put = await app.rest(OPERATOR, "PUT", "/stores/store-1", STORE);
  if (put.status !== 200) throw new Error(JSON.stringify(put.body));
  const running = parts.move();
  return {
    ...{ app, uber, doordash },
    async order(orderId, upTo = "READY_FOR_PICKUP") {
      await initOrder(app, orderId);
      const moves = ["STORE_NOTIFIED", "STORE_ACKNOWLEDGED", "PICKING_IN_PROGRESS", "READY_FOR_PICKUP"];
      for (const status of moves.slice(0, moves.indexOf(upTo) + 1))
        await app.rest(CHECKOUT, "PUT", `/orders/tracking/${orderId}/status`, { status });
    },
    async webhook(provider, { body, headers }) {
      const response = await fetch(`${app.http}/webhooks/${provider}`, { method: "POST", body, headers });
      await response.arrayBuffer();
      return response.status;
    },
    async history(orderId) {
      const { body } = await app.rest(CHECKOUT, "GET", `/orders/tracking/${orderId}/history?page_size=200`);
      return body.events.map(({ type }: { type: string }) => type);
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

export async function initOrder(app: Pick<TestApp, "rest">, orderId: string, more: object = {}): Promise<void> {
  const { status, body } = await app.rest(CHECKOUT, "POST", "/orders/tracking/init", {
    ...{ order_id: orderId, store_id: "store-1", customer_id: `customer-of-${orderId}`, recipient: RECIPIENT },
    items: [{ item_id: "milk", name: "Milk", quantity: 2, unit_price: { amount_minor: "129", currency: "EUR" } }],
    ...more,
  });
  if (status !== 200) throw new Error(JSON.stringify(body));
}
