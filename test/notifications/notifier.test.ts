import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { loadConfig } from "../../src/config.ts";
import { startNatsServer } from "../../src/embedded/nats-server.ts";
import { NotificationChannel } from "../../src/gen/ordertrail/events/v1/notification_events_pb.js";
import { OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { NotificationStatus } from "../../src/gen/ordertrail/v1/notification_pb.js";
import { NotificationService } from "../../src/gen/ordertrail/v1/notification_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { createOutbox } from "../../src/sandbox/outbox.ts";
import { startWhatsAppSandbox } from "../../src/sandbox/whatsapp-sandbox.ts";
import { startTestApp } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const SERVICE = { role: Role.SERVICE, subject: "checkout" };
const CUSTOMER = { role: Role.CUSTOMER, subject: "ada" };

describe("a customer who has opted in to WhatsApp", () => {
  it("is told of their order there, and sees it in the app and in a trace", async () => {
    await using folder = await temporaryFolder();
    const nats = await startNatsServer({ dataDir: folder.path });
    await using parts = new AsyncDisposableStack();
    parts.defer(() => nats.stop());
    const outbox = createOutbox();
    await using meta = await startWhatsAppSandbox({ outbox });
    await using app = await startTestApp({
      NATS_URL: nats.url,
      ROLES: "api,projector,relay,notifier",
      META_BASE_URL: meta.settings.baseUrl,
      META_API_KEY: meta.settings.accessToken,
      META_PHONE_NUMBER_ID: meta.settings.phoneNumberId,
      META_APP_SECRET: meta.settings.appSecret,
      META_VERIFY_TOKEN: meta.settings.verifyToken,
    });
    expect(loadConfig({}).roles).toContain("notifier");
    const customer = app.client(NotificationService, "connect", CUSTOMER);
    const { preferences } = await customer.optInWhatsApp({ phone: "+49 1512 3456789", source: "checkout", wording: "Yes, by WhatsApp" });
    expect(preferences).toMatchObject({ whatsappOptedIn: true, phone: "+4915123456789" });
    const orders = app.client(OrderTrackingService, "grpc", SERVICE);
    await orders.initTracking({ orderId: "o-1", storeId: "s-1", customerId: "ada", recipient: { name: "Ada Lovelace" } });
    await eventually(() => expect(outbox.all()).toHaveLength(1));
    expect(outbox.all()[0]).toMatchObject({ channel: "whatsapp", to: "+4915123456789" });
    const { traces } = await customer.explainNotifications({ orderId: "o-1" });
    expect(traces.map(({ notification }) => notification?.channel)).toEqual([NotificationChannel.WHATSAPP, NotificationChannel.IN_APP]);
    await eventually(async () => {
      const { notifications } = await customer.listNotifications({});
      expect(notifications.map(({ status }) => status)).toEqual([NotificationStatus.ACCEPTED, NotificationStatus.ACCEPTED]);
    });
    await orders.updateStatus({ orderId: "o-1", status: OrderStatus.STORE_NOTIFIED });
    await pause(50);
    expect(outbox.all()).toHaveLength(1);
  });
});
