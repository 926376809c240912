import { describe, expect, it } from "vitest";
import { ConsentSource } from "../../src/gen/ordertrail/events/v1/customer_events_pb.js";
import { NotificationChannel, NotificationReason } from "../../src/gen/ordertrail/events/v1/notification_events_pb.js";
import { OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { NotificationStatus } from "../../src/gen/ordertrail/v1/notification_pb.js";
import { NotificationService } from "../../src/gen/ordertrail/v1/notification_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import type { TestApp } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { control, startNotifying } from "./notifying.ts";

const SERVICE = { role: Role.SERVICE, subject: "checkout" };
const OPERATOR = { role: Role.OPERATOR, subject: "operator-1" };
const ADA = { role: Role.CUSTOMER, subject: "ada" };
const BOB = { role: Role.CUSTOMER, subject: "bob" };
const { EMAIL, SMS, IN_APP } = NotificationChannel;
const PHONE = "+4915123456789";

const customer = (app: TestApp) => app.client(NotificationService, "connect", ADA);
const submit = (app: TestApp, orderId: string) =>
  app.client(OrderTrackingService, "grpc", SERVICE).initTracking({ orderId, storeId: "s", customerId: "ada" });
/** How the messages of an order stand, by channel. */
async function statuses(app: TestApp, orderId: string) {
  const { traces } = await customer(app).explainNotifications({ orderId });
  return traces.map(({ notification }) => [notification?.channel, notification?.status]);
}

describe("a customer", () => {
  it("is written to by the channel that they like best, and hears of what became of it", async () => {
    await using parts = await startNotifying();
    const { app, outbox } = parts;
    await customer(app).updatePreferences({ channels: [EMAIL, SMS], email: "ada@example.com", phone: PHONE, locale: "es" });
    await submit(app, "o-1");
    await eventually(async () =>
      expect(await statuses(app, "o-1")).toEqual([
        [EMAIL, NotificationStatus.DELIVERED],
        [IN_APP, NotificationStatus.ACCEPTED],
      ]),
    );
    expect(outbox.all()).toHaveLength(1);
    expect(outbox.all()[0]).toMatchObject({ channel: "email", to: "ada@example.com", subject: expect.stringContaining("pedido") });
    await eventually(async () => {
      const { notifications } = await customer(app).listNotifications({ channel: EMAIL });
      expect(notifications).toMatchObject([{ orderId: "o-1", recipientId: "ada", status: NotificationStatus.DELIVERED }]);
    });
    await expect(app.client(NotificationService, "connect", BOB).explainNotifications({ orderId: "o-1" })).rejects.toThrow("not_found");
    expect((await app.client(NotificationService, "connect", BOB).listNotifications({})).notifications).toEqual([]);
  });

  it("is written to by the next channel when the first has definitely failed", async () => {
    await using parts = await startNotifying();
    const { app, outbox } = parts;
    await customer(app).updatePreferences({ channels: [SMS, EMAIL], email: "ada@example.com", phone: "+4915123450000" });
    await submit(app, "o-1");
    await eventually(() => expect(outbox.all().map(({ channel }) => channel)).toEqual(["email"]));
    const { traces } = await customer(app).explainNotifications({ orderId: "o-1" });
    const texts = traces.flatMap(({ steps }) => steps.map(({ text }) => text));
    expect(texts.join("\n")).toMatch(/\(21211\)[\s\S]*sms has failed: email is the next/);
  });

  it("is tried again when the provider may take it later, once", async () => {
    await using parts = await startNotifying();
    const { app, outbox, email } = parts;
    await customer(app).updatePreferences({ channels: [EMAIL], email: "ada@example.com" });
    await control(email, "faults", { operation: "any", fault: 503, times: 1 });
    await submit(app, "o-1");
    await eventually(async () => expect((await statuses(app, "o-1"))[0]).toEqual([EMAIL, NotificationStatus.DELIVERED]), 20_000);
    expect(outbox.all()).toHaveLength(1);
  });

  it("is not written to twice when an answer is lost: nobody knows, until the provider tells", async () => {
    await using parts = await startNotifying({ NOTIFY_ANSWER_MS: "500" });
    const { app, outbox, email } = parts;
    await customer(app).updatePreferences({ channels: [EMAIL], email: "ada@example.com" });
    await control(email, "webhook-faults", { fault: "drop", times: 2 });
    await control(email, "faults", { operation: "any", fault: "lose", times: 1 });
    await submit(app, "o-1");
    await eventually(async () => expect((await statuses(app, "o-1"))[0]).toEqual([EMAIL, NotificationStatus.UNKNOWN]));
    expect(outbox.all()).toHaveLength(1);
  });

  it("who writes STOP gets no SMS, and does again after START", async () => {
    await using parts = await startNotifying({ NOTIFY_PER_MINUTE: "100" });
    const { app, outbox, sms } = parts;
    await customer(app).updatePreferences({ channels: [SMS], phone: PHONE });
    const inbound = (body: string) => control(sms, "inbound", { from: PHONE, text: body });
    await inbound("Stop");
    const consent = async () => (await customer(app).getPreferences({})).preferences?.consents[0];
    await eventually(async () => expect(await consent()).toMatchObject({ channel: SMS, optedIn: false, source: ConsentSource.KEYWORD }));
    await submit(app, "o-1");
    await eventually(async () => expect(await statuses(app, "o-1")).toEqual([[IN_APP, NotificationStatus.ACCEPTED]]));
    expect(outbox.all()).toEqual([]);
    await inbound("START");
    await eventually(async () => expect((await consent())?.optedIn).toBe(true));
    await submit(app, "o-2");
    await eventually(() => expect(outbox.all().map(({ to }) => to)).toEqual([PHONE]));
  });

  it("who uses the link of an email gets none any more, and can come back", async () => {
    await using parts = await startNotifying({ NOTIFY_PER_MINUTE: "100" });
    const { app, outbox } = parts;
    const wishes = { channels: [EMAIL], email: "ada@example.com" };
    await customer(app).updatePreferences(wishes);
    await submit(app, "o-1");
    await eventually(() => expect(outbox.all()).toHaveLength(1));
    const [link = ""] = /http:\S+\/unsubscribe\/[\w/-]+/.exec(outbox.all()[0]?.text ?? "") ?? [];
    expect((await fetch(link)).status).toBe(200);
    expect((await customer(app).getPreferences({})).preferences?.consents).toEqual([]);
    expect((await fetch(`${link.slice(0, -3)}AAA`, { method: "POST" })).status).toBe(404);
    expect((await fetch(link, { method: "POST" })).status).toBe(200);
    await submit(app, "o-2");
    await eventually(async () => expect(await statuses(app, "o-2")).toEqual([[IN_APP, NotificationStatus.ACCEPTED]]));
    await customer(app).updatePreferences(wishes);
    await submit(app, "o-3");
    await eventually(() => expect(outbox.all()).toHaveLength(2));
  });

  it("gets one message of several that come in a minute, the newest", async () => {
    let at = new Date("2026-11-26T12:00:00Z");
    await using parts = await startNotifying({ NOTIFY_GATHER_SECONDS: "60" }, () => at);
    const { app, outbox } = parts;
    await customer(app).updatePreferences({ channels: [SMS], phone: PHONE });
    await submit(app, "o-1");
    await eventually(() => expect(outbox.all()).toHaveLength(1));
    const orders = app.client(OrderTrackingService, "grpc", SERVICE);
    for (const status of [
      OrderStatus.STORE_NOTIFIED,
      OrderStatus.STORE_ACKNOWLEDGED,
      OrderStatus.PICKING_IN_PROGRESS,
      OrderStatus.READY_FOR_PICKUP,
    ])
      await orders.updateStatus({ orderId: "o-1", status });
    await eventually(async () => {
      const { traces } = await customer(app).explainNotifications({ orderId: "o-1" });
      const texts = traces.filter(({ notification }) => notification?.channel === SMS);
      expect(texts.map(({ notification }) => [notification?.template, notification?.status, notification?.reason])).toEqual([
        ["order-received", expect.any(Number), NotificationReason.UNSPECIFIED],
        ["order-confirmed", NotificationStatus.SUPPRESSED, NotificationReason.MERGED],
        ["order-picking", NotificationStatus.SUPPRESSED, NotificationReason.MERGED],
        ["order-ready", NotificationStatus.WAITING, expect.any(Number)],
      ]);
    });
    at = new Date(at.getTime() + 120_000);
    await eventually(() => expect(outbox.all()).toHaveLength(2), 20_000);
  });

  it("sees messages in the app as they come, and goes on where they were", async () => {
    await using parts = await startNotifying();
    const { app } = parts;
    await submit(app, "o-1");
    await eventually(async () => expect((await customer(app).listNotifications({})).notifications).toHaveLength(1));
    const leave = new AbortController();
    const seen: [string | undefined, string | undefined][] = [];
    let position = 0n;
    const watching = (async () => {
      for await (const told of customer(app).watchNotifications({}, { signal: leave.signal })) {
        position = told.position;
        if (told.notification) seen.push([told.notification.orderId, told.notification.title]);
      }
    })().catch(() => undefined);
    await eventually(() => expect(seen.map(([orderId]) => orderId)).toEqual(["o-1"]));
    await submit(app, "o-2");
    await eventually(() => expect(seen.map(([orderId]) => orderId)).toEqual(["o-1", "o-2"]));
    expect(seen[1]?.[1]).not.toBe("");
    leave.abort();
    await watching;
    await submit(app, "o-3");
    const again = new AbortController();
    for await (const told of customer(app).watchNotifications({ afterPosition: position }, { signal: again.signal })) {
      if (!told.notification) continue;
      expect(told.notification.orderId).toBe("o-3");
      break;
    }
    again.abort();
  });

  it("finds in an export what they wish, agreed to and were told; forgotten, nothing of how they were reached", async () => {
    await using parts = await startNotifying();
    const { app, outbox } = parts;
    await customer(app).updatePreferences({ channels: [EMAIL], email: "ada@example.com", phone: PHONE });
    await submit(app, "o-1");
    await eventually(() => expect(outbox.all()).toHaveLength(1));
    const exported = async () => (await app.rest(OPERATOR, "GET", "/privacy/customers/ada/export")).body;
    expect(await exported()).toMatchObject({
      preferences: { email: "ada@example.com", phone: PHONE, channels: ["EMAIL"] },
      notifications: [{ channel: "EMAIL", template: "order-received" }, { channel: "IN_APP" }],
    });
    const { status } = await app.rest(OPERATOR, "POST", "/privacy/customers/ada/erase", { include_orders_under_way: true });
    expect(status).toBe(200);
    const { preferences } = await exported();
    expect(preferences).toMatchObject({ customer_id: "ada", channels: [] });
    expect(Object.keys(preferences)).not.toContain("email");
    expect(Object.keys(preferences)).not.toContain("phone");
    await expect(customer(app).updatePreferences({ email: "ada@example.com" })).rejects.toThrow("has been forgotten");
    const orders = app.client(OrderTrackingService, "grpc", SERVICE);
    await orders.cancelOrder({ orderId: "o-1", reason: "closed" });
    await eventually(async () => {
      const { traces } = await app.client(NotificationService, "grpc", SERVICE).explainNotifications({ orderId: "o-1" });
      expect(traces.at(-1)?.notification).toMatchObject({ status: NotificationStatus.SUPPRESSED, reason: NotificationReason.ERASED });
    });
    expect(outbox.all()).toHaveLength(1);
  });

  it("takes a device over from whose it was, and registers it as often as they like", async () => {
    await using parts = await startNotifying();
    const { app } = parts;
    const token = { token: "a-token-of-a-shared-device", platform: 1 };
    expect(await customer(app).registerPushToken(token)).toMatchObject({ takenOver: false });
    expect(await customer(app).registerPushToken(token)).toMatchObject({ takenOver: false });
    const bob = app.client(NotificationService, "connect", BOB);
    expect(await bob.registerPushToken(token)).toMatchObject({ takenOver: true });
    await eventually(async () => expect((await bob.getPreferences({})).preferences?.pushDevices).toHaveLength(1));
    expect((await customer(app).getPreferences({})).preferences?.pushDevices).toEqual([]);
    expect(await customer(app).unregisterPushToken(token)).toMatchObject({ removed: false });
    expect(await bob.unregisterPushToken(token)).toMatchObject({ removed: true });
  });
});
