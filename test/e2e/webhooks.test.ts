import { describe, expect, it } from "vitest";
import { Door, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { CHECKOUT, CLERK, type Delivering, startDelivering } from "../support/delivering.ts";
import { eventually } from "../support/eventually.ts";
import { type SignedWebhook, signed } from "../support/provider.ts";

const kim = { driverId: "kim-1", name: "Kim", phone: "+4930999999", vehicleType: "bicycle", photoUrl: "" };

describe("a webhook", () => {
  async function withDelivery(orderId = "o-1", provider: "UBER" | "DOORDASH" = "UBER"): Promise<Delivering> {
    const test = await startDelivering();
    await test.order(orderId);
    await test.app.rest(CLERK, "POST", `/orders/tracking/${orderId}/delivery`, {
      policy: "PREFERENCE",
      preferred_providers: [provider, provider === "UBER" ? "DOORDASH" : "UBER"],
    });
    return test;
  }
  const status = async ({ app }: Delivering) => (await app.rest(CHECKOUT, "GET", "/orders/tracking/o-1")).body.current_status;

  it("is refused when it is forged or makes no sense, and changes nothing", async () => {
    await using test = await withDelivery();
    const { body } = test.uber.move("o-1/1", "DELIVERED");
    for (const headers of [{}, signed(body, "another key").headers, signed(`${body} `).headers])
      expect(await test.webhook("uber", { body, headers })).toBe(401);
    expect(await test.webhook("uber", signed("{"))).toBe(400);
    expect(await test.webhook("uber", signed(JSON.stringify({ filler: "x".repeat(300_000) })))).toBe(413);
    expect((await fetch(`${test.app.http}/webhooks/uber`)).status).toBe(405);
    expect((await fetch(`${test.app.http}/webhooks/other`, { method: "POST" })).status).toBe(404);
    expect(await status(test)).toBe("READY_FOR_PICKUP");
  });

  it("that is forged is counted with the denials, and its sender is told to wait; those that are signed are not", async () => {
    await using test = await startDelivering({ DENIALS_PER_MINUTE: "5" });
    const forged = await Promise.all(Array.from({ length: 12 }, () => test.webhook("uber", { body: "{}", headers: {} })));
    expect(forged.filter((code) => code === 401)).toHaveLength(5);
    expect(forged.filter((code) => code === 429)).toHaveLength(7);
    const { denials } = await test.app.client(OperationsService, "grpc", { role: Role.OPERATOR, subject: "operator-1" }).listDenials({});
    expect(denials).toMatchObject([
      { method: "POST /webhooks/uber", door: Door.WEBHOOK, reason: "UNAUTHENTICATED", count: 12n, limited: 7n },
    ]);
    expect(test.app.log.filter((line) => line.includes("call denied"))).toHaveLength(5);
    expect(await test.webhook("uber", test.uber.move("nobody/1", "DELIVERED"))).toBe(200);
  });

  it("of an unknown delivery, kind or status is taken and leads to nothing", async () => {
    await using test = await withDelivery();
    expect(await test.webhook("uber", test.uber.move("nobody/1", "DELIVERED"))).toBe(200);
    expect(await test.webhook("uber", signed(JSON.stringify({ id: "e-1", kind: "refund" })))).toBe(200);
    const { body } = test.uber.move("o-1/1", "ASSIGNED");
    expect(await test.webhook("uber", signed(body.replace('"ASSIGNED"', '"gone_fishing"')))).toBe(200);
    expect(await status(test)).toBe("READY_FOR_PICKUP");
  });

  it("has its effect once, however often and in whatever order it comes", async () => {
    await using test = await withDelivery();
    const told = (["ASSIGNED", "PICKED_UP", "ON_THE_WAY", "DELIVERED"] as const).map((at) => test.uber.move("o-1/1", at, { courier: kim }));
    const [assigned, pickedUp, onTheWay, delivered] = told as [SignedWebhook, SignedWebhook, SignedWebhook, SignedWebhook];
    for (const webhook of [pickedUp, pickedUp, assigned, delivered, onTheWay, ...told])
      expect(await test.webhook("uber", webhook)).toBe(200);
    await Promise.all([...told, ...told].map((webhook) => test.webhook("uber", webhook)));
    expect((await test.history("o-1")).slice(5)).toEqual([
      "DeliveryRequested",
      "DeliveryAccepted",
      "DriverAssigned",
      "DriverPickupCompleted",
      "TransitStarted",
      "OrderDelivered",
      "CourierReportRecorded",
    ]);
  });

  it("that comes late names no courier in place of the newer one", async () => {
    await using test = await withDelivery();
    const told = (name: string, seconds: number) => {
      const at = new Date(Date.UTC(2026, 0, 1) + seconds * 1000).toISOString();
      return test.uber.move("o-1/1", "ASSIGNED", { courier: { ...kim, name }, at });
    };
    for (const webhook of [told("Robin", 0), told("Alex", 60), told("Robin", 10)]) expect(await test.webhook("uber", webhook)).toBe(200);
    const { body } = await test.app.rest(CHECKOUT, "GET", "/orders/tracking/o-1");
    expect(body.driver_details.name).toBe("Alex");
    expect(await test.webhook("uber", told("Kim", 60))).toBe(200);
    expect((await test.app.rest(CHECKOUT, "GET", "/orders/tracking/o-1")).body.driver_details.name).toBe("Kim");
  });

  it("finds the order by the provider's identifier when it does not name it", async () => {
    await using test = await withDelivery();
    const webhook = test.uber.move("o-1/1", "PICKED_UP", { tellsKey: false });
    // The read model may be a moment behind; the provider would send again, or be asked.
    await eventually(async () => {
      expect(
        await test.webhook("uber", { ...webhook, ...signed(webhook.body.replace(/report-uber-\d+/, `report-${Math.random()}`)) }),
      ).toBe(200);
      expect(await status(test)).toBe("DRIVER_PICKUP_COMPLETE");
    });
  });

  it("of a courier who gives up takes the driver off and asks the next provider; after pickup the goods come back", async () => {
    await using test = await withDelivery();
    await test.webhook("uber", test.uber.move("o-1/1", "ASSIGNED", { courier: kim }));
    expect(await status(test)).toBe("DRIVER_ASSIGNED");
    await test.webhook("uber", test.uber.move("o-1/1", "CANCELLED", { endReason: "courier_gave_up" }));
    await eventually(async () => {
      const { body } = await test.app.rest(CHECKOUT, "GET", "/orders/tracking/o-1");
      expect(body).toMatchObject({
        current_status: "READY_FOR_PICKUP",
        delivery_provider: "DOORDASH",
        delivery: { attempt: 2, state: "ACCEPTED" },
      });
      expect(body.driver_details).toBeUndefined();
    });
    // What the first courier still tells is of a request that is over.
    await test.webhook("uber", test.uber.move("o-1/1", "DELIVERED", { courier: kim }));
    expect(await status(test)).toBe("READY_FOR_PICKUP");
    await test.webhook("doordash", test.doordash.move("o-1/2", "PICKED_UP", { courier: { ...kim, driverId: "lee-1" } }));
    await test.webhook("doordash", test.doordash.move("o-1/2", "CANCELLED", { endReason: "failed_to_deliver" }));
    expect(await status(test)).toBe("RETURNING");
    await test.webhook("doordash", test.doordash.move("o-1/2", "RETURNED"));
    expect(await status(test)).toBe("RETURNING");
    const again = await test.app.rest(CLERK, "POST", "/orders/tracking/o-1/delivery", { delivery_provider: "UBER" });
    expect(again.body.order.delivery).toMatchObject({ attempt: 3, state: "ACCEPTED" });
  });

  it("that is not signed ends a delivery only when the provider confirms it", async () => {
    await using test = await withDelivery("o-1", "DOORDASH");
    await test.webhook("doordash", test.doordash.move("o-1/1", "PICKED_UP", { courier: kim }));
    const ended = test.doordash.move("o-1/1", "DELIVERED");
    test.doordash.move("o-1/1", "ON_THE_WAY");
    expect(await test.webhook("doordash", ended)).toBe(200);
    expect(await status(test)).toBe("IN_TRANSIT");
    const truly = test.doordash.move("o-1/1", "DELIVERED");
    test.doordash.fail("get", { answer: 503, code: "service_fault" });
    expect(await test.webhook("doordash", truly)).toBe(503);
    test.doordash.heal();
    expect(await test.webhook("doordash", truly)).toBe(200);
    expect(await status(test)).toBe("DELIVERED");
  });

  it("that is faster than the provider's answer is taken for it", async () => {
    await using test = await startDelivering();
    await test.order("o-1");
    test.uber.fail("create", "lose", 1);
    const body = { policy: "PREFERENCE", preferred_providers: ["UBER", "DOORDASH"] };
    const requesting = test.app.rest(CLERK, "POST", "/orders/tracking/o-1/delivery", body);
    await eventually(() => expect(test.uber.deliveries.size).toBe(1));
    expect(await test.webhook("uber", test.uber.move("o-1/1", "ASSIGNED", { courier: kim }))).toBe(200);
    expect((await requesting).body.order).toMatchObject({ current_status: "DRIVER_ASSIGNED", delivery: { state: "ACCEPTED", attempt: 1 } });
    expect(test.doordash.deliveries.size).toBe(0);
  });
});
