import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { issueDevelopmentToken } from "../../src/access/development-token.ts";
import { createDevelopmentKeys } from "../../src/access/keys.ts";
import { DeliveryProvider, OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { AuthService } from "../../src/gen/ordertrail/v1/auth_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { startTestApp, type TestApp, type TestCaller } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { type Seen, WATCH_DOORS, type WatchDoor, WatchEnded, watchOrder } from "../support/watching.ts";

const SERVICE: TestCaller = { role: Role.SERVICE, subject: "checkout" };
const CUSTOMER: TestCaller = { role: Role.CUSTOMER, subject: "customer-1" };
const STORE: TestCaller = { role: Role.STORE, subject: "clerk-1", storeId: "store-1" };
const DRIVER: TestCaller = { role: Role.DRIVER, subject: "driver-1" };
const PARTY = { storeId: "store-1", customerId: "customer-1", deliveryProvider: DeliveryProvider.UBER };
/** No signs of life among what is told, but for the tests that are about them. */
const STILL = { WATCH_HEARTBEAT_MS: "600000" };
const QUICK = { WATCH_HEARTBEAT_MS: "200" };

const commands = (app: TestApp) => app.client(OrderTrackingService, "grpc", SERVICE);
const { STORE_NOTIFIED, STORE_ACKNOWLEDGED, PICKING_IN_PROGRESS, READY_FOR_PICKUP, DRIVER_PICKUP_COMPLETE, IN_TRANSIT } = OrderStatus;

/** A whole life after the submission, and what each step tells those who watch. */
const LIFE: readonly (readonly [take: (app: TestApp, orderId: string) => Promise<unknown>, status: string, ...types: string[]])[] = [
  [(app, orderId) => commands(app).updateStatus({ orderId, status: STORE_NOTIFIED }), "STORE_NOTIFIED", "StoreNotified"],
  [(app, orderId) => commands(app).updateStatus({ orderId, status: STORE_ACKNOWLEDGED }), "STORE_ACKNOWLEDGED", "StoreAcknowledged"],
  [(app, orderId) => commands(app).updateStatus({ orderId, status: PICKING_IN_PROGRESS }), "PICKING_IN_PROGRESS", "PickingStarted"],
  [
    (app, orderId) => commands(app).assignDriver({ orderId, driverDetails: { driverId: "driver-1" } }),
    "PICKING_IN_PROGRESS",
    "DriverBooked",
  ],
  [
    (app, orderId) => commands(app).updateStatus({ orderId, status: READY_FOR_PICKUP }),
    "DRIVER_ASSIGNED",
    "OrderReadied",
    "DriverAssigned",
  ],
  [
    (app, orderId) => commands(app).updateStatus({ orderId, status: DRIVER_PICKUP_COMPLETE }),
    "DRIVER_PICKUP_COMPLETE",
    "DriverPickupCompleted",
  ],
  [(app, orderId) => commands(app).updateStatus({ orderId, status: IN_TRANSIT }), "IN_TRANSIT", "TransitStarted"],
  [(app, orderId) => commands(app).markDelivered({ orderId }), "DELIVERED", "OrderDelivered"],
];

/** What is told of a whole life from a version on, as a door tells it. */
function toldBy(door: WatchDoor, fromVersion = 0): Seen[] {
  const all = [["SUBMITTED", "OrderSubmitted"], ...LIFE.map(([, ...told]) => told)].map(([status = "", ...types], index) => ({
    version: index + 1,
    status,
    types: door === "events" ? types.slice(-1) : types,
    skipped: 0,
  }));
  return all.slice(fromVersion);
}

async function all<Item>(items: AsyncIterable<Item>, into: Item[] = []): Promise<Item[]> {
  for await (const item of items) into.push(item);
  return into;
}

const isChange = (seen: Seen): seen is Extract<Seen, { version: number }> => "version" in seen;

/** What a watching ends with. */
async function endOf(watching: AsyncIterable<Seen>, seen: Seen[] = []): Promise<string> {
  try {
    await all(watching, seen);
    return "a normal end";
  } catch (error) {
    if (error instanceof WatchEnded) return error.body.code;
    return Code[ConnectError.from(error).code] as string;
  }
}

/** The same end as each door calls it. */
const ending = (door: WatchDoor, code: Code, reason: string) => (door === "events" ? reason : Code[code]);

async function submit(app: TestApp, orderId: string): Promise<void> {
  await commands(app).initTracking({ orderId, ...PARTY });
}

async function live(app: TestApp, orderId: string, steps = LIFE.length): Promise<void> {
  for (const [take] of LIFE.slice(0, steps)) await take(app, orderId);
}

// Most of it is waiting.
describe.concurrent.each(WATCH_DOORS)("WatchTracking over %s", (door) => {
  it("tells the order as it stands, then every change, and ends when the order has", async () => {
    await using app = await startTestApp(STILL);
    await submit(app, "order-1");
    const seen: Seen[] = [];
    const watching = all(watchOrder(app, door, CUSTOMER, { orderId: "order-1" }), seen);
    await eventually(() => expect(seen).toHaveLength(1));
    for (const [index, [take]] of LIFE.entries()) {
      await take(app, "order-1");
      await eventually(() => expect(seen).toHaveLength(index + 2));
    }
    await watching;
    expect(seen).toEqual([{ ...toldBy(door)[0], types: [] }, ...toldBy(door, 1)]);
  });

  it("goes on after a version, with all that came after it", async () => {
    await using app = await startTestApp(STILL);
    await submit(app, "order-1");
    await live(app, "order-1", 5);
    const told = toldBy(door);
    for (const fromVersion of [0, 1, 4, 5]) {
      const leave = new AbortController();
      const seen: Seen[] = [];
      const end = endOf(watchOrder(app, door, CUSTOMER, { orderId: "order-1", fromVersion }, leave.signal), seen);
      await eventually(() => expect(seen).toEqual(told.slice(fromVersion, 6)));
      leave.abort();
      await end;
    }
    const seen: Seen[] = [];
    const resumed = all(watchOrder(app, door, CUSTOMER, { orderId: "order-1", fromVersion: 6 }), seen);
    // Nothing new to tell is told at once.
    await eventually(() => expect(seen).toMatchObject([{ position: 6 }]));
    for (const [take] of LIFE.slice(5)) await take(app, "order-1");
    await resumed;
    expect(seen.slice(1)).toEqual(told.slice(6));
    // Of an order that has ended: what is missing, and the end.
    expect(await all(watchOrder(app, door, CUSTOMER, { orderId: "order-1", fromVersion: 7 }))).toEqual(told.slice(7));
    expect(await all(watchOrder(app, door, CUSTOMER, { orderId: "order-1", fromVersion: 9 }))).toEqual([]);
    expect(await all(watchOrder(app, door, CUSTOMER, { orderId: "order-1" }))).toEqual([{ ...told[8], types: [] }]);
  });

  it("does not tell another's order from none, nor goes on after a version that there is not", async () => {
    await using app = await startTestApp(STILL);
    await commands(app).initTracking({ orderId: "other-1", storeId: "store-2", customerId: "customer-2" });
    await submit(app, "order-1");
    const refusal = async (orderId: string, fromVersion?: number) => {
      const watching = { orderId, ...(fromVersion !== undefined && { fromVersion }) };
      const error = await all(watchOrder(app, door, CUSTOMER, watching)).then(
        () => undefined,
        (thrown: unknown) => thrown,
      );
      if (error instanceof WatchEnded) return { code: error.body.code, message: error.body.detail.replaceAll(orderId, "?") };
      const { code, rawMessage } = ConnectError.from(error);
      return { code: Code[code], message: rawMessage.replaceAll(orderId, "?") };
    };
    for (const fromVersion of [undefined, 0, 1, 7]) {
      const none = await refusal("none-1", fromVersion);
      expect(none.code).toBe(ending(door, Code.NotFound, "ORDER_NOT_FOUND"));
      expect(await refusal("other-1", fromVersion)).toEqual(none);
    }
    const ahead = await refusal("order-1", 7);
    expect(ahead.code).toBe(ending(door, Code.InvalidArgument, "VALIDATION_FAILED"));
    expect(ahead.message).toContain("no further than version 1");
  });

  it("ends when the token has run out", async () => {
    await using app = await startTestApp({ ...QUICK, JWT_CLOCK_SKEW_SECONDS: "0" });
    await submit(app, "order-1");
    const settings = { jwtIssuer: "ordertrail", jwtAudience: "ordertrail" };
    const token = await issueDevelopmentToken(await createDevelopmentKeys(app.dataDir), settings, {
      role: "customer",
      subject: "customer-1",
      expiresInSeconds: 3,
    });
    const seen: Seen[] = [];
    const end = await endOf(watchOrder(app, door, token, { orderId: "order-1" }), seen);
    expect(end).toBe(ending(door, Code.Unauthenticated, "UNAUTHENTICATED"));
    expect(seen[0]).toMatchObject({ version: 1 });
    expect(seen.length).toBeGreaterThan(1);
    // It was no attempt at anything that is not theirs.
    expect(app.log.filter((line) => line.includes("call denied"))).toEqual([]);
  });

  it("ends when the tracking link is revoked", async () => {
    await using app = await startTestApp(QUICK);
    await submit(app, "order-1");
    const auth = app.client(AuthService, "grpc", SERVICE);
    const { token, linkId } = await auth.createTrackingLink({ orderId: "order-1" });
    const seen: Seen[] = [];
    const end = endOf(watchOrder(app, door, token, { orderId: "order-1" }), seen);
    await eventually(() => expect(seen.some((one) => !isChange(one))).toBe(true));
    await auth.revokeTrackingLink({ orderId: "order-1", linkId });
    expect(await end).toBe(ending(door, Code.Unauthenticated, "UNAUTHENTICATED"));
  });

  it("ends when the order is the driver's no more, and tells nothing of what is then", async () => {
    await using app = await startTestApp(STILL);
    await submit(app, "order-1");
    await live(app, "order-1", 5);
    const seen: Seen[] = [];
    const end = endOf(watchOrder(app, door, DRIVER, { orderId: "order-1" }), seen);
    await eventually(() => expect(seen).toHaveLength(1));
    await commands(app).updateStatus({ orderId: "order-1", status: READY_FOR_PICKUP, requestId: "unassign" });
    expect(await end).toBe(ending(door, Code.NotFound, "ORDER_NOT_FOUND"));
    expect(seen).toEqual([{ version: 6, status: "DRIVER_ASSIGNED", types: [], skipped: 0 }]);
  });

  it("ends with UNAVAILABLE, and never as if complete, when the server shuts down", async () => {
    await using app = await startTestApp(STILL);
    await submit(app, "order-1");
    const seen: Seen[] = [];
    const end = endOf(watchOrder(app, door, CUSTOMER, { orderId: "order-1" }), seen);
    await eventually(() => expect(seen).toHaveLength(1));
    const stopped = app.stop();
    expect(await end).toBe(ending(door, Code.Unavailable, "UNAVAILABLE"));
    await stopped;
  });
});

describe("WatchTracking", () => {
  it("tells all who watch one order of every version, once and in order", async () => {
    await using app = await startTestApp(STILL);
    await submit(app, "order-1");
    const callers = [CUSTOMER, STORE, SERVICE];
    const watchers = Array.from({ length: 200 }, (_, index) => {
      const door = WATCH_DOORS[index % WATCH_DOORS.length] ?? "grpc";
      const seen: Seen[] = [];
      const watching = all(watchOrder(app, door, callers[index % callers.length] ?? SERVICE, { orderId: "order-1" }), seen);
      return { door, seen, watching };
    });
    await eventually(() => expect(watchers.every(({ seen }) => seen.length > 0)).toBe(true));
    await live(app, "order-1");
    for (const { door, seen, watching } of watchers) {
      await watching;
      expect(seen).toEqual([{ ...toldBy(door)[0], types: [] }, ...toldBy(door, 1)]);
    }
  });

  it("shows each caller what GetTracking shows them", async () => {
    await using app = await startTestApp(STILL);
    const recipient = { name: "Ada Example", phone: "+4930123456" };
    await commands(app).initTracking({ orderId: "order-1", ...PARTY, recipient });
    await live(app, "order-1", 5);
    const { token: link } = await app.client(AuthService, "grpc", SERVICE).createTrackingLink({ orderId: "order-1" });
    for (const caller of [CUSTOMER, STORE, DRIVER, SERVICE, { role: Role.AUDITOR, subject: "a" }, link]) {
      const tracking = app.client(OrderTrackingService, "connect", caller);
      const { order } = await tracking.getTracking({ orderId: "order-1" });
      const leave = new AbortController();
      for (const request of [{ orderId: "order-1" }, { orderId: "order-1", fromVersion: 5 }]) {
        for await (const { kind } of tracking.watchTracking(request, { signal: leave.signal })) {
          expect(kind).toMatchObject({ case: "change" });
          expect(kind.case === "change" && kind.value.order).toEqual(order);
          break;
        }
      }
      leave.abort();
    }
  });

  it("gives signs of life, with how far the log has been looked through", async () => {
    await using app = await startTestApp(QUICK);
    await submit(app, "order-1");
    await submit(app, "order-2");
    const leave = new AbortController();
    const seen: Seen[] = [];
    const end = endOf(watchOrder(app, "grpc", CUSTOMER, { orderId: "order-1" }, leave.signal), seen);
    await eventually(() => expect(seen.filter((one) => !isChange(one)).length).toBeGreaterThan(2));
    expect(seen.at(-1)).toMatchObject({ position: 2 });
    await submit(app, "order-3");
    await eventually(() => expect(seen.at(-1)).toMatchObject({ position: 3 }));
    expect(seen.filter(isChange)).toHaveLength(1);
    leave.abort();
    await end;
  });

  it("gives a reader who falls behind the newest, and keeps little for them", async () => {
    await using app = await startTestApp({ ...STILL, LOG_LEVEL: "error" });
    const items = Array.from({ length: 200 }, (_, n) => ({ itemId: `item-${n}`, name: "x".repeat(100), quantity: 1 }));
    await commands(app).initTracking({ orderId: "order-1", ...PARTY, items });
    await live(app, "order-1", 3);
    const leave = new AbortController();
    const slow = app.client(OrderTrackingService, "grpc", CUSTOMER).watchTracking({ orderId: "order-1" }, { signal: leave.signal });
    const reading = slow[Symbol.asyncIterator]();
    await reading.next();
    const quick: number[] = [];
    const watching = (async () => {
      for await (const one of watchOrder(app, "connect", CUSTOMER, { orderId: "order-1" }, leave.signal))
        if (isChange(one)) quick.push(one.version);
    })();
    await eventually(() => expect(quick).toEqual([4]));
    const versions = 150;
    for (let n = 0; n < versions; n++)
      await commands(app).updateSubstitutions({
        orderId: "order-1",
        substitutions: [{ substitutionId: `s-${n}`, originalItem: { itemId: "item-1", name: "n", quantity: 1 } }],
      });
    const newest = 4 + versions;
    await eventually(() => expect(quick.at(-1)).toBe(newest));
    expect(quick).toEqual(Array.from({ length: versions + 1 }, (_, n) => n + 4));
    let version = 4;
    let messages = 0;
    let skipped = 0;
    while (version < newest) {
      const { value } = await reading.next();
      if (value?.kind.case !== "change") continue;
      expect(value.kind.value.order?.version).toBe(version + 1 + value.kind.value.skippedVersions);
      version = value.kind.value.order?.version ?? 0;
      skipped += value.kind.value.skippedVersions;
      messages++;
    }
    expect(messages).toBeLessThan(versions / 2);
    expect(skipped).toBe(versions - messages);
    leave.abort();
    await watching.catch(() => undefined);
  });
});
