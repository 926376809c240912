import { randomUUID } from "node:crypto";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { describe, expect, inject, it } from "vitest";
import { evolveNotifications, type NotificationsState, notificationStream } from "../../src/domain/notifications.ts";
import { happened } from "../../src/domain/order-event.ts";
import {
  NotificationAudience,
  NotificationCategory,
  NotificationChannel,
  NotificationPriority,
} from "../../src/gen/ordertrail/events/v1/notification_events_pb.js";
import { Door, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { NotificationStatus } from "../../src/gen/ordertrail/v1/notification_pb.js";
import { NotificationService } from "../../src/gen/ordertrail/v1/notification_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { createTransactor } from "../../src/log/transact.ts";
import { createUnchangedCommands } from "../../src/log/unchanged-commands.ts";
import { eventually } from "../support/eventually.ts";
import { openLog } from "../support/open-log.ts";
import { control, startNotifying } from "./notifying.ts";

const SERVICE = { role: Role.SERVICE, subject: "checkout" };
const ORDERS = 40;

describe("attempts of a process that has died, whose provider cannot be asked", () => {
  it("hold up no message of others that is to be tried again", { timeout: 90_000 }, async () => {
    await using parts = await startNotifying({ NOTIFY_ANSWER_MS: "3000" });
    const { app, outbox, sms, email } = parts;
    const notifications = app.client(NotificationService, "grpc", SERVICE);
    const orders = app.client(OrderTrackingService, "grpc", SERVICE);
    await notifications.updatePreferences({ customerId: "sam", channels: [NotificationChannel.SMS], phone: "+4915123456789" });
    await notifications.updatePreferences({ customerId: "ada", channels: [NotificationChannel.EMAIL], email: "ada@example.com" });
    await control(sms, "faults", { operation: "any", fault: "timeout", times: 10_000 });

    await using log = openLog(inject("mongodbUrl"), app.databaseName);
    const now = () => new Date();
    const states = createTransactor<NotificationsState>(
      { streamOf: notificationStream, evolve: evolveNotifications },
      log.appender,
      log.reader,
      createUnchangedCommands(log.db, now),
      { cachedStreams: 100, now },
    );
    for (let index = 0; index < ORDERS; index++) {
      const orderId = `left-${index}`;
      const { order } = await orders.initTracking({ orderId, storeId: "s", customerId: "nobody" });
      const messageId = `${order?.position}.customer.sms`;
      const plan = {
        ...{ messageId, position: order?.position ?? 0n, orderVersion: 1, eventType: "OrderSubmitted", orderId, recipientId: "sam" },
        ...{ audience: NotificationAudience.CUSTOMER, channel: NotificationChannel.SMS, category: NotificationCategory.ORDER_UPDATES },
        ...{ template: "order-received", priority: NotificationPriority.NORMAL, locale: "en" },
      };
      await states.transact(orderId, {
        ...{ method: "test", requestId: "", correlationId: randomUUID(), actor: SERVICE, door: Door.INTERNAL },
        decide: () => [
          happened({ case: "notificationPlanned", value: plan }),
          happened({
            case: "notificationAttempted",
            value: { messageId, attempt: 1, answerBy: timestampFromDate(new Date(Date.now() - 60_000)) },
          }),
        ],
      });
    }
    await control(email, "faults", { operation: "any", fault: 503, times: 1 });
    await orders.initTracking({ orderId: "mine", storeId: "s", customerId: "ada" });
    await eventually(async () => {
      const { traces } = await notifications.explainNotifications({ orderId: "mine" });
      expect(traces[0]?.notification?.status).toBe(NotificationStatus.DELIVERED);
    }, 30_000);
    expect(outbox.all().filter(({ channel }) => channel === "email")).toHaveLength(1);
  });
});
