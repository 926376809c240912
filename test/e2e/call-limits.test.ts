import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { ErrorInfoSchema, RetryInfoSchema } from "../../src/gen/google/rpc/error_details_pb.js";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { DriverLocationService } from "../../src/gen/ordertrail/v1/driver_location_service_pb.js";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { type RpcDoor, startTestApp, type TestApp, type TestCaller } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { startTestValkey } from "../support/valkey.ts";
import { WATCH_DOORS, WatchEnded, watchOrder } from "../support/watching.ts";

const ADA: TestCaller = { role: Role.CUSTOMER, subject: "customer-1" };
const BEN: TestCaller = { role: Role.CUSTOMER, subject: "customer-2" };
const DRIVER: TestCaller = { role: Role.DRIVER, subject: "driver-1" };
const SERVICE: TestCaller = { role: Role.SERVICE, subject: "checkout" };
const OPERATOR: TestCaller = { role: Role.OPERATOR, subject: "operator-1" };
const LIST = "/ordertrail.v1.OrderTrackingService/ListTrackings";
const DOORS: readonly RpcDoor[] = ["grpc", "connect", "grpc-web"];

/** A call that a caller may make; the error, if it is refused. */
const call = (app: TestApp, door: RpcDoor, caller: TestCaller): Promise<ConnectError | undefined> =>
  app
    .client(OrderTrackingService, door, caller)
    .listTrackings({})
    .then(
      () => undefined,
      (error: unknown) => ConnectError.from(error),
    );

const codeOf = async (app: TestApp, caller: TestCaller) => (await app.rest(caller, "GET", "/orders/tracking")).body.code;

/** Of so many calls by REST, how many were answered, and how many were told to wait; nothing else is to happen. */
async function answered(app: TestApp, caller: TestCaller, calls: number): Promise<number> {
  const codes = await Promise.all(Array.from({ length: calls }, () => codeOf(app, caller)));
  expect(codes.filter((code) => code !== undefined && code !== "RATE_LIMITED")).toEqual([]);
  return codes.filter((code) => code === undefined).length;
}

const initTracking = (app: TestApp) =>
  app.client(OrderTrackingService, "grpc", SERVICE).initTracking({ orderId: "order-1", storeId: "store-1", customerId: "customer-1" });

