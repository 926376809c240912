import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Actor } from "../domain/caller.ts";
import { type Occasion, planMessages } from "../domain/notification-plan.ts";
import { hasRules, rulesFor } from "../domain/notification-rules.ts";
import { beginAttempt, dueMessages, evolveNotifications, type NotificationsState } from "../domain/notifications.ts";
import { type OrderState, orderStream } from "../domain/order.ts";
import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { NotificationAudience, NotificationPriority } from "../gen/ordertrail/events/v1/notification_events_pb.js";
import { Door, Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { Limiter } from "../limits/limiters.ts";
import { eventType, type RecordedEntry } from "../log/log-entry.ts";
import type { LogReader } from "../log/reader.ts";
import type { Transactor } from "../log/transact.ts";
import type { Receivers } from "./receivers.ts";
import type { Sender } from "./sender.ts";

export const SYSTEM: Actor = { role: Role.SYSTEM, subject: "ordertrail" };

/** Decides what is sent of what happens to orders. */
export type Planner = {
  /**
   * Plans the messages of an order's entry, and of those before it that nobody has looked at; begins to send what is due. When it resolves, all that is
   * planned is in the log. Done again, it plans nothing.
   */
  plan(recorded: RecordedEntry): Promise<void>;
};

export type PlannerOptions = {
  readonly orders: Pick<Transactor<OrderState>, "read">;
  readonly notifications: Transactor<NotificationsState>;
  readonly reader: Pick<LogReader, "readStream">;
  readonly receivers: Receivers;
  readonly sender: Sender;
  /** Of messages to one customer of one category. */
  readonly customerLimit: Limiter;
  readonly gatherMs: number;
  readonly now: () => Date;
};

const METHOD = "ordertrail.v1.Notifier/Plan";

export function createPlanner(options: PlannerOptions): Planner {
  const { orders, notifications, reader, receivers, sender, customerLimit, gatherMs, now } = options;

  /** What has happened to the order that is of interest and that nobody has looked at, the entry itself included. */
  async function unplanned(orderId: string, recorded: RecordedEntry): Promise<RecordedEntry[]> {
    const planned = (await notifications.read(orderId))?.state.plannedVersion ?? 0;
    if (recorded.entry.version <= planned) return [];
    if (recorded.entry.version === planned + 1) return [recorded];
    const entries = await reader.readStream(orderStream(orderId), planned);
    return entries.filter(({ entry }) => entry.version <= recorded.entry.version);
  }

  function occasionsOf(orderId: string, { entry, position }: RecordedEntry): { occasion: Occasion; event: Event }[] {
    const at = entry.recordedAt ? timestampDate(entry.recordedAt) : now();
    return rulesFor(entry.events).map(({ rule, event }) => ({
      event,
      occasion: { rule, eventType: eventType(event), position, orderVersion: entry.version, orderId, at },
    }));
  }

  /** For how long a message that can wait has to, as there have been many. Asked once for each: asking counts. */
  async function limitMs({ rule }: Occasion, customerId: string): Promise<number> {
    const isCounted = rule.audience === NotificationAudience.CUSTOMER && rule.priority === NotificationPriority.NORMAL && !rule.mandatory;
    if (!isCounted) return 0;
    const { allowed, retryAfterMs } = await customerLimit.take(`${customerId}/${rule.category}`);
    return allowed ? 0 : retryAfterMs;
  }

  async function planEntry(order: OrderState, recorded: RecordedEntry): Promise<void> {
    const { orderId } = order;
    const at = now();
    const wanted = await Promise.all(
      occasionsOf(orderId, recorded).map(async ({ occasion }) => ({
        occasion,
        receiver: (await receivers.find(occasion.rule.audience, order)).receiver,
        settings: { now: at, gatherMs, limitMs: await limitMs(occasion, order.customerId) },
      })),
    );
    if (wanted.length === 0) return;
    // Channels that have room are asked at once: then plan and attempt are one entry.
    using turn = sender.openTurn();
    const outcome = await notifications.transact(orderId, {
      method: METHOD,
      requestId: "",
      correlationId: recorded.entry.correlationId,
      causationId: Buffer.from(recorded.entry.entryId).toString("hex"),
      actor: SYSTEM,
      door: Door.INTERNAL,
      decide: (state) => {
        turn.reset();
        const events = wanted.flatMap(({ occasion, receiver, settings }) => planMessages(state, occasion, receiver, settings));
        if (events.length === 0) return [];
        let after = events.reduce<NotificationsState | undefined>(
          (before, event) => evolveNotifications(before, event, { recordedAt: at }),
          state,
        );
        for (const { plan } of dueMessages(after, at)) {
          if (!turn.reserve(plan)) continue;
          const begun = beginAttempt(after, plan.messageId, at, turn.answerBy(at));
          events.push(...begun);
          after = begun.reduce<NotificationsState | undefined>(
            (before, event) => evolveNotifications(before, event, { recordedAt: at }),
            after,
          );
        }
        return events;
      },
    });
    if (outcome.appended) turn.send(orderId, outcome.state);
  }

  return {
    async plan(recorded) {
      if (!recorded.entry.events.some(hasRules)) return;
      const orderId = recorded.entry.stream.slice(orderStream("").length);
      const entries = await unplanned(orderId, recorded);
      const order = entries.length > 0 ? await orders.read(orderId) : undefined;
      if (!order) return;
      for (const entry of entries) await planEntry(order.state, entry);
    },
  };
}
