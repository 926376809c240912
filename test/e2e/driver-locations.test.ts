import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { startNatsServer } from "../../src/embedded/nats-server.ts";
import { DeliveryProvider, DriverMilestone, OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import {
  DriverLocationService,
  type DriverLocationUpdate,
  type StreamLocationsResponse,
} from "../../src/gen/ordertrail/v1/driver_location_service_pb.js";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { LocationDropReason } from "../../src/gen/ordertrail/v1/order_tracking_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { type Bearer, startTestApp, type TestApp, type TestCaller } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const SERVICE: TestCaller = { role: Role.SERVICE, subject: "checkout" };
const CUSTOMER: TestCaller = { role: Role.CUSTOMER, subject: "customer-1" };
const DRIVER: TestCaller = { role: Role.DRIVER, subject: "driver-1" };
const OTHER_DRIVER: TestCaller = { role: Role.DRIVER, subject: "driver-2" };
const { STORE_NOTIFIED, STORE_ACKNOWLEDGED, PICKING_IN_PROGRESS, READY_FOR_PICKUP, DRIVER_PICKUP_COMPLETE, IN_TRANSIT } = OrderStatus;
const STILL = { WATCH_HEARTBEAT_MS: "600000", LOCATION_STORE_MS: "200" };
const METER = 1 / 111_195;
const NOW = Date.parse("2026-06-01T12:00:00Z");
const clock = () => new Date(NOW);

type Sent = { orderId?: string; meters?: number; at?: number; latitude?: number };

/** A point so many metres north of the store, measured so many seconds from now. */
function point({ orderId = "order-1", meters = 0, at = 0, latitude = meters * METER }: Sent) {
  return { orderId, latitude, longitude: 0, recordedAt: timestampFromDate(new Date(NOW + at * 1000)) };
}

/** An order whose driver is on the way: from a store at the equator to a customer 3 km north of it. */
async function underWay(app: TestApp, orderId = "order-1", driverId = "driver-1"): Promise<void> {
  const orders = app.client(OrderTrackingService, "grpc", SERVICE);
  await app
    .client(OperationsService, "grpc", SERVICE)
    .putStore({ storeId: "store-1", name: "Corner shop", address: { latitude: 0, longitude: 0 } });
  const recipient = { name: "Ada", address: { latitude: 3000 * METER, longitude: 0 } };
  await orders.initTracking({
    ...{ orderId, storeId: "store-1", customerId: "customer-1", recipient },
    deliveryProvider: DeliveryProvider.IN_HOUSE,
  });
  for (const status of [STORE_NOTIFIED, STORE_ACKNOWLEDGED, PICKING_IN_PROGRESS, READY_FOR_PICKUP])
    await orders.updateStatus({ orderId, status });
  await orders.assignDriver({ orderId, driverDetails: { driverId } });
}

/** Sends points, some a message, and answers the last response. */
async function stream(app: TestApp, caller: Bearer, ...messages: Sent[][]): Promise<StreamLocationsResponse> {
  async function* requests() {
    for (const message of messages) yield { points: message.map(point) };
  }
  let last: StreamLocationsResponse | undefined;
  for await (const response of app.client(DriverLocationService, "grpc", caller).streamLocations(requests())) last = response;
  if (!last?.final) throw new Error("the stream ended without a summary");
  return last;
}

const counts = ({ received, taken, dropped }: StreamLocationsResponse) => ({
  received: Number(received),
  taken: Number(taken),
  dropped: Object.fromEntries(dropped.map(({ reason, count }) => [LocationDropReason[reason], Number(count)])),
});

/** Follows a driver; what has been seen grows until the stream ends. */
function follow(app: TestApp, caller: Bearer, door: "grpc" | "connect" = "grpc", orderId = "order-1") {
  const seen: DriverLocationUpdate[] = [];
  const leaving = new AbortController();
  const ended = (async () => {
    const watching = app.client(DriverLocationService, door, caller).watchDriverLocation({ orderId }, { signal: leaving.signal });
    for await (const { kind } of watching) if (kind.case === "update") seen.push(kind.value);
  })();
  return { seen, ended, leave: () => leaving.abort() };
}

const metersOf = ({ location }: DriverLocationUpdate) => (location ? Math.round(location.latitude / METER) : undefined);

describe("StreamLocations", () => {
  it("takes points of several orders, and tells of each that it drops why", async () => {
    await using app = await startTestApp(STILL, clock);
    await underWay(app);
    await underWay(app, "order-2");
    await underWay(app, "order-3", "driver-2");
    const response = await stream(
      app,
      DRIVER,
      [{ at: -20 }],
      [
        { at: -19, meters: 10 },
        { at: -19, meters: 10 },
        { at: -25 },
        { at: -18, meters: 9000 },
        { at: 90 },
        { at: -400 },
        { orderId: "order-2", at: -1000 },
        { orderId: "order-2", at: -10 },
        { orderId: "order-3", at: -10 },
        { orderId: "order-4", at: -10 },
        { latitude: 91 },
        { orderId: "no such name" },
      ],
      [{ at: -17, meters: 30 }],
    );
    expect(counts(response)).toEqual({
      received: 14,
      taken: 4,
      dropped: { DUPLICATE: 1, OUT_OF_ORDER: 2, IMPOSSIBLE: 1, FUTURE: 1, STALE: 1, UNKNOWN_ORDER: 2, INVALID: 2 },
    });
    const invalid = response.examples.filter(({ reason }) => reason === LocationDropReason.INVALID);
    expect(invalid.map(({ number, detail }) => [Number(number), detail.split(" ")[0]])).toEqual([
      [12, "latitude"],
      [13, "order_id"],
    ]);
    const denials = await app.client(OperationsService, "grpc", { role: Role.OPERATOR, subject: "ops" }).listDenials({});
    expect(JSON.stringify(denials.denials, (_, value) => (typeof value === "bigint" ? Number(value) : value))).toContain("StreamLocations");
  });

  it("tells every thousand points, and a while after the last, how it goes", async () => {
    await using app = await startTestApp(STILL, clock);
    await underWay(app);
    const responses: StreamLocationsResponse[] = [];
    let sent = 0;
    const points = (count: number) => ({ points: Array.from({ length: count }, () => point({ at: -290 + ++sent / 10 })) });
    /** The next points are not sent before those are told of. */
    const told = () => eventually(() => expect(Number(responses.at(-1)?.received)).toBe(sent));
    async function* requests() {
      yield points(1000);
      await told();
      for (let n = 0; n < 20; n++) yield points(50);
      await told();
      yield points(1);
      await told();
    }
    for await (const response of app.client(DriverLocationService, "grpc", DRIVER).streamLocations(requests())) responses.push(response);
    expect(responses.map(({ received, final }) => [Number(received), final])).toEqual([
      [1000, false],
      [2000, false],
      [2001, false],
      [2001, true],
    ]);
    expect(counts(responses.at(-1) as StreamLocationsResponse)).toEqual({ received: 2001, taken: 2001, dropped: {} });
  });

  it("drops the points of an order that has no driver yet, and of one that has ended", async () => {
    await using app = await startTestApp(STILL, clock);
    const orders = app.client(OrderTrackingService, "grpc", SERVICE);
    await orders.initTracking({ orderId: "new", storeId: "store-1", customerId: "customer-1" });
    expect(counts(await stream(app, SERVICE, [{ orderId: "new" }]))).toMatchObject({ taken: 0, dropped: { NO_DRIVER: 1 } });
    await underWay(app);
    expect(counts(await stream(app, SERVICE, [{ at: -5 }]))).toMatchObject({ taken: 1 });
    for (const status of [DRIVER_PICKUP_COMPLETE, IN_TRANSIT]) await orders.updateStatus({ orderId: "order-1", status });
    await orders.markDelivered({ orderId: "order-1" });
    await eventually(async () =>
      expect(counts(await stream(app, SERVICE, [{ at: 0 }]))).toMatchObject({ taken: 0, dropped: { NO_DRIVER: 1 } }),
    );
  });

  it("ends when a message has more than a thousand points; what was taken before stays taken", async () => {
    await using app = await startTestApp(STILL, clock);
    await underWay(app);
    await expect(stream(app, DRIVER, [{ at: -9 }], Array(1001).fill({ at: -5 }))).rejects.toMatchObject({
      code: Code.InvalidArgument,
      rawMessage: expect.stringContaining("points "),
    });
    const { order } = await app.client(OrderTrackingService, "grpc", DRIVER).getTracking({ orderId: "order-1" });
    expect(order?.driverLocation?.recordedAt && timestampDate(order.driverLocation.recordedAt)).toEqual(new Date(NOW - 9000));
  });

  it("is for gRPC, and for those who may report", async () => {
    await using app = await startTestApp(STILL, clock);
    await expect(stream(app, CUSTOMER, [{}])).rejects.toMatchObject({ code: Code.PermissionDenied });
    await expect(stream(app, "", [{}])).rejects.toMatchObject({ code: Code.Unauthenticated });
    const path = `${app.http}/ordertrail.v1.DriverLocationService/StreamLocations`;
    const headers = { "content-type": "application/connect+json", authorization: `Bearer ${await app.token(DRIVER)}` };
    const answer = await fetch(path, { method: "POST", headers, body: Buffer.from([0, 0, 0, 0, 2, 123, 125]) });
    expect(await answer.text()).toContain("gRPC port");
  });
});

describe("WatchDriverLocation", () => {
  it.each(["grpc", "connect"] as const)(
    "over %s tells the last point at once, then each as it comes, and ends with the order",
    async (door) => {
      await using app = await startTestApp(STILL, clock);
      const orders = app.client(OrderTrackingService, "grpc", SERVICE);
      await underWay(app);
      await stream(app, DRIVER, [{ at: -100, meters: 1 }]);
      const { seen, ended } = follow(app, CUSTOMER, door);
      await eventually(() => expect(seen.map(metersOf)).toEqual([1]));
      await stream(
        app,
        DRIVER,
        [{ at: -90, meters: 5 }],
        [
          { at: -80, meters: 10 },
          { at: -70, meters: 15 },
        ],
      );
      await eventually(() => expect(seen.map(metersOf)).toEqual([1, 5, 10, 15]));
      await orders.updateStatus({ orderId: "order-1", status: DRIVER_PICKUP_COMPLETE });
      await orders.updateStatus({ orderId: "order-1", status: IN_TRANSIT });
      await stream(app, DRIVER, [{ at: -60, meters: 20 }]);
      await eventually(() => expect(seen.map(metersOf)).toEqual([1, 5, 10, 15, 15, 15, 20]));
      await orders.markDelivered({ orderId: "order-1" });
      await ended;
      expect(seen.at(-1)).toMatchObject({ currentStatus: OrderStatus.DELIVERED, driverId: "" });
      expect(seen.at(-1)?.location).toBeUndefined();
    },
  );

  it("shows nothing before a driver is assigned, and nothing of one who has left", async () => {
    await using app = await startTestApp(STILL, clock);
    const orders = app.client(OrderTrackingService, "grpc", SERVICE);
    await orders.initTracking({ orderId: "order-1", storeId: "store-1", customerId: "customer-1" });
    for (const status of [STORE_NOTIFIED, STORE_ACKNOWLEDGED, PICKING_IN_PROGRESS])
      await orders.updateStatus({ orderId: "order-1", status });
    await orders.assignDriver({ orderId: "order-1", driverDetails: { driverId: "driver-1" } });
    const { seen, leave, ended } = follow(app, CUSTOMER);
    await eventually(() => expect(seen).toHaveLength(1));
    // Booked early: the point is kept, but for nobody to see.
    expect(counts(await stream(app, DRIVER, [{ at: -50, meters: 7 }])).taken).toBe(1);
    expect(seen.map(metersOf)).toEqual([undefined]);
    await orders.updateStatus({ orderId: "order-1", status: READY_FOR_PICKUP });
    await eventually(() => expect(seen.map(metersOf)).toEqual([undefined, 7]));
    await orders.assignDriver({ orderId: "order-1", driverDetails: { driverId: "driver-2" } });
    await eventually(() => expect(seen.map(metersOf)).toEqual([undefined, 7, undefined]));
    await stream(app, OTHER_DRIVER, [{ at: -60, meters: 400 }]);
    await eventually(() => expect(seen.map(metersOf)).toEqual([undefined, 7, undefined, 400]));
    expect(seen.map(({ driverId }) => driverId)).toEqual(["", "driver-1", "driver-2", "driver-2"]);
    expect(counts(await stream(app, DRIVER, [{ at: -10 }])).dropped).toEqual({ UNKNOWN_ORDER: 1 });
    leave();
    await expect(ended).rejects.toMatchObject({ code: Code.Canceled });
  });

  it("is for those only whose order it is", async () => {
    await using app = await startTestApp(STILL, clock);
    await underWay(app);
    const another = follow(app, { role: Role.CUSTOMER, subject: "customer-2" }).ended.catch((error) => ConnectError.from(error).code);
    expect(await another).toBe(Code.NotFound);
  });

  async function twoApps(parts: AsyncDisposableStack, environment: NodeJS.ProcessEnv) {
    const taking = parts.use(await startTestApp({ ...STILL, ...environment }, clock));
    const shared = { DATABASE_NAME: taking.databaseName, DATA_DIR: taking.dataDir };
    const showing = parts.use(await startTestApp({ ...STILL, ...environment, ...shared }, clock));
    await underWay(taking);
    return { taking, showing };
  }

  /** Two processes on one database: points go to the one, and are watched at the other. */
  async function twoProcesses(parts: AsyncDisposableStack, environment: NodeJS.ProcessEnv) {
    const { taking, showing } = await twoApps(parts, environment);
    const { seen, ended, leave } = follow(showing, CUSTOMER);
    parts.defer(async () => {
      leave();
      await ended.catch(() => undefined);
    });
    await eventually(() => expect(seen.map(metersOf)).toEqual([undefined]));
    let sent = 0;
    /** Sends one point more, and waits until it is seen, as the newest and once. */
    const pass = async () => {
      sent++;
      await stream(taking, DRIVER, [{ at: sent * 10 - 200, meters: sent * 50 }]);
      await eventually(() => expect(seen.map(metersOf)).toEqual([undefined, ...Array.from({ length: sent }, (_, n) => (n + 1) * 50)]));
    };
    return { pass };
  }

  it("shows points that another process takes, by way of the database where there is no NATS", async () => {
    await using parts = new AsyncDisposableStack();
    const { pass } = await twoProcesses(parts, {});
    for (let n = 0; n < 3; n++) await pass();
  });

  it("shows them by way of NATS alone, before any is stored", async () => {
    await using parts = new AsyncDisposableStack();
    const folder = parts.use(await temporaryFolder());
    const nats = await startNatsServer({ dataDir: folder.path });
    parts.defer(() => nats.stop());
    const { pass } = await twoProcesses(parts, { NATS_URL: nats.url, LOCATION_STORE_MS: "600000" });
    for (let n = 0; n < 3; n++) await pass();
  });

  it("goes on showing them while NATS is away, and when it is back", async () => {
    await using parts = new AsyncDisposableStack();
    const folder = parts.use(await temporaryFolder());
    let nats = await startNatsServer({ dataDir: folder.path });
    parts.defer(() => nats.stop());
    const { pass } = await twoProcesses(parts, { NATS_URL: nats.url });
    await pass();
    await nats.stop();
    for (let n = 0; n < 3; n++) await pass();
    nats = await startNatsServer({ dataDir: folder.path, port: nats.port });
    for (let n = 0; n < 3; n++) await pass();
  });

  it("goes on showing them to who has come while NATS was away, by NATS when it is back", async () => {
    await using parts = new AsyncDisposableStack();
    const folder = parts.use(await temporaryFolder());
    let nats = await startNatsServer({ dataDir: folder.path });
    parts.defer(() => nats.stop());
    // Nothing but the first point is stored in this time: what is seen has come by NATS.
    const { taking, showing } = await twoApps(parts, { NATS_URL: nats.url, LOCATION_STORE_MS: "600000" });
    await nats.stop();
    await eventually(() => expect(showing.log.join("")).toContain("the connection to NATS is lost"));
    const { seen, ended, leave } = follow(showing, CUSTOMER);
    await eventually(() => expect(seen).toHaveLength(1));
    nats = await startNatsServer({ dataDir: folder.path, port: nats.port });
    let sent = 0;
    await eventually(async () => {
      await stream(taking, DRIVER, [{ at: ++sent - 200, meters: sent }]);
      expect(seen.map(metersOf).at(-1)).toBeGreaterThan(1);
    });
    leave();
    await ended.catch(() => undefined);
  });
});

describe("an order whose driver reports", () => {
  it("records milestones once, shows the place and when it is expected, in lists too", async () => {
    await using app = await startTestApp(STILL, clock);
    const orders = app.client(OrderTrackingService, "grpc", SERVICE);
    await underWay(app);
    await stream(app, DRIVER, [{ at: -290, meters: -2000 }]);
    const { order: far } = await orders.getTracking({ orderId: "order-1" });
    expect(far?.milestones).toEqual([]);
    expect(far?.driverLocation?.latitude).toBeCloseTo(-2000 * METER, 6);
    // 5 km at 7 m/s with a detour of 1.3 and a stop of three minutes, in steps of ten seconds.
    expect(far?.eta && timestampDate(far.eta)).toEqual(new Date(Math.ceil((NOW - 290_000 + (6500 / 7 + 180) * 1000) / 10_000) * 10_000));
    const milestones = async () => (await orders.getTracking({ orderId: "order-1" })).order?.milestones.map(({ milestone }) => milestone);
    const { NEAR_STORE, AT_STORE, NEAR_CUSTOMER, ARRIVED } = DriverMilestone;
    await stream(app, DRIVER, [{ at: -200, meters: -400 }]);
    await eventually(async () => expect(await milestones()).toEqual([NEAR_STORE]));
    await stream(app, DRIVER, [{ at: -150, meters: -20 }], [{ at: -140, meters: -700 }], [{ at: -130, meters: -300 }], [{ at: -120 }]);
    await eventually(async () => expect(await milestones()).toEqual([NEAR_STORE, AT_STORE]));
    for (const status of [DRIVER_PICKUP_COMPLETE, IN_TRANSIT]) await orders.updateStatus({ orderId: "order-1", status });
    // Both in one message: the second is looked at when the first is on record.
    await stream(app, DRIVER, [
      { at: -60, meters: 2700 },
      { at: -10, meters: 2990 },
    ]);
    await eventually(async () => expect(await milestones()).toEqual([NEAR_STORE, AT_STORE, NEAR_CUSTOMER, ARRIVED]));
    await eventually(async () => {
      const [listed] = (await orders.listTrackings({})).orders;
      expect(listed?.driverLocation?.latitude).toBeCloseTo(2990 * METER, 6);
      expect(listed?.milestones).toHaveLength(4);
    });
    const { events } = await orders.getHistory({ orderId: "order-1" });
    const reached = events.filter(({ type }) => type === "DriverMilestoneReached");
    expect(reached.map(({ milestone, inferred }) => [milestone, inferred])).toEqual([
      [NEAR_STORE, false],
      [AT_STORE, false],
      [NEAR_CUSTOMER, false],
      [ARRIVED, false],
    ]);
    expect(reached.every(({ actor }) => actor?.role === Role.SYSTEM)).toBe(true);
  });

  it("is written to at most once in a while, and has the newest point in the end", async () => {
    await using app = await startTestApp({ ...STILL, LOCATION_STORE_MS: "60000" }, clock);
    await underWay(app);
    const collection = app.database.db(app.databaseName).collection("driver_locations");
    await stream(app, DRIVER, [{ at: -30, meters: 1 }]);
    const storedAt = async () => Number((await collection.findOne({}))?.["recorded_at"]) - NOW;
    await eventually(async () => expect(await storedAt()).toBe(-30_000));
    await stream(app, DRIVER, [{ at: -20, meters: 2 }], [{ at: -10, meters: 3 }]);
    expect(await storedAt()).toBe(-30_000);
    const { order } = await app.client(OrderTrackingService, "grpc", SERVICE).getTracking({ orderId: "order-1" });
    expect(order?.driverLocation?.latitude).toBeCloseTo(3 * METER, 9);
    await app.stop();
    expect(await storedAt()).toBe(-10_000);
  });

  it("says of a point by PUT whether it was taken", async () => {
    await using app = await startTestApp(STILL, clock);
    await underWay(app);
    const put = (meters: number, at: number) =>
      app.rest(DRIVER, "PUT", "/orders/tracking/order-1/location", {
        ...{ latitude: meters * METER, longitude: 0, recorded_at: new Date(NOW + at * 1000).toISOString() },
      });
    const taken = await put(10, -20);
    expect([taken.status, taken.body.dropped, taken.body.order.driver_location.recorded_at]).toEqual([
      200,
      undefined,
      "2026-06-01T11:59:40Z",
    ]);
    const dropped = await put(20, -30);
    expect([dropped.status, dropped.body.dropped, dropped.body.order.driver_location.recorded_at]).toEqual([
      200,
      "OUT_OF_ORDER",
      "2026-06-01T11:59:40Z",
    ]);
    expect((await put(20, 120)).status).toBe(400);
  });
});
