import { describe, expect, it } from "vitest";
import { OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { startTestApp, type TestApp, type TestCaller } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";

const OPERATOR: TestCaller = { role: Role.OPERATOR, subject: "op" };
const CUSTOMER: TestCaller = { role: Role.CUSTOMER, subject: "customer-1" };
const STORE: TestCaller = { role: Role.STORE, subject: "clerk", storeId: "store-1" };
const LIMITS = {
  acknowledgment_seconds: 60,
  substitutions_seconds: 120,
  driver_assignment_seconds: 180,
  pickup_seconds: 240,
  escalation_seconds: 30,
};
const BODY = { store_id: "store-1", customer_id: "customer-1", delivery_provider: "IN_HOUSE" };

/** A clock that the test moves. */
function movedClock() {
  let ahead = 0;
  return {
    now: () => new Date(Date.now() + ahead),
    move(seconds: number) {
      ahead += seconds * 1000;
    },
  };
}

async function putStore(app: TestApp, limits: object = LIMITS): Promise<void> {
  const { status, body } = await app.rest(OPERATOR, "PUT", "/stores/store-1", { name: "Corner shop", deadlines: limits });
  expect(status, JSON.stringify(body)).toBe(200);
}

async function notified(app: TestApp, orderId: string, more: object = {}): Promise<void> {
  await app.rest(OPERATOR, "POST", "/orders/tracking/init", { order_id: orderId, ...BODY, ...more });
  const { status } = await app.rest(OPERATOR, "PUT", `/orders/tracking/${orderId}/status`, { status: "STORE_NOTIFIED" });
  expect(status).toBe(200);
}

async function typesOf(app: TestApp, orderId: string): Promise<string[]> {
  const { events } = await app.client(OrderTrackingService, "grpc", OPERATOR).getHistory({ orderId });
  return events.map(({ type }) => type);
}

const count = (types: readonly string[], type: string) => types.filter((each) => each === type).length;

describe("a store that does not acknowledge", () => {
  it("is reminded when its own time is up, then people are told, once each; it may still acknowledge", async () => {
    const clock = movedClock();
    await using app = await startTestApp({}, clock.now);
    await putStore(app);
    await notified(app, "order-1");
    const { body: waiting } = await app.rest(OPERATOR, "GET", "/orders/tracking/order-1");
    expect(waiting.waiting_for.deadline).toBe("ACKNOWLEDGMENT");
    expect(Date.parse(waiting.waiting_for.due_at) - Date.parse(waiting.waiting_for.since)).toBe(60_000);

    clock.move(61);
    await eventually(async () => expect(count(await typesOf(app, "order-1"), "DeadlineReminded")).toBe(1));
    expect(await typesOf(app, "order-1")).not.toContain("DeadlineEscalated");
    clock.move(31);
    await eventually(async () => expect(count(await typesOf(app, "order-1"), "DeadlineEscalated")).toBe(1));

    const { status, body } = await app.rest(STORE, "POST", "/orders/tracking/order-1/acknowledge", {});
    expect(status).toBe(200);
    expect(body.order.current_status).toBe("STORE_ACKNOWLEDGED");
    expect(body.order.waiting_for).toBeUndefined();
    expect(count(await typesOf(app, "order-1"), "DeadlineReminded")).toBe(1);
  });

  it("loses the order where that is configured, and is told so when it acknowledges after all", async () => {
    const clock = movedClock();
    await using app = await startTestApp({ CANCEL_UNACKNOWLEDGED: "true", DEADLINE_ACKNOWLEDGMENT_SECONDS: "10" }, clock.now);
    await notified(app, "order-1");
    // Nobody looked for a long time: both are acted on, in their order.
    clock.move(400);
    await eventually(async () =>
      expect((await typesOf(app, "order-1")).slice(2)).toEqual(["DeadlineReminded", "DeadlineEscalated", "OrderCancelled"]),
    );
    const { body: order } = await app.rest(CUSTOMER, "GET", "/orders/tracking/order-1");
    expect(order.cancellation).toMatchObject({ reason: "store_did_not_acknowledge", actor: { role: "SYSTEM", subject: "ordertrail" } });
    const late = await app.rest(STORE, "POST", "/orders/tracking/order-1/acknowledge", {});
    expect(late).toMatchObject({ status: 409, body: { code: "INVALID_STATUS_TRANSITION" } });
  });

  it("is reminded once by two processes together, and `deadlines` is what the log says", async () => {
    const clock = movedClock();
    await using app = await startTestApp({}, clock.now);
    await putStore(app);
    await using second = await startTestApp({ DATABASE_NAME: app.databaseName, DATA_DIR: app.dataDir }, clock.now);
    const orderIds = Array.from({ length: 40 }, (_, index) => `order-${index}`);
    await Promise.all(orderIds.map((orderId) => notified(app, orderId)));
    clock.move(61);
    await eventually(async () => {
      const { count: reminded } = await logged(app, second, "somebody was reminded");
      expect(reminded).toBe(orderIds.length);
    }, 20_000);
    clock.move(31);
    await eventually(async () => {
      const { count: told } = await logged(app, second, "a deadline has passed");
      expect(told).toBe(orderIds.length);
    }, 20_000);
    for (const orderId of orderIds) {
      const types = await typesOf(second, orderId);
      expect([count(types, "DeadlineReminded"), count(types, "DeadlineEscalated")], orderId).toEqual([1, 1]);
    }
    const found = [];
    for await (const progress of app.client(OperationsService, "grpc", OPERATOR).verifyProjection({ name: "deadlines" }))
      found.push(progress);
    expect(found.at(-1)).toMatchObject({ done: true, checked: 40n, different: 0n });
  });
});

async function logged(...args: [TestApp, TestApp, string]): Promise<{ count: number }> {
  const text = args[2];
  return {
    count: args
      .slice(0, 2)
      .flatMap((app) => (app as TestApp).log)
      .filter((line) => line.includes(text)).length,
  };
}

describe("an order that cannot be acted on", () => {
  it("holds up none of those behind it", async () => {
    const clock = movedClock();
    await using app = await startTestApp({ ROLES: "api,projector" }, clock.now);
    await putStore(app);
    await notified(app, "order-1");
    await notified(app, "order-2");
    const client = app.client(OperationsService, "grpc", OPERATOR);
    await eventually(async () => {
      const { projections, logPosition } = await client.listProjections({});
      expect(projections.find(({ name }) => name === "deadlines")?.position).toBe(logPosition);
    });
    // An entry is gone from the order's stream: a process that does not remember it cannot tell what the order is.
    await app.database.db(app.databaseName).collection("events").deleteOne({ stream: "order-order-1", version: 1 });
    clock.move(61);
    await using timers = await startTestApp({ DATABASE_NAME: app.databaseName, DATA_DIR: app.dataDir, ROLES: "timers" }, clock.now);
    await eventually(async () => expect(await typesOf(app, "order-2")).toContain("DeadlineReminded"), 15_000);
    expect(timers.log.some((line) => line.includes("cannot be acted on") && line.includes("order-1"))).toBe(true);
  });
});

describe("substitutions that nobody answers", () => {
  it("are answered by the order's policy", async () => {
    const clock = movedClock();
    await using app = await startTestApp({}, clock.now);
    await putStore(app);
    const answers = { BEST_MATCH: "APPROVED", REFUND: "EXPIRED" };
    const item = (name: string) => ({ item_id: name, name, quantity: 1 });
    for (const policy of Object.keys(answers)) {
      await notified(app, policy, { substitution_policy: policy });
      await app.rest(STORE, "POST", `/orders/tracking/${policy}/acknowledge`, {});
      await app.rest(STORE, "PUT", `/orders/tracking/${policy}/status`, { status: "PICKING_IN_PROGRESS" });
      await app.rest(STORE, "PUT", `/orders/tracking/${policy}/substitutions`, {
        substitutions: [{ substitution_id: "s-1", original_item: item("milk"), replacement_item: item("oat-milk"), reason: "sold out" }],
      });
    }
    clock.move(121);
    for (const policy of Object.keys(answers))
      await eventually(async () => expect(await typesOf(app, policy)).toContain("DeadlineReminded"));
    clock.move(31);
    for (const [policy, answer] of Object.entries(answers)) {
      await eventually(async () => {
        const { order } = await app.client(OrderTrackingService, "grpc", OPERATOR).getTracking({ orderId: policy });
        expect(order?.currentStatus).toBe(OrderStatus.PICKING_IN_PROGRESS);
      });
      const { body } = await app.rest(CUSTOMER, "GET", `/orders/tracking/${policy}`);
      expect(body.substitution_policy).toBe(policy);
      expect(body.substitutions[0]).toMatchObject({ status: answer, resolved_by: { role: "SYSTEM" } });
    }
  });
});

describe("what is known of a store", () => {
  it("is set as a whole, once, and read by itself", async () => {
    await using app = await startTestApp();
    const store = {
      name: "Corner shop",
      phone: "+4930123456",
      email: "shop@example.com",
      address: { lines: ["Hauptstr. 1"], city: "Berlin", postal_code: "10115", country: "DE", latitude: 52.53, longitude: 13.38 },
      time_zone: "Europe/Berlin",
      deadlines: { acknowledgment_seconds: 120 },
    };
    expect((await app.rest(STORE, "GET", "/stores/store-1")).body.code).toBe("STORE_NOT_FOUND");
    const put = await app.rest(STORE, "PUT", "/stores/store-1", store);
    expect(put.body.store).toMatchObject({ store_id: "store-1", ...store, version: 1 });
    expect((await app.rest(STORE, "PUT", "/stores/store-1", store)).body.store.version).toBe(1);
    expect((await app.rest(STORE, "GET", "/stores/store-1")).body).toEqual(put.body.store);
    const other = await app.rest({ ...STORE, storeId: "store-2" }, "GET", "/stores/store-1");
    expect(other).toMatchObject({ status: 403, body: { code: "PERMISSION_DENIED" } });
  });

  it("is refused when it cannot be so, with the path of what is wrong", async () => {
    await using app = await startTestApp();
    const wrong: [string, object][] = [
      ["time_zone", { time_zone: "Europe/Atlantis" }],
      ["phone", { phone: "030 123" }],
      ["email", { email: "nobody" }],
      ["deadlines.acknowledgment_seconds", { deadlines: { acknowledgment_seconds: 0 } }],
      ["address.latitude", { address: { latitude: 91 } }],
    ];
    for (const [field, part] of wrong) {
      const { status, body } = await app.rest(OPERATOR, "PUT", "/stores/store-1", { name: "Corner shop", ...part });
      expect(status, field).toBe(400);
      expect(body.violations.map((violation: { field: string }) => violation.field)).toContain(field);
    }
  });
});
