import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { RetryInfoSchema } from "../../src/gen/google/rpc/error_details_pb.js";
import { Door, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { startTestApp, type TestApp } from "../support/app.ts";

const ADA = { role: Role.CUSTOMER, subject: "customer-1" };
const BEN = { role: Role.CUSTOMER, subject: "customer-2" };
const OPERATOR = { role: Role.OPERATOR, subject: "operator-1" };
const LIST = "/ordertrail.v1.OperationsService/ListProjections";

/** A call that a customer is denied, over a door. */
const deny = async (app: TestApp, door: "grpc" | "connect" | "grpc-web") =>
  ConnectError.from(
    await app
      .client(OperationsService, door, ADA)
      .listProjections({})
      .catch((error: unknown) => error),
  );

describe("who is denied too often", () => {
  it("is told by every door for how long to wait, and only for what is denied", async () => {
    await using app = await startTestApp({ DENIALS_PER_MINUTE: "5" });
    await app
      .client(OrderTrackingService, "grpc", OPERATOR)
      .initTracking({ orderId: "order-1", storeId: "store-1", customerId: "customer-1" });
    for (let time = 0; time < 5; time++) expect((await deny(app, "grpc")).code).toBe(Code.PermissionDenied);
    for (const door of ["grpc", "connect", "grpc-web"] as const) {
      const denied = await deny(app, door);
      expect(denied.code).toBe(Code.ResourceExhausted);
      const [retry] = denied.findDetails(RetryInfoSchema);
      expect(Number(retry?.retryDelay?.seconds)).toBeGreaterThanOrEqual(1);
    }
    const overRest = await app.rest(ADA, "GET", "/orders/tracking/none");
    expect([overRest.status, overRest.body.code]).toEqual([429, "RATE_LIMITED"]);
    const overConnect = await fetch(app.http + LIST, {
      method: "POST",
      headers: { authorization: `Bearer ${await app.token(ADA)}`, "content-type": "application/json" },
      body: "{}",
    });
    expect([overConnect.status, Number(overConnect.headers.get("retry-after")) >= 1]).toEqual([429, true]);
    for (let time = 0; time < 20; time++) expect((await app.rest(ADA, "GET", "/orders/tracking/order-1")).status).toBe(200);
    expect((await app.rest(BEN, "GET", "/orders/tracking/order-1")).status).toBe(404);
    expect((await app.rest(OPERATOR, "GET", "/orders/tracking/none")).status).toBe(404);
  });

  it("without a token that verifies is limited by address, and a good token from there is not", async () => {
    await using app = await startTestApp({ DENIALS_PER_MINUTE: "5" });
    const statuses = [];
    for (let time = 0; time < 7; time++) statuses.push((await app.rest("nonsense", "GET", "/orders/tracking")).status);
    expect(statuses).toEqual([401, 401, 401, 401, 401, 429, 429]);
    const limited = await fetch(`${app.http}/orders/tracking`);
    expect(Number(limited.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    expect((await app.rest(ADA, "GET", "/orders/tracking")).status).toBe(200);
  });

  it("is known by the address that a trusted proxy tells, over every door, and not by what they say themselves", async () => {
    await using app = await startTestApp({ DENIALS_PER_MINUTE: "5", TRUSTED_PROXIES: "127.0.0.0/8" });
    const through = (forwardedFor: string) => ({ headers: { authorization: "Bearer nonsense", "x-forwarded-for": forwardedFor } });
    const rest = async (forwardedFor: string) => (await fetch(`${app.http}/orders/tracking`, through(forwardedFor))).status;
    const rpc = async (door: "grpc" | "connect" | "grpc-web", forwardedFor: string) =>
      await app
        .client(OrderTrackingService, door, "nobody")
        .listTrackings({}, through(forwardedFor))
        .catch((error: unknown) => ConnectError.from(error).code);
    for (let time = 0; time < 5; time++) expect(await rest(`10.9.9.${time}, 198.51.100.7`)).toBe(401);
    expect(await rest("198.51.100.7")).toBe(429);
    for (const door of ["grpc", "connect", "grpc-web"] as const) {
      expect(await rpc(door, "10.9.9.9, 198.51.100.7")).toBe(Code.ResourceExhausted);
      expect(await rpc(door, "198.51.100.7, 198.51.100.8")).toBe(Code.Unauthenticated);
    }
    expect(await rest("198.51.100.7, 198.51.100.8")).toBe(401);
  });

  it("is counted and logged, without what they sent", async () => {
    await using app = await startTestApp({ DENIALS_PER_MINUTE: "3" });
    for (let time = 0; time < 5; time++) await deny(app, "grpc");
    await app.rest("secret-nonsense", "GET", "/orders/tracking/order-1");
    const { process: name, denials } = await app.client(OperationsService, "grpc", OPERATOR).listDenials({});
    expect(name).toContain(`:${process.pid}`);
    expect(denials).toMatchObject([
      {
        method: LIST.slice(1),
        door: Door.GRPC,
        role: Role.CUSTOMER,
        reason: "PERMISSION_DENIED",
        count: 5n,
        limited: 2n,
      },
      {
        method: "ordertrail.v1.OrderTrackingService/GetTracking",
        door: Door.REST,
        role: Role.UNSPECIFIED,
        reason: "UNAUTHENTICATED",
        count: 1n,
      },
    ]);
    const lines = app.log.map((line) => JSON.parse(line)).filter(({ msg }) => /denied/.test(msg) && !/call failed/.test(msg));
    expect(lines.map(({ reason, subject }) => [reason, subject])).toEqual([
      ...Array(4).fill(["PERMISSION_DENIED", "customer-1"]),
      ["UNAUTHENTICATED", undefined],
    ]);
    expect(lines[0]).toMatchObject({ level: "warn", door: "GRPC", role: "customer" });
    expect(lines[4]).toMatchObject({ level: "warn", door: "REST", peer: "127.0.0.0/24" });
    // Where a customer is, is theirs to know.
    expect(app.log.filter((line) => line.includes("customer-1") && line.includes("127.0.0.1"))).toEqual([]);
    expect(app.log.join()).not.toContain("secret-nonsense");
  });
});
