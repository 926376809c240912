import { createHmac, randomUUID } from "node:crypto";
import type { Db } from "mongodb";
import type { Logger } from "pino";
import type { Channel } from "./channels/channel.ts";
import { type CustomerState, customerStream, evolveCustomer } from "./domain/customer.ts";
import { evolveNotifications, type MessageState, type NotificationsState, notificationStream } from "./domain/notifications.ts";
import { decide, type OrderState } from "./domain/order.ts";
import { evolvePushToken, type PushTokenState, pushTokenStream } from "./domain/push-token.ts";
import { Refusal } from "./domain/refusal.ts";
import type { StoreState } from "./domain/store.ts";
import type { ChannelWebhooksOptions } from "./doors/channel-webhooks.ts";
import { NotificationAudience, type NotificationChannel } from "./gen/ordertrail/events/v1/notification_events_pb.js";
import { Door, OrderStatus } from "./gen/ordertrail/events/v1/values_pb.js";
import { NotificationService } from "./gen/ordertrail/v1/notification_service_pb.js";
import type { Limiters } from "./limits/limiters.ts";
import type { RecordedEntry } from "./log/log-entry.ts";
import type { LogReader } from "./log/reader.ts";
import type { Category, Transactor } from "./log/transact.ts";
import type { NatsClient } from "./nats/nats-client.ts";
import { type EventConsumer, startEventConsumer } from "./notifications/consumer.ts";
import { createPlanner, SYSTEM } from "./notifications/planner.ts";
import { createReceivers } from "./notifications/receivers.ts";
import { consentSource, createReports } from "./notifications/reports.ts";
import { createSender, type Sender } from "./notifications/sender.ts";
import { createContactIndex } from "./privacy/contact-index.ts";
import type { PersonalKeys } from "./privacy/personal-keys.ts";
import { createRepeater } from "./privacy/repeater.ts";
import type { SecretName, WrappedSecrets } from "./privacy/wrapped-secrets.ts";
import { createNotificationLogs, type DueMessage } from "./projections/notification-logs.ts";
import type { Projector } from "./projections/projector.ts";
import { createPushTokens } from "./projections/push-tokens.ts";
import { type ServedService, type ServiceHandlers, served } from "./services/call.ts";
import { createNotificationService } from "./services/notification-service.ts";
import { createSeenReports } from "./services/seen-reports.ts";
import { createWatchNotifications } from "./services/watch-notifications.ts";

/** All that has to do with messages, built. */
export type Notifier = AsyncDisposable & {
  readonly service: ServedService;
  readonly handlers: ServiceHandlers<typeof NotificationService>;
  readonly webhooks: ChannelWebhooksOptions;
  /** What signs the calls to a store's own system. */
  readonly webhookSecret: (storeId: string) => Promise<string>;
  /** Begins to plan and to send, where there is a NATS. */
  start(): void;
  /** Rejects, with the reason, when nothing has been heard of events for long. */
  check(): Promise<void>;
  readonly sender: Pick<Sender, "counts">;
  /** How many entries nobody has looked at yet. */
  pending(): number;
};

export type NotifierParts = {
  readonly db: Db;
  readonly nats: NatsClient | undefined;
  readonly natsPrefix: string;
  readonly transactorOf: <State>(category: Category<State>) => Transactor<State>;
  readonly orders: Transactor<OrderState>;
  readonly stores: Pick<Transactor<StoreState>, "read">;
  readonly reader: LogReader;
  readonly projector: Pick<Projector, "waitFor">;
  readonly keys: PersonalKeys;
  readonly secrets: WrappedSecrets;
  readonly limiters: Limiters;
  readonly channels: ReadonlyMap<NotificationChannel, Channel>;
  /** Where the HTTP port is reached from outside, once that is known. */
  readonly publicUrl: () => string | undefined;
  readonly metaVerifyToken: string | undefined;
  readonly now: () => Date;
  readonly logger: Logger;
  readonly watchHeartbeatMs: number;
  readonly notifyOperatorEmail: string | undefined;
  readonly notifyGatherSeconds: number;
  readonly notifyPerMinute: number;
  readonly notifyAnswerMs: number;
  readonly notifyAtOnce: number;
  readonly notifyProviderPerSecond: number;
  readonly defaultTimeZone: string;
};

