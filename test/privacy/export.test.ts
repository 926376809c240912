import { Code } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { AuditService } from "../../src/gen/ordertrail/v1/audit_service_pb.js";
import { AuthService } from "../../src/gen/ordertrail/v1/auth_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { startTestApp, type TestCaller } from "../support/app.ts";

const SERVICE: TestCaller = { role: Role.SERVICE, subject: "checkout" };
const ADA: TestCaller = { role: Role.CUSTOMER, subject: "ada" };

describe("exporting what is held on a customer", () => {
  it("gives every order as its customer may see it, with its history, in pages, newest first", async () => {
    await using app = await startTestApp();
    const tracking = app.client(OrderTrackingService, "grpc", SERVICE);
    for (const orderId of ["one", "two", "three"])
      await tracking.initTracking({ orderId, storeId: "s", customerId: "ada", recipient: { name: "Ada Example", instructions: orderId } });
    await tracking.initTracking({ orderId: "other", storeId: "s", customerId: "bob", recipient: { name: "Bob" } });
    await tracking.updateStatus({ orderId: "three", status: 2, note: "the last one" });
    await tracking.assignDriver({ orderId: "three", driverDetails: { driverId: "d", name: "Kim", phone: "+4930654321" } });

    const first = await app.rest(ADA, "GET", "/privacy/customers/ada/export?page_size=2");
    expect(first).toMatchObject({
      status: 200,
      body: {
        customer_id: "ada",
        orders: [
          {
            order: { order_id: "three", recipient: { name: "Ada Example", instructions: "three" } },
            events: [
              { type: "OrderSubmitted", status: "SUBMITTED" },
              { type: "StoreNotified", note: "the last one" },
              { type: "DriverBooked" },
            ],
          },
          { order: { order_id: "two" }, events: [{ type: "OrderSubmitted" }] },
        ],
      },
    });
    await app.rest(ADA, "POST", "/orders/tracking/two/cancel", { reason: "changed my mind" });
    const [, two] = (await app.rest(ADA, "GET", "/privacy/customers/ada/export")).body.orders;
    expect(two).toMatchObject({ order: { order_id: "two" }, addresses: [{ position: "7", address: "127.0.0.1" }] });
    const auth = app.client(AuthService, "grpc", ADA);
    const own = await auth.createTrackingLink({ orderId: "two", expiresIn: 3600 });
    await app.client(AuthService, "grpc", SERVICE).createTrackingLink({ orderId: "two" });
    const linked = (await app.rest(ADA, "GET", "/privacy/customers/ada/export")).body;
    expect(linked.orders[1].links).toEqual([
      { link_id: own.linkId, created_at: expect.stringMatching(/Z$/), expires_at: expect.stringMatching(/Z$/) },
    ]);
    const [{ created_at, expires_at }] = linked.orders[1].links;
    expect(Date.parse(expires_at) - Date.parse(created_at)).toBeGreaterThan(3_590_000);
    expect(JSON.stringify(linked)).not.toContain(own.token);
    // A driver's own data is not the customer's before the driver comes.
    expect(JSON.stringify(first.body)).not.toContain("Kim");
    const token = encodeURIComponent(first.body.next_page_token);
    const second = await app.rest(ADA, "GET", `/privacy/customers/ada/export?page_size=2&page_token=${token}`);
    expect(second.body.orders.map(({ order }: { order: { order_id: string } }) => order.order_id)).toEqual(["one"]);
    expect(second.body).not.toHaveProperty("next_page_token", expect.stringMatching(/./));
    expect(second.body).not.toHaveProperty("erasure");

    const byOperator = await app
      .client(AuditService, "connect", { role: Role.OPERATOR, subject: "o" })
      .exportCustomerData({ customerId: "ada" });
    expect(byOperator.orders).toHaveLength(3);
    expect(byOperator.orders[0]?.order?.orderId).toBe("three");
    expect(byOperator.orders[0]?.order?.driverDetails).toBeUndefined();
  });

  it("is for the customer themselves, services and operators only", async () => {
    await using app = await startTestApp();
    const call = (caller: TestCaller) => app.client(AuditService, "grpc", caller).exportCustomerData({ customerId: "ada" });
    for (const caller of [SERVICE, ADA, { role: Role.OPERATOR, subject: "o" }]) expect((await call(caller)).orders).toEqual([]);
    await expect(call({ role: Role.CUSTOMER, subject: "bob" })).rejects.toMatchObject({ code: Code.PermissionDenied });
    for (const caller of [
      { role: Role.STORE, subject: "c", storeId: "s" },
      { role: Role.DRIVER, subject: "d" },
      { role: Role.PARTNER, subject: "uber" },
      { role: Role.AUDITOR, subject: "a" },
    ])
      await expect(call(caller)).rejects.toMatchObject({ code: Code.PermissionDenied });
    const erase = (caller: TestCaller) => app.client(AuditService, "grpc", caller).eraseCustomer({ customerId: "ada" });
    for (const caller of [ADA, { role: Role.AUDITOR, subject: "a" }])
      await expect(erase(caller)).rejects.toMatchObject({ code: Code.PermissionDenied });
    expect(await app.rest(SERVICE, "POST", "/privacy/customers/a%20b/erase")).toMatchObject({ status: 400 });
  });
});
