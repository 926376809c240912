import { timestampDate } from "@bufbuild/protobuf/wkt";
import { type Db, type Filter, MongoServerError } from "mongodb";
import {
  evolveNotifications,
  lookAt,
  type MessageState,
  type MessageStatus,
  type NotificationsState,
  notificationStream,
} from "../domain/notifications.ts";
import { orderStream } from "../domain/order.ts";
import {
  NotificationAudience,
  NotificationCategory,
  NotificationChannel,
  NotificationReason,
} from "../gen/ordertrail/events/v1/notification_events_pb.js";
import type { RecordedEntry } from "../log/log-entry.ts";
import type { LogReader } from "../log/reader.ts";
import type { Projection } from "./projection.ts";
import { createStreamProjection } from "./stream-documents.ts";

/** The collection, and the projection's name. */
export const NOTIFICATION_LOGS = "notification_logs";

const REVISION = 1;
const REST_MS = 1000;

/** A document of `notification_logs`: a message and how it stands. Holds nothing personal. */
export type NotificationDocument = {
  readonly notification_id: string;
  readonly order_id: string;
  readonly audience: string;
  readonly recipient_id: string;
  /** The recipient, of messages to customers; null of others. */
  readonly customer_id: string | null;
  readonly channel: string;
  readonly category: string;
  readonly template: string;
  readonly locale: string;
  readonly status: MessageStatus;
  readonly reason: string;
  readonly code: string;
  readonly detail: string;
  readonly attempts: number;
  readonly provider_message_id: string;
  readonly event_type: string;
  readonly event_position: number;
  readonly planned_at: Date;
  readonly not_before: Date;
  readonly sent_at: Date | null;
  readonly updated_at: Date;
  /** When something is to be done about it; null when nothing is. */
  readonly next_at: Date | null;
  readonly version: number;
};

type Changed = { readonly version: number; readonly at: Date };
type Logs = { readonly notifications: NotificationsState; readonly changed: ReadonlyMap<string, Changed> };

/** The projection `notification_logs`: every message, sent or not. */
export function createNotificationLogsProjection(db: Db, reader: LogReader): Projection {
  return createStreamProjection<Logs>(db, reader, {
    ...{ name: NOTIFICATION_LOGS, revision: REVISION, key: "notification_id", restMs: REST_MS, prefix: notificationStream("") },
    indexes: [
      { key: { customer_id: 1, sent_at: -1 } },
      { key: { planned_at: -1, notification_id: 1 } },
      { key: { recipient_id: 1, planned_at: -1, notification_id: 1 } },
      { key: { order_id: 1, planned_at: -1, notification_id: 1 } },
      { key: { next_at: 1, notification_id: 1 }, partialFilterExpression: { next_at: { $type: "date" } } },
      { key: { provider_message_id: 1 }, partialFilterExpression: { provider_message_id: { $gt: "" } } },
    ],
    fold: foldLogs,
    documents: ({ notifications, changed }) =>
      Array.from(notifications.messages, ([messageId, message]) => toDocument(message, changed.get(messageId) as Changed)),
    /** A message's identifier begins with the position of the order's entry that caused it. */
    async streamOf(messageId) {
      const position = Number(messageId.slice(0, messageId.indexOf(".")));
      for await (const batch of reader.readForward({ after: position - 1, to: position })) {
        const stream = batch[0]?.position === position ? (batch[0]?.entry.stream ?? "") : "";
        return stream.startsWith(orderStream("")) ? notificationStream(stream.slice(orderStream("").length)) : undefined;
      }
      return undefined;
    },
  });
}

function foldLogs(before: Logs | undefined, { entry }: RecordedEntry): Logs {
  const at = entry.recordedAt ? timestampDate(entry.recordedAt) : new Date(0);
  let notifications = before?.notifications;
  for (const event of entry.events) notifications = evolveNotifications(notifications, event, { recordedAt: at });
  const changed = new Map(before?.changed);
  for (const [messageId, message] of notifications?.messages ?? [])
    if (before?.notifications.messages.get(messageId) !== message) changed.set(messageId, { version: entry.version, at });
  return { notifications: notifications as NotificationsState, changed };
}