const CHECKPOINT = "notifier";
const SWEEP_MS = 1000;
/** What is due is left for so long to whoever planned it. */
const GRACE_MS = 2000;
const SWEEP_PAGE = 200;
const SWEEP_AT_ONCE = 32;
/** The message by which a store hears of an order. */
const STORE_IS_TOLD = "store-new-order";

/** Builds the NotificationService, the webhooks of those who carry messages, and what plans and sends. */
export async function createNotifier(parts: NotifierParts): Promise<Notifier> {
  const { db, nats, natsPrefix, transactorOf, orders, stores, reader, projector, keys, secrets, limiters, channels, now, logger } = parts;
  const customers = transactorOf<CustomerState>({ streamOf: customerStream, evolve: evolveCustomer });
  const tokens = transactorOf<PushTokenState>({ streamOf: pushTokenStream, evolve: evolvePushToken });
  const notifications = transactorOf<NotificationsState>({ streamOf: notificationStream, evolve: evolveNotifications });
  const pushTokens = createPushTokens(db);
  const logs = createNotificationLogs(db);
  const contacts = await createContactIndex(db, () => secrets.get("contact-index"));
  const seen = createSeenReports(db);
  const macOf = async (name: SecretName, text: string) =>
    createHmac("sha256", await secrets.get(name))
      .update(text)
      .digest();
  const webhookSecret = async (storeId: string) => `whsec_${(await macOf("store-webhooks", storeId)).toString("base64")}`;
  const unsubscribeToken = async (customerId: string) => (await macOf("unsubscribe", customerId)).subarray(0, 16).toString("base64url");

  const reports = createReports({ notifications, customers, tokens, reader, logs, contacts, keys, now, logger });
  const receivers = createReceivers({
    ...{ customers, tokens, pushTokens, stores, keys, channels, webhookSecret },
    ...{ operatorEmail: parts.notifyOperatorEmail, defaultTimeZone: parts.defaultTimeZone },
  });

  /** The first contact of the store's that has taken the news of an order moves it: from then on its acknowledgment is waited for. */
  async function tellThatStoreKnows({ plan }: MessageState): Promise<void> {
    if (plan.audience !== NotificationAudience.STORE || plan.template !== STORE_IS_TOLD) return;
    try {
      await orders.transact(plan.orderId, {
        ...{
          method: "ordertrail.v1.Notifier/StoreNotified",
          requestId: "",
          correlationId: randomUUID(),
          actor: SYSTEM,
          door: Door.INTERNAL,
        },
        decide: (state) =>
          state?.status === OrderStatus.SUBMITTED
            ? decide(state, { type: "UpdateStatus", status: OrderStatus.STORE_NOTIFIED }, SYSTEM)
            : [],
      });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      logger.info({ order_id: plan.orderId, reason: error.reason }, "an order is not moved although its store knows of it");
    }
  }

  const sender = createSender({
    ...{ channels, notifications, orders, stores, receivers, keys, now, logger },
    unsubscribeLink: async (customerId) => {
      const base = parts.publicUrl();
      return base === undefined ? "" : `${base}/unsubscribe/${customerId}/${await unsubscribeToken(customerId)}`;
    },
    isConversationOpen: async (phone) => (await contacts.lastInbound(phone)) !== undefined,
    providerLimit: limiters.limiter({ name: "notify:provider", points: parts.notifyProviderPerSecond, seconds: 1 }),
    onOptOut: (customerId, channel, why, code) => reports.optOut(customerId, channel, consentSource(why), code),
    onDeadTokens: reports.removeTokens,
    ...{ answerMs: parts.notifyAnswerMs, atOnce: parts.notifyAtOnce },
  });
  const planner = createPlanner({
    ...{ orders, notifications, reader, receivers, sender, now },
    customerLimit: limiters.limiter({ name: "notify:customer", points: parts.notifyPerMinute, seconds: 60 }),
    gatherMs: parts.notifyGatherSeconds * 1000,
  });

  const checkpoints = db.collection<{ _id: string; position: number }>("notifier_checkpoint", {
    ...{ readPreference: "primary", writeConcern: { w: "majority", journal: true } },
  });
  const checkpoint = {
    read: async () => (await checkpoints.findOne({ _id: CHECKPOINT }))?.position ?? 0,
    write: async (position: number) => {
      await checkpoints.updateOne({ _id: CHECKPOINT }, { $max: { position } }, { upsert: true });
    },
  };

  /** Does something for every order that has such a message due. One that cannot be looked after holds up no other, and is looked at again. */
  async function sweep(
    status: "WAITING" | "ATTEMPTING",
    without: () => readonly NotificationChannel[],
    lookAfter: (orderId: string) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const by = new Date(now().getTime() - GRACE_MS);
    const seen = new Set<string>();
    for (let after: DueMessage | undefined; ; ) {
      const page = await logs.due(status, by, SWEEP_PAGE, without(), after);
      const fresh = [...new Set(page.map(({ orderId }) => orderId))].filter((orderId) => !seen.has(orderId));
      for (const orderId of fresh) seen.add(orderId);
      const lane = async () => {
        for (let orderId = fresh.shift(); orderId !== undefined && !signal.aborted; orderId = fresh.shift()) {
          try {
            await lookAfter(orderId);
          } catch (error) {
            logger.warn({ err: error, order_id: orderId }, "messages of an order cannot be looked after; trying again");
          }
        }
      };
      await Promise.all(Array.from({ length: SWEEP_AT_ONCE }, lane));
      after = page.at(-1);
      if (page.length < SWEEP_PAGE || signal.aborted) return;
    }
  }

  /** What happens to orders is planned for; what becomes of messages to stores moves orders. */
  async function take(recorded: RecordedEntry): Promise<void> {
    const { stream, events } = recorded.entry;
    if (!stream.startsWith(notificationStream(""))) return await planner.plan(recorded);
    const orderId = stream.slice(notificationStream("").length);
    for (const { kind } of events) {
      if (kind.case !== "notificationAccepted" && kind.case !== "notificationReported") continue;
      const message = (await notifications.read(orderId))?.state.messages.get(kind.value.messageId);
      if (message?.acceptedAt) await tellThatStoreKnows(message);
    }
  }

  // Apart, as whoever settles waits for a provider that may hang.
  const sending = createRepeater(
    "looking for messages that are due",
    (signal) => sweep("WAITING", sender.full, sender.sendDue, signal),
    SWEEP_MS,
    logger,
  );
  const settling = createRepeater(
    "looking for messages that nobody has settled",
    (signal) => sweep("ATTEMPTING", () => [], sender.settle, signal),
    SWEEP_MS,
    logger,
  );
  let consumer: EventConsumer | undefined;
  const service = createNotificationService({
    ...{ customers, tokens, orders, reader, pushTokens, logs, contacts, projector, keys },
    watch: createWatchNotifications({
      ...{ reader, logs, orders, stores, keys, now, heartbeatMs: parts.watchHeartbeatMs, defaultTimeZone: parts.defaultTimeZone },
    }),
  });
  return {
    service: served(NotificationService, service),
    handlers: service,
    webhooks: {
      channels,
      take: reports.take,
      seen,
      publicUrl: parts.publicUrl,
      metaVerifyToken: parts.metaVerifyToken,
      unsubscribeToken,
      optOut: reports.optOut,
    },
    webhookSecret,
    start() {
      if (!nats) {
        logger.warn("there is no NATS: nobody is told of orders");
        return;
      }
      consumer = startEventConsumer({ nats, prefix: natsPrefix, checkpoint, take, logger });
      sending.start();
      settling.start();
    },
    async check() {
      await consumer?.check();
    },
    sender,
    pending: () => consumer?.pending() ?? 0,
    async [Symbol.asyncDispose]() {
      await sending.stop();
      await settling.stop();
      await consumer?.stop();
      await sender.stop();
    },
  };
}
