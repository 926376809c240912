import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { notificationStream } from "../domain/notifications.ts";
import type { OrderState } from "../domain/order.ts";
import type { StoreState } from "../domain/store.ts";
import type { TemplateName } from "../domain/template-names.ts";
import { NotificationAudience, NotificationChannel, type NotificationPlanned } from "../gen/ordertrail/events/v1/notification_events_pb.js";
import { type NotificationSchema, NotificationStatus } from "../gen/ordertrail/v1/notification_pb.js";
import type { WatchNotificationsResponseSchema } from "../gen/ordertrail/v1/notification_service_pb.js";
import type { LogReader } from "../log/reader.ts";
import type { Transactor } from "../log/transact.ts";
import { messageVariables } from "../notifications/message-content.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import type { NotificationLogs } from "../projections/notification-logs.ts";
import { renderInApp } from "../templates/render.ts";
import type { Call } from "./call.ts";

type Told = MessageInitShape<typeof WatchNotificationsResponseSchema>;

/** A customer's messages, as their app shows them. */
export type WatchNotifications = {
  /** Those after a position of the log, then each as it comes; with position 0 the last few first. Throws the call's reason at its end. */
  open(customerId: string, afterPosition: number, call: Call): AsyncGenerator<Told, void, undefined>;
};

export type WatchNotificationsOptions = {
  readonly reader: Pick<LogReader, "head" | "follow">;
  readonly logs: Pick<NotificationLogs, "list">;
  readonly orders: Pick<Transactor<OrderState>, "read">;
  readonly stores: Pick<Transactor<StoreState>, "read">;
  readonly keys: PersonalKeys;
  readonly heartbeatMs: number;
  readonly defaultTimeZone: string;
  readonly now: () => Date;
};

const RECENT = 20;
const RECENT_MS = 7 * 24 * 3_600_000;
const { IN_APP } = NotificationChannel;

/** What is told of one message. */
type Shown = Pick<
  NotificationPlanned,
  "messageId" | "orderId" | "recipientId" | "category" | "template" | "locale" | "eventType" | "position"
>;

export function createWatchNotifications(options: WatchNotificationsOptions): WatchNotifications {
  const { reader, logs, orders, stores, keys, heartbeatMs, defaultTimeZone, now } = options;

  async function show(plan: Shown, at: Date): Promise<MessageInitShape<typeof NotificationSchema>> {
    const order = await orders.read(plan.orderId);
    const store = order && (await stores.read(order.state.storeId))?.state;
    const timeZone = store?.profile?.timeZone || defaultTimeZone;
    const reading = { locale: plan.locale || "en", timeZone, unsubscribeUrl: "" };
    const text = order && renderInApp(plan.template as TemplateName, reading.locale, await messageVariables(order, store, reading, keys));
    return {
      ...{ notificationId: plan.messageId, orderId: plan.orderId, audience: NotificationAudience.CUSTOMER, recipientId: plan.recipientId },
      ...{ channel: IN_APP, category: plan.category, template: plan.template, status: NotificationStatus.ACCEPTED },
      ...{ eventType: plan.eventType, eventPosition: plan.position, title: text?.title ?? "", body: text?.body ?? "" },
      plannedAt: { seconds: BigInt(Math.floor(at.getTime() / 1000)), nanos: (at.getTime() % 1000) * 1_000_000 },
    };
  }

  async function* recent(customerId: string, upTo: number): AsyncGenerator<Told, void, undefined> {
    const found = await logs.list({
      filter: { recipient_id: customerId, audience: "CUSTOMER", channel: "IN_APP" },
      ...{ plannedFrom: new Date(now().getTime() - RECENT_MS), limit: RECENT },
    });
    for (const document of found.reverse()) {
      const {
        notification_id: messageId,
        order_id: orderId,
        recipient_id: recipientId,
        template,
        locale,
        event_type: eventType,
      } = document;
      const plan = { messageId, orderId, recipientId, template, locale, eventType, category: 0, position: BigInt(document.event_position) };
      yield { notification: await show(plan, document.planned_at), position: BigInt(upTo) };
    }
  }

  return {
    async *open(customerId, afterPosition, call) {
      const ending = AbortSignal.any([call.signal, call.stopping]);
      let position = afterPosition;
      let lately = new Set<string>();
      if (position === 0) {
        position = await reader.head();
        const shown = [];
        for await (const told of recent(customerId, position)) shown.push(told);
        lately = new Set(shown.map(({ notification }) => notification?.notificationId ?? ""));
        yield* shown;
        yield { position: BigInt(position) };
      }
      let toldAt = performance.now();
      const types = ["NotificationPlanned"];
      for await (const followed of reader.follow({ after: position, types, signal: ending })) {
        for (const { entry, position: at } of followed.entries) {
          if (!entry.stream.startsWith(notificationStream(""))) continue;
          for (const { kind } of entry.events) {
            if (kind.case !== "notificationPlanned" || kind.value.channel !== IN_APP || kind.value.recipientId !== customerId) continue;
            if (lately.has(kind.value.messageId)) continue;
            await call.reauthenticate();
            yield {
              notification: await show(kind.value, entry.recordedAt ? timestampDate(entry.recordedAt) : now()),
              position: BigInt(at),
            };
            toldAt = performance.now();
          }
        }
        if (performance.now() - toldAt < heartbeatMs) continue;
        await call.reauthenticate();
        toldAt = performance.now();
        yield { position: BigInt(followed.position) };
      }
      ending.throwIfAborted();
    },
  };
}