function toDocument(message: MessageState, { version, at }: Changed): NotificationDocument {
  const { plan, status, reason, code, detail, attempts, providerMessageId, plannedAt, notBefore, acceptedAt } = message;
  const isToCustomer = plan.audience === NotificationAudience.CUSTOMER;
  return {
    ...{ notification_id: plan.messageId, order_id: plan.orderId, audience: NotificationAudience[plan.audience] },
    ...{ recipient_id: plan.recipientId, customer_id: isToCustomer ? plan.recipientId : null },
    ...{ channel: NotificationChannel[plan.channel], category: NotificationCategory[plan.category], template: plan.template },
    ...{ locale: plan.locale, status, reason: NotificationReason[reason], code, detail, attempts, provider_message_id: providerMessageId },
    ...{ event_type: plan.eventType, event_position: Number(plan.position), planned_at: plannedAt, not_before: notBefore },
    ...{ sent_at: acceptedAt ?? null, updated_at: at, next_at: lookAt(message) ?? null, version },
  } as NotificationDocument;
}

/** Which messages a list holds: those that match all that is set. */
export type NotificationListing = {
  readonly filter: Partial<
    Pick<NotificationDocument, "recipient_id" | "customer_id" | "order_id" | "audience" | "channel" | "status" | "category">
  >;
  readonly plannedFrom?: Date | undefined;
  readonly plannedBefore?: Date | undefined;
  /** The last of the page before. */
  readonly after?: { readonly plannedAt: Date; readonly notificationId: string } | undefined;
  readonly limit: number;
};

/** A message about which something is to be done. */
export type DueMessage = { readonly orderId: string; readonly notificationId: string; readonly nextAt: Date };

/** Reads `notification_logs`. */
export type NotificationLogs = {
  /** The newest first; going on after the last of a page skips none and repeats none. */
  list(listing: NotificationListing): Promise<NotificationDocument[]>;
  /** Messages of that status about which something was to be done by a time, by none of the channels named; the longest due first, after the one given. */
  due(
    status: "WAITING" | "ATTEMPTING",
    by: Date,
    limit: number,
    without: readonly NotificationChannel[],
    after?: DueMessage,
  ): Promise<DueMessage[]>;
  /** The order of a message, by what the provider calls it. */
  orderOf(providerMessageId: string): Promise<{ readonly orderId: string; readonly messageId: string } | undefined>;
};

const SWAPPED_AWAY: ReadonlySet<unknown> = new Set([175, 43, 237]);

export function createNotificationLogs(db: Db): NotificationLogs {
  const logs = db.collection<NotificationDocument>(NOTIFICATION_LOGS, { readPreference: "primary" });
  const again = async <T>(find: () => Promise<T>): Promise<T> =>
    await find().catch((error: unknown) => {
      if (error instanceof MongoServerError && SWAPPED_AWAY.has(error.code)) return find();
      throw error;
    });
  return {
    list({ filter, plannedFrom, plannedBefore, after, limit }) {
      const all: Filter<NotificationDocument>[] = [filter];
      if (plannedFrom) all.push({ planned_at: { $gte: plannedFrom } });
      if (plannedBefore) all.push({ planned_at: { $lt: plannedBefore } });
      if (after)
        all.push({
          $or: [{ planned_at: { $lt: after.plannedAt } }, { planned_at: after.plannedAt, notification_id: { $gt: after.notificationId } }],
        });
      return again(() =>
        logs
          .find({ $and: all }, { projection: { _id: 0 } })
          .sort({ planned_at: -1, notification_id: 1 })
          .limit(limit)
          .toArray(),
      );
    },
    async due(status, by, limit, without, after) {
      const channel = { $nin: without.map((each) => NotificationChannel[each]) };
      const beyond = after && {
        $or: [{ next_at: { $gt: after.nextAt } }, { next_at: after.nextAt, notification_id: { $gt: after.notificationId } }],
      };
      const found = await again(() =>
        logs
          .find(
            { next_at: { $type: "date", $lte: by }, status, channel, ...beyond },
            { projection: { _id: 0, order_id: 1, notification_id: 1, next_at: 1 } },
          )
          .sort({ next_at: 1, notification_id: 1 })
          .limit(limit)
          .toArray(),
      );
      return found.map(({ order_id, notification_id, next_at }) => ({
        ...{ orderId: order_id, notificationId: notification_id, nextAt: next_at as Date },
      }));
    },
    async orderOf(providerMessageId) {
      const found = await again(() => logs.findOne({ provider_message_id: providerMessageId }));
      return found ? { orderId: found.order_id, messageId: found.notification_id } : undefined;
    },
  };
}
