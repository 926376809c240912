import { describe, expect, it } from "vitest";
import { CHECKOUT, CLERK, type Delivering, initOrder, startDelivering } from "../support/delivering.ts";
import { eventually } from "../support/eventually.ts";

const kim = { driverId: "kim-1", name: "Kim", phone: "+4930999999", vehicleType: "bicycle", photoUrl: "" };

describe("a delivery", () => {
  it("goes from quote to doorstep", async () => {
    await using test = await startDelivering();
    const { app, uber } = test;
    uber.terms = { fee: 400, minutes: 40 };
    await test.order("o-1");
    const quotes = await app.rest(CLERK, "POST", "/orders/tracking/o-1/delivery/quotes", {});
    expect(quotes.body.quotes).toMatchObject([
      { delivery_provider: "UBER", fee: { amount_minor: "400", currency: "EUR" } },
      { delivery_provider: "DOORDASH", fee: { amount_minor: "500" } },
    ]);
    const requested = await app.rest(CLERK, "POST", "/orders/tracking/o-1/delivery", { policy: "CHEAPEST", request_id: "r-1" });
    expect(requested.body).toMatchObject({
      order: {
        delivery_provider: "UBER",
        current_status: "READY_FOR_PICKUP",
        delivery: {
          provider_delivery_id: "uber-1",
          state: "ACCEPTED",
          attempt: 1,
          fee: { amount_minor: "520" },
          tracking_url: "https://track.example/uber-1",
        },
      },
    });
    const point = { latitude: 52.51, longitude: 13.41, recordedAt: new Date().toISOString() };
    for (const [status, expected] of [
      ["ASSIGNED", "DRIVER_ASSIGNED"],
      ["AT_STORE", "DRIVER_ASSIGNED"],
      ["PICKED_UP", "DRIVER_PICKUP_COMPLETE"],
      ["ON_THE_WAY", "IN_TRANSIT"],
      ["ARRIVED", "IN_TRANSIT"],
      ["DELIVERED", "DELIVERED"],
    ] as const) {
      expect(await test.webhook("uber", uber.move("o-1/1", status, { courier: kim, point }))).toBe(200);
      const { body } = await app.rest(CHECKOUT, "GET", "/orders/tracking/o-1");
      expect(body).toMatchObject({ current_status: expected, driver_details: { driver_id: "kim-1", name: "Kim" } });
      if (expected === "IN_TRANSIT") expect(body.driver_location).toMatchObject({ latitude: 52.51 });
    }
    expect(await test.history("o-1")).toEqual([
      "OrderSubmitted",
      "StoreNotified",
      "StoreAcknowledged",
      "PickingStarted",
      "OrderReadied",
      "DeliveryRequested",
      "DeliveryAccepted",
      "DriverAssigned",
      "DriverPickupCompleted",
      "TransitStarted",
      "OrderDelivered",
    ]);
    const { body } = await app.rest(CLERK, "GET", "/orders/tracking/o-1/delivery");
    expect(body).toMatchObject({
      delivery_provider: "UBER",
      state: "ENDED",
      quoted_fee: { amount_minor: "400" },
      alternatives: ["DOORDASH"],
    });
  });
});

