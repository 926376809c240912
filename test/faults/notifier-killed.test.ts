import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, inject, it } from "vitest";
import { evolveNotifications, isOpen, type NotificationsState } from "../../src/domain/notifications.ts";
import { startNatsServer } from "../../src/embedded/nats-server.ts";
import { NotificationChannel } from "../../src/gen/ordertrail/events/v1/notification_events_pb.js";
import { OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { NotificationService } from "../../src/gen/ordertrail/v1/notification_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { createOutbox } from "../../src/sandbox/outbox.ts";
import { startWhatsAppSandbox } from "../../src/sandbox/whatsapp-sandbox.ts";
import { startTestApp } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { openLog } from "../support/open-log.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { COUNTS } from "./counts.ts";
import { createRandom } from "./random.ts";
import { startServerProcesses } from "./server-processes.ts";

const SERVICE = { role: Role.SERVICE, subject: "checkout" };
const CUSTOMERS = 8;
const ORDERS_A_ROUND = 12;
const ANSWER_MS = 1000;
/** After this time, and the time that a provider has, others know that whoever made an attempt has died. */
const SETTLE_MS = 60_000;

describe(`two notifiers, one of them killed ${COUNTS.notifierKills} times under load (seed ${COUNTS.seed})`, () => {
  it("plan every message once, and have each taken once, or at most once where nobody knows", {
    timeout: 120_000 + COUNTS.notifierKills * 10_000,
  }, async () => {
    await using parts = new AsyncDisposableStack();
    const folder = parts.use(await temporaryFolder());
    const nats = await startNatsServer({ dataDir: folder.path });
    parts.defer(() => nats.stop());
    const outbox = createOutbox(100_000);
    const meta = parts.use(await startWhatsAppSandbox({ outbox }));
    const app = parts.use(await startTestApp({ NATS_URL: nats.url }));
    const random = createRandom(COUNTS.seed);
    const environment = {
      ...{ MONGODB_URL: inject("mongodbUrl"), DATABASE_NAME: app.databaseName, DATA_DIR: app.dataDir, NATS_URL: nats.url },
      ...{ ROLES: "notifier", NOTIFY_ANSWER_MS: String(ANSWER_MS), NOTIFY_PER_MINUTE: "1000" },
      ...{ META_BASE_URL: meta.settings.baseUrl, META_API_KEY: meta.settings.accessToken, META_VERIFY_TOKEN: meta.settings.verifyToken },
      ...{ META_PHONE_NUMBER_ID: meta.settings.phoneNumberId, META_APP_SECRET: meta.settings.appSecret, NOTIFY_GATHER_SECONDS: "0" },
    };
    const notifications = app.client(NotificationService, "grpc", SERVICE);
    const orders = app.client(OrderTrackingService, "grpc", SERVICE);
    for (let index = 0; index < CUSTOMERS; index++)
      await notifications.optInWhatsApp({ customerId: `c-${index}`, phone: `+49151234567${10 + index}`, source: "test", wording: "Yes" });

    const processes = parts.use(await startServerProcesses(2, environment));
    let submitted = 0;
    async function submit(): Promise<void> {
      await Promise.all(
        Array.from({ length: ORDERS_A_ROUND }, async () => {
          const orderId = `o-${submitted++}`;
          await orders.initTracking({ orderId, storeId: "s", customerId: `c-${random(CUSTOMERS)}` });
          await orders.updateStatus({ orderId, status: OrderStatus.STORE_NOTIFIED });
          await orders.updateStatus({ orderId, status: OrderStatus.STORE_ACKNOWLEDGED });
        }),
      );
    }
    for (let kill = 0; kill < COUNTS.notifierKills; kill++) {
      const load = submit();
      await pause(random(400));
      await processes.restart(random(2), "SIGKILL");
      await load;
    }

    await using log = openLog(inject("mongodbUrl"), app.databaseName);
    async function states(): Promise<Map<string, NotificationsState>> {
      const found = new Map<string, NotificationsState>();
      for await (const entries of log.reader.readForward({ after: 0 }))
        for (const { entry } of entries) {
          if (!entry.stream.startsWith("notification-")) continue;
          for (const event of entry.events)
            found.set(entry.stream, evolveNotifications(found.get(entry.stream), event, { recordedAt: new Date(0) }));
        }
      return found;
    }
    const settled = await eventually(async () => {
      const found = await states();
      expect(found.size).toBe(submitted);
      const open = [...found.values()].flatMap(({ messages }) => [...messages.values()]).filter(isOpen);
      expect(open.map(({ plan, status }) => `${plan.messageId} ${status}`)).toEqual([]);
      for (const { messages } of found.values())
        expect([...messages.values()].filter(({ plan }) => plan.channel === NotificationChannel.WHATSAPP)).toHaveLength(2);
      return found;
    }, SETTLE_MS);

    const taken = Map.groupBy(outbox.all(), ({ reference }) => reference);
    let unknown = 0;
    for (const { messages } of settled.values()) {
      for (const [messageId, { plan, status }] of messages) {
        if (plan.channel !== NotificationChannel.WHATSAPP) continue;
        const times = taken.get(messageId)?.length ?? 0;
        if (status === "UNKNOWN") {
          unknown++;
          expect(times, messageId).toBeLessThanOrEqual(1);
        } else expect([status, times], messageId).toEqual(["ACCEPTED", 1]);
      }
    }
    process.stdout.write(`${submitted} orders, ${outbox.all().length} messages taken, ${unknown} unknown\n`);
  });
});
