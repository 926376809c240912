import { describe, expect, it } from "vitest";
import { CHECKOUT, CLERK, type Delivering, startDelivering } from "../support/delivering.ts";
import { eventually } from "../support/eventually.ts";

const kim = { driverId: "kim-1", name: "Kim", phone: "+4930999999", vehicleType: "bicycle", photoUrl: "" };

const request = async ({ app }: Delivering, body: object) => await app.rest(CLERK, "POST", "/orders/tracking/o-1/delivery", body);
const order = async ({ app }: Delivering) => (await app.rest(CHECKOUT, "GET", "/orders/tracking/o-1")).body;

async function assignOwn({ app }: Delivering): Promise<void> {
  const { status } = await app.rest(CHECKOUT, "PUT", "/orders/tracking/o-1/driver", { driver_details: { driver_id: "own-1" } });
  expect(status).toBe(200);
}

async function move({ app }: Delivering, ...statuses: readonly string[]): Promise<void> {
  for (const status of statuses) expect((await app.rest(CHECKOUT, "PUT", "/orders/tracking/o-1/status", { status })).status).toBe(200);
}

describe("an order whose driver was assigned by hand after a courier was requested", () => {
  it("is moved by nothing that the courier does, who is called off", async () => {
    await using test = await startDelivering();
    await test.order("o-1");
    await request(test, { delivery_provider: "UBER" });
    test.uber.fail("cancel", { answer: 503, code: "down" });
    await assignOwn(test);
    for (const status of ["ASSIGNED", "PICKED_UP", "DELIVERED"] as const)
      expect(await test.webhook("uber", test.uber.move("o-1/1", status, { courier: kim }))).toBe(200);
    expect(await order(test)).toMatchObject({ current_status: "DRIVER_ASSIGNED", driver_details: { driver_id: "own-1" } });
    test.uber.move("o-1/1", "ASSIGNED");
    test.uber.heal();
    await eventually(async () => expect((await test.history("o-1")).at(-1)).toBe("DeliveryCalledOff"), 20_000);
    expect(test.uber.deliveries.get("o-1/1")).toMatchObject({ status: "CANCELLED" });
    await move(test, "DRIVER_PICKUP_COMPLETE", "IN_TRANSIT", "DELIVERED");
  });

  it("does not come back when the courier gives up", async () => {
    await using test = await startDelivering();
    await test.order("o-1");
    await request(test, { policy: "PREFERENCE", preferred_providers: ["UBER", "DOORDASH"] });
    test.uber.fail("cancel", { answer: 503, code: "down" });
    await assignOwn(test);
    await move(test, "DRIVER_PICKUP_COMPLETE", "IN_TRANSIT");
    await test.webhook("uber", test.uber.move("o-1/1", "CANCELLED", { endReason: "no_couriers" }));
    expect(await order(test)).toMatchObject({ current_status: "IN_TRANSIT", driver_details: { driver_id: "own-1" } });
    expect((await test.history("o-1")).at(-1)).toBe("DeliveryDeclined");
    expect(test.doordash.deliveries.size).toBe(0);
    await move(test, "DELIVERED");
  });
});

describe("an order whose driver was booked by hand before a courier was requested", () => {
  it("keeps that driver until a courier is named, who then brings it", async () => {
    await using test = await startDelivering();
    await test.order("o-1", "STORE_ACKNOWLEDGED");
    await assignOwn(test);
    await request(test, { delivery_provider: "UBER" });
    await move(test, "PICKING_IN_PROGRESS", "READY_FOR_PICKUP");
    await test.app.rest(CLERK, "GET", "/orders/tracking/o-1/delivery?refresh=true");
    expect(await order(test)).toMatchObject({ current_status: "DRIVER_ASSIGNED", driver_details: { driver_id: "own-1" } });
    await test.webhook("uber", test.uber.move("o-1/1", "ASSIGNED", { courier: kim }));
    expect(await order(test)).toMatchObject({ current_status: "DRIVER_ASSIGNED", driver_details: { driver_id: "kim-1" } });
    await test.webhook("uber", test.uber.move("o-1/1", "DELIVERED"));
    expect(await order(test)).toMatchObject({ current_status: "DELIVERED" });
  });
});

describe("a provider that is down", () => {
  it("does not keep another from being told that the order is called off", async () => {
    await using test = await startDelivering();
    await test.order("o-1");
    test.uber.fail("create", "hang");
    const { body } = await request(test, { policy: "PREFERENCE", preferred_providers: ["UBER", "DOORDASH"] });
    expect(body.order.delivery).toMatchObject({ attempt: 2, state: "ACCEPTED" });
    await test.app.rest(CHECKOUT, "POST", "/orders/tracking/o-1/cancel", { reason: "closed" });
    await eventually(() => expect(test.doordash.deliveries.get("o-1/2")).toMatchObject({ status: "CANCELLED" }), 20_000);
    expect(test.uber.deliveries.size).toBe(0);
  });
});