describe("who calls too often", () => {
  it("is told by every door for how long to wait; nobody else is", async () => {
    await using app = await startTestApp({ API_CALLS_PER_MINUTE: "customer=3,operator=5" });
    for (const door of DOORS) expect(await call(app, door, ADA)).toBeUndefined();
    for (const door of DOORS) {
      const refused = await call(app, door, ADA);
      expect(refused?.code).toBe(Code.ResourceExhausted);
      expect(refused?.findDetails(ErrorInfoSchema)[0]?.reason).toBe("RATE_LIMITED");
      const seconds = Number(refused?.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds);
      expect(seconds).toBeGreaterThan(30);
      expect(seconds).toBeLessThanOrEqual(60);
    }
    const headers = { authorization: `Bearer ${await app.token(ADA)}`, "content-type": "application/json" };
    const overConnect = await fetch(app.http + LIST, { method: "POST", headers, body: "{}" });
    const overRest = await fetch(`${app.http}/orders/tracking`, { headers });
    for (const { status, headers: answer } of [overConnect, overRest])
      expect([status, Number(answer.get("retry-after")) > 30]).toEqual([429, true]);
    expect(await overRest.json()).toMatchObject({
      code: "RATE_LIMITED",
      detail: expect.stringMatching(/^too many calls: wait \d+ seconds$/),
    });

    expect(await answered(app, BEN, 3)).toBe(3);
    expect(await answered(app, SERVICE, 50)).toBe(50);
    for (let time = 0; time < 10; time++) {
      expect((await app.get(OPERATOR, "/metrics")).status).toBe(200);
      expect((await app.get(ADA, "/healthz")).status).toBe(200);
    }
    const { denials } = await app.client(OperationsService, "grpc", OPERATOR).listDenials({});
    const limited = denials.filter(({ reason }) => reason === "RATE_LIMITED");
    expect(limited.map(({ role }) => role)).toEqual(limited.map(() => Role.CUSTOMER));
    expect(limited.reduce((sum, { count }) => sum + Number(count), 0)).toBe(5);
  });

  it("is not told of a shorter time when there are many refusals", async () => {
    await using app = await startTestApp({ API_CALLS_PER_MINUTE: "customer=1", DENIALS_PER_MINUTE: "2" });
    expect(await codeOf(app, ADA)).toBeUndefined();
    for (let time = 0; time < 5; time++)
      expect(Number((await app.get(ADA, "/orders/tracking")).headers.get("retry-after"))).toBeGreaterThan(30);
  });

  it("is refused before their request is read, but after their token and their role were looked at", async () => {
    await using app = await startTestApp({ API_CALLS_PER_MINUTE: "customer=1" });
    expect((await app.rest(ADA, "GET", "/orders/tracking?page_size=nonsense")).status).toBe(400);
    expect((await app.rest(ADA, "GET", "/orders/tracking?page_size=nonsense")).status).toBe(429);
    expect((await app.rest("nonsense", "GET", "/orders/tracking")).status).toBe(401);
    const forOperators = await app
      .client(OperationsService, "grpc", ADA)
      .listDenials({})
      .catch((error: unknown) => ConnectError.from(error).code);
    expect(forOperators).toBe(Code.PermissionDenied);
  });

  it.each(WATCH_DOORS)("has a stream by %s counted as one call, and refused when there were too many", async (door) => {
    await using app = await startTestApp({ API_CALLS_PER_MINUTE: "customer=1", WATCH_HEARTBEAT_MS: "100" });
    await initTracking(app);
    let seen = 0;
    for await (const _ of watchOrder(app, door, ADA, { orderId: "order-1" })) if (++seen === 5) break;
    const refused = await (async () => {
      for await (const _ of watchOrder(app, door, ADA, { orderId: "order-1" })) return "was answered";
      return "ended";
    })().catch((error: unknown) => (error instanceof WatchEnded ? error.body.code : ConnectError.from(error).code));
    expect(refused).toBe(door === "events" ? "RATE_LIMITED" : Code.ResourceExhausted);
  });

  it("may send any number of points by one stream", async () => {
    await using app = await startTestApp({ API_CALLS_PER_MINUTE: "driver=1" });
    async function* requests() {
      for (let sent = 0; sent < 50; sent++) yield { points: [{ orderId: "order-1", latitude: 0, longitude: 0 }] };
    }
    const send = async () => {
      let received = 0n;
      for await (const response of app.client(DriverLocationService, "grpc", DRIVER).streamLocations(requests()))
        received = response.received;
      return received;
    };
    expect(await send()).toBe(50n);
    await expect(send()).rejects.toMatchObject({ code: Code.ResourceExhausted });
  });

  it("is known to all processes with one Valkey, and to each by itself while that is dead", async () => {
    await using valkey = await startTestValkey();
    const limited = { API_CALLS_PER_MINUTE: "customer=10", REDIS_URL: valkey.url };
    await using one = await startTestApp(limited);
    await using two = await startTestApp({ ...limited, DATABASE_NAME: one.databaseName, DATA_DIR: one.dataDir });
    const redisOf = async (app: TestApp) =>
      ((await (await fetch(`${app.http}/readyz`)).json()) as { checks: { redis: string } }).checks.redis;
    const become = (state: string) => eventually(async () => expect(await Promise.all([one, two].map(redisOf))).toEqual([state, state]));
    await become("ok");
    const answeredByBoth = async (subject: string) => {
      const caller: TestCaller = { role: Role.CUSTOMER, subject };
      return Promise.all([answered(one, caller, 20), answered(two, caller, 20)]);
    };
    const sum = ([a, b]: readonly number[]) => (a ?? 0) + (b ?? 0);
    expect(sum(await answeredByBoth("before"))).toBe(10);
    expect(await valkey.command("KEYS", "*before*")).toEqual([]);
    // Whoever calls just then is not told of it.
    const [whileDying] = await Promise.all([answeredByBoth("dying"), valkey.kill()]);
    expect(sum(whileDying)).toBeGreaterThanOrEqual(10);
    await become("failed");
    expect((await fetch(`${one.http}/readyz`)).status).toBe(200);
    expect(await answeredByBoth("dead")).toEqual([10, 10]);
    await valkey.restart();
    await become("ok");
    expect(sum(await answeredByBoth("after"))).toBe(10);
  });

  it("is limited by each process alone without REDIS_URL, which production is warned of", async () => {
    await using app = await startTestApp({ API_CALLS_PER_MINUTE: "customer=2" });
    expect(await answered(app, ADA, 6)).toBe(2);
    expect(app.log.join("")).not.toContain("REDIS_URL");
  });
});
