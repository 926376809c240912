import { describe, expect, it } from "vitest";
import { DriverMilestone, OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { startSandbox } from "../../src/sandbox/sandbox.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { CHECKOUT, CLERK, initOrder } from "../support/delivering.ts";
import { eventually } from "../support/eventually.ts";

const CUSTOMER = { role: Role.CUSTOMER, subject: "customer-of-order-1" };

/** The application with both providers of the sandbox, whose couriers move by themselves. */
async function startPlayed(stageMs: number) {
  await using parts = new AsyncDisposableStack();
  let http: string | undefined;
  const sandbox = parts.use(await startSandbox({ stageMs, webhooksTo: () => http }));
  const { uber, doordash } = { uber: sandbox.uber.settings, doordash: sandbox.doordash.settings };
  const app: TestApp = parts.use(
    await startTestApp({
      ...{ UBER_BASE_URL: uber.baseUrl, UBER_AUTH_URL: uber.authUrl, UBER_CUSTOMER_ID: uber.customerId, UBER_CLIENT_ID: uber.clientId },
      ...{ UBER_CLIENT_SECRET: uber.clientSecret, UBER_WEBHOOK_KEY: uber.webhookKey },
      ...{ DOORDASH_BASE_URL: doordash.baseUrl, DOORDASH_DEVELOPER_ID: doordash.developerId, DOORDASH_KEY_ID: doordash.keyId },
      ...{ DOORDASH_SIGNING_SECRET: doordash.signingSecret, DOORDASH_WEBHOOK_AUTHORIZATION: doordash.webhookAuthorization },
    }),
  );
  http = app.http;
  const address = { lines: ["Marktplatz 1"], city: "Berlin", postal_code: "10117", country: "DE", latitude: 52.5, longitude: 13.4 };
  await app.rest(CLERK, "PUT", "/stores/store-1", { name: "Market", phone: "+4930654321", address });
  const running = parts.move();
  return { app, sandbox, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

describe.each(["UBER", "DOORDASH"])("a whole delivery by the sandbox's %s", (provider) => {
  it("is seen by a watcher from the first to the last, in order", { timeout: 60_000 }, async () => {
    await using played = await startPlayed(250);
    const { app } = played;
    await initOrder(app, "order-1");
    /** Statuses and milestones, in the order in which they are first seen. */
    const told: string[] = [];
    const versions: number[] = [];
    const watching = (async () => {
      for await (const { kind } of app
        .client(OrderTrackingService, "grpc", CUSTOMER)
        .watchTracking({ orderId: "order-1", fromVersion: 0 })) {
        const order = kind.case === "change" ? kind.value.order : undefined;
        if (!order) continue;
        versions.push(order.version);
        const seen = [OrderStatus[order.currentStatus], ...order.milestones.map(({ milestone }) => DriverMilestone[milestone])].map(String);
        for (const one of seen) if (!told.includes(one)) told.push(one);
      }
    })();
    const move = async (status: string) =>
      expect((await app.rest(CLERK, "PUT", "/orders/tracking/order-1/status", { status })).status, status).toBe(200);
    await move("STORE_NOTIFIED");
    expect((await app.rest(CLERK, "POST", "/orders/tracking/order-1/acknowledge", {})).status).toBe(200);
    await move("PICKING_IN_PROGRESS");
    const quoted = await app.rest(CHECKOUT, "POST", "/orders/tracking/order-1/delivery/quotes", {});
    expect(quoted.status, JSON.stringify(quoted.body)).toBe(200);
    const requested = await app.rest(CHECKOUT, "POST", "/orders/tracking/order-1/delivery", { delivery_provider: provider });
    expect(requested.status, JSON.stringify(requested.body)).toBe(200);
    await move("READY_FOR_PICKUP");
    await watching;
    // Ready with a courier on the way goes straight on: the two come in one entry then.
    expect(told.filter((one) => !["READY_FOR_PICKUP", "NEAR_STORE", "AT_STORE"].includes(one))).toEqual([
      ...["SUBMITTED", "STORE_NOTIFIED", "STORE_ACKNOWLEDGED", "PICKING_IN_PROGRESS"],
      ...["DRIVER_ASSIGNED", "DRIVER_PICKUP_COMPLETE", "IN_TRANSIT", "NEAR_CUSTOMER", "ARRIVED", "DELIVERED"],
    ]);
    expect(versions).toEqual(Array.from({ length: versions.length }, (_, index) => index + 1));
    const { body: order } = await app.rest(CUSTOMER, "GET", "/orders/tracking/order-1");
    expect(order).toMatchObject({
      current_status: "DELIVERED",
      delivery_provider: provider,
      delivery: { tracking_url: expect.stringContaining("https://") },
    });
    await eventually(() => expect(app.log.some((line) => line.includes('"level":"ERROR"'))).toBe(false));
  });
});