describe("a request for a courier", () => {
  const request = async (test: Delivering, orderId: string, body: object = {}) =>
    await test.app.rest(CLERK, "POST", `/orders/tracking/${orderId}/delivery`, body);
  const seen = async (test: Delivering, orderId: string) =>
    (await test.app.rest(CLERK, "GET", `/orders/tracking/${orderId}/delivery`)).body;

  it("goes to the cheapest, the fastest, the preferred, or the one that is named", async () => {
    await using test = await startDelivering();
    test.uber.terms = { fee: 900, minutes: 20 };
    test.doordash.terms = { fee: 300, minutes: 50 };
    for (const [orderId, body, provider, alternatives] of [
      ["o-1", {}, "DOORDASH", ["UBER"]],
      ["o-2", { policy: "FASTEST" }, "UBER", ["DOORDASH"]],
      ["o-3", { policy: "PREFERENCE", preferred_providers: ["UBER", "DOORDASH"] }, "UBER", ["DOORDASH"]],
      ["o-4", { delivery_provider: "UBER" }, "UBER", []],
      ["o-5", { policy: "CHEAPEST", preferred_providers: ["UBER"] }, "UBER", []],
    ] as const) {
      await test.order(orderId, "STORE_ACKNOWLEDGED");
      expect((await request(test, orderId, body)).status, orderId).toBe(200);
      expect(await seen(test, orderId)).toMatchObject({ delivery_provider: provider, state: "ACCEPTED", alternatives });
    }
  });

  it("goes on to the next provider when one refuses, is down, or does not answer; what is left unanswered is called off", async () => {
    await using test = await startDelivering();
    const { uber, doordash } = test;
    uber.terms.fee = 100;
    uber.fail("create", { answer: 400, code: "address_undeliverable" }, 1);
    await test.order("o-1");
    expect((await request(test, "o-1")).body.order).toMatchObject({
      delivery_provider: "DOORDASH",
      delivery: { attempt: 2, state: "ACCEPTED" },
    });
    uber.fail("create", { answer: 503, code: "couriers_busy" }, 1);
    await test.order("o-2");
    expect((await request(test, "o-2")).body.order).toMatchObject({ delivery_provider: "DOORDASH", delivery: { attempt: 2 } });
    // It takes the delivery on, and never says so.
    uber.fail("create", "lose", 1);
    await test.order("o-3");
    expect((await request(test, "o-3")).body.order).toMatchObject({
      delivery_provider: "DOORDASH",
      delivery: { attempt: 2, state: "ACCEPTED" },
    });
    expect(await test.history("o-3")).toEqual(expect.arrayContaining(["DeliveryRequested", "DeliveryDeclined", "DeliveryAccepted"]));
    await eventually(async () => expect((await test.history("o-3")).at(-1)).toBe("DeliveryCalledOff"));
    expect(uber.deliveries.get("o-3/1")).toMatchObject({ status: "CANCELLED" });
    expect(doordash.deliveries.get("o-3/2")).toMatchObject({ status: "REQUESTED" });
    expect(await seen(test, "o-3")).toMatchObject({ delivery_provider: "DOORDASH", state: "ACCEPTED" });
  });

  it("skips who gives no quote, and says why when nobody delivers", async () => {
    await using test = await startDelivering();
    test.uber.fail("quote", { answer: 400, code: "address_undeliverable" });
    test.doordash.fail("quote", "hang");
    await test.order("o-1");
    const quoted = await test.app.rest(CLERK, "POST", "/orders/tracking/o-1/delivery/quotes", {});
    expect(quoted.body.quotes).toMatchObject([
      { delivery_provider: "UBER", reason: "address_undeliverable", retryable: false },
      { delivery_provider: "DOORDASH", reason: "timeout", retryable: true },
    ]);
    test.doordash.fail("quote", { answer: 400, code: "distance_too_long" });
    expect(await request(test, "o-1")).toMatchObject({
      status: 409,
      body: { code: "NO_PROVIDER_AVAILABLE", detail: expect.stringContaining("UBER: address_undeliverable, DOORDASH: distance_too_long") },
    });
    expect((await test.history("o-1")).at(-1)).toBe("OrderReadied");
  });

  it("is made once: sent again, at the same time, and beside another", async () => {
    await using test = await startDelivering();
    await test.order("o-1");
    const answers = await Promise.all(Array.from({ length: 5 }, () => request(test, "o-1", { request_id: "r-1" })));
    expect(answers.map(({ status }) => status)).toEqual(Array(5).fill(200));
    expect((await request(test, "o-1", { request_id: "r-1" })).status).toBe(200);
    expect((await request(test, "o-1")).status).toBe(200);
    expect((await test.history("o-1")).filter((type) => type.startsWith("Delivery"))).toEqual(["DeliveryRequested", "DeliveryAccepted"]);
    expect(test.uber.deliveries.size + test.doordash.deliveries.size).toBe(1);
    expect(await request(test, "o-1", { delivery_provider: "DOORDASH" })).toMatchObject({
      status: 409,
      body: { code: "DELIVERY_UNDER_WAY" },
    });
    expect(await test.app.rest(CHECKOUT, "POST", "/orders/tracking/o-1/cancel", { reason: "x", request_id: "r-1" })).toMatchObject({
      body: { code: "REQUEST_ID_REUSED" },
    });
  });

  it("says what the store or the order lacks", async () => {
    await using test = await startDelivering();
    await initOrder(test.app, "o-1", { store_id: "store-9" });
    const unknown = await test.app.rest(CHECKOUT, "POST", "/orders/tracking/o-1/delivery", {});
    expect(unknown).toMatchObject({ status: 409, body: { code: "STORE_NOT_CONFIGURED", detail: expect.stringContaining("PutStore") } });
    await initOrder(test.app, "o-2", { recipient: { name: "Ada" } });
    const incomplete = await test.app.rest(CHECKOUT, "POST", "/orders/tracking/o-2/delivery", {});
    expect(incomplete).toMatchObject({
      status: 409,
      body: { code: "RECIPIENT_INCOMPLETE", detail: expect.stringContaining("phone, address") },
    });
    await test.order("o-3");
    expect(await request(test, "o-3", { delivery_provider: "IN_HOUSE" })).toMatchObject({
      status: 409,
      body: { code: "PROVIDER_NOT_ENABLED" },
    });
    expect(await test.app.rest(CLERK, "GET", "/orders/tracking/o-3/delivery")).toMatchObject({ body: { code: "DELIVERY_NOT_REQUESTED" } });
    for (const body of [{ policy: "PREFERENCE" }, { policy: "FASTEST", delivery_provider: "UBER" }])
      expect(await request(test, "o-3", body)).toMatchObject({ status: 400, body: { code: "VALIDATION_FAILED" } });
  });

  it("stands while the only provider is down, and is made when that is back", async () => {
    await using test = await startDelivering();
    await test.order("o-1");
    test.uber.fail("create", "reset");
    const { body } = await request(test, "o-1", { delivery_provider: "UBER" });
    expect(body.order).toMatchObject({ delivery_provider: "UBER", delivery: { state: "REQUESTED", attempt: 1 } });
    test.uber.heal();
    expect((await test.app.rest(CLERK, "GET", "/orders/tracking/o-1/delivery?refresh=true")).body).toMatchObject({ state: "ACCEPTED" });
    expect(test.uber.deliveries.size).toBe(1);
  });

  it("is given up when the only provider stays down", async () => {
    await using test = await startDelivering({ DELIVERY_GIVE_UP_SECONDS: "0" });
    await test.order("o-1");
    test.uber.fail("create", { answer: 503, code: "service_unavailable" });
    await request(test, "o-1", { delivery_provider: "UBER" });
    expect(await seen(test, "o-1")).toMatchObject({ state: "DECLINED", reason: "service_unavailable", attempt: 1 });
    test.uber.heal();
    await request(test, "o-1", { delivery_provider: "UBER" });
    expect(await seen(test, "o-1")).toMatchObject({ state: "ACCEPTED", attempt: 2 });
  });

  it("is cancelled with the provider first, which may refuse", async () => {
    await using test = await startDelivering();
    const cancel = (orderId: string, body: object = {}) =>
      test.app.rest(CLERK, "POST", `/orders/tracking/${orderId}/delivery/cancel`, body);
    await test.order("o-1");
    expect(await cancel("o-1")).toMatchObject({ status: 409, body: { code: "DELIVERY_NOT_REQUESTED" } });
    await request(test, "o-1", { delivery_provider: "UBER" });
    await test.webhook("uber", test.uber.move("o-1/1", "ASSIGNED", { courier: kim }));
    const { body } = await cancel("o-1", { request_id: "c-1" });
    expect(body.order).toMatchObject({ current_status: "READY_FOR_PICKUP", delivery: { state: "CALLED_OFF" } });
    expect(body.order.driver_details).toBeUndefined();
    expect(body.order.delivery_provider).toBeUndefined();
    expect(test.uber.deliveries.get("o-1/1")).toMatchObject({ status: "CANCELLED" });
    // The provider's own report of it, and the same command again, change nothing; a new request is another delivery.
    expect(await test.webhook("uber", test.uber.move("o-1/1", "CANCELLED"))).toBe(200);
    await request(test, "o-1", { delivery_provider: "UBER" });
    expect((await cancel("o-1", { request_id: "c-1" })).body.order.delivery).toMatchObject({ state: "ACCEPTED", attempt: 2 });
    await test.webhook("uber", test.uber.move("o-1/2", "PICKED_UP", { courier: kim }));
    expect(await cancel("o-1")).toMatchObject({
      status: 409,
      body: { code: "DELIVERY_NOT_CANCELLABLE", detail: expect.stringContaining("noncancelable_delivery") },
    });
    expect(await seen(test, "o-1")).toMatchObject({ state: "ACCEPTED" });
  });

  it("stays cancelled when the provider does so, and its own report of it comes first", async () => {
    await using test = await startDelivering();
    await test.order("o-1");
    await request(test, "o-1", { policy: "PREFERENCE", preferred_providers: ["UBER", "DOORDASH"] });
    test.uber.fail("cancel", "lose");
    expect((await test.app.rest(CLERK, "POST", "/orders/tracking/o-1/delivery/cancel", {})).status).toBe(503);
    await test.webhook("uber", test.uber.move("o-1/1", "CANCELLED"));
    expect(await seen(test, "o-1")).toMatchObject({ delivery_provider: "UBER", attempt: 1, state: "CALLED_OFF" });
    expect(test.doordash.deliveries.size).toBe(0);
  });

  it("is called off when the order is", async () => {
    await using test = await startDelivering();
    await test.order("o-1");
    await request(test, "o-1", { delivery_provider: "UBER" });
    await test.app.rest(CHECKOUT, "POST", "/orders/tracking/o-1/cancel", { reason: "closed early" });
    await eventually(async () => expect((await test.history("o-1")).at(-1)).toBe("DeliveryCalledOff"));
    expect(test.uber.deliveries.get("o-1/1")).toMatchObject({ status: "CANCELLED" });
  });
});
