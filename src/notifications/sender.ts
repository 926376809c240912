import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Logger } from "pino";
import { type Accepted, type Channel, ChannelError, type Message } from "../channels/channel.ts";
import { isAllowed } from "../domain/customer.ts";
import { LogDamaged } from "../domain/log-damaged.ts";
import { failOver } from "../domain/notification-plan.ts";
import {
  beginAttempt,
  dueMessages,
  type MessageState,
  type NotificationsState,
  settleAttempt,
  suppressed,
} from "../domain/notifications.ts";
import type { OrderState } from "../domain/order.ts";
import { happened } from "../domain/order-event.ts";
import type { StoreState } from "../domain/store.ts";
import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { NotificationAudience, NotificationChannel, NotificationReason } from "../gen/ordertrail/events/v1/notification_events_pb.js";
import { Door } from "../gen/ordertrail/events/v1/values_pb.js";
import type { Limiter } from "../limits/limiters.ts";
import type { Snapshot, Transactor } from "../log/transact.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import { messageVariables } from "./message-content.ts";
import { SYSTEM } from "./planner.ts";
import type { Reached, Receivers } from "./receivers.ts";

/** Hands messages to providers, each as often as its channel takes at a time, and records what comes of it. */
export type Sender = {
  /** Begins to take part in a command that plans messages, so that what has room is attempted in the same entry. */
  openTurn(): Turn;
  /** Sends what is due of an order, in its order; resolves when what could be begun now has come to an end. */
  sendDue(orderId: string): Promise<void>;
  /** Settles attempts whose process has died: asks the provider where it can tell. */
  settle(orderId: string): Promise<void>;
  /** The channels that take nothing more at present. */
  full(): readonly NotificationChannel[];
  /** How many messages wait here for room, and how many are with providers. */
  counts(): readonly { readonly channel: NotificationChannel; readonly waiting: number; readonly underWay: number }[];
  /** Begins nothing more; resolves when what was begun has come to an end. */
  stop(): Promise<void>;
};

/** Room reserved for messages while they are being planned. */
export type Turn = Disposable & {
  /** Forgets what was reserved: the command is decided anew. */
  reset(): void;
  reserve(plan: { readonly channel: NotificationChannel; readonly messageId: string }): boolean;
  answerBy(now: Date): Date;
  /** Sends what was begun, and sees to what else is due; does not wait for it. */
  send(orderId: string, state: NotificationsState): void;
};

export type SenderOptions = {
  readonly channels: ReadonlyMap<NotificationChannel, Channel>;
  readonly notifications: Transactor<NotificationsState>;
  readonly orders: Pick<Transactor<OrderState>, "read">;
  readonly stores: Pick<Transactor<StoreState>, "read">;
  readonly receivers: Receivers;
  readonly keys: PersonalKeys;
  /** Where a customer unsubscribes from email; empty where this is not reached from outside. */
  readonly unsubscribeLink: (customerId: string) => Promise<string>;
  /** Whether somebody wrote to us by WhatsApp in the last 24 hours. */
  readonly isConversationOpen: (phone: string) => Promise<boolean>;
  /** Of calls to one provider. */
  readonly providerLimit: Limiter;
  /** What is to be done when a provider has told of an address. */
  readonly onOptOut: (
    customerId: string,
    channel: NotificationChannel,
    why: NonNullable<ChannelError["optOut"]>,
    code: string,
  ) => Promise<void>;
  readonly onDeadTokens: (customerId: string, tokenIds: readonly string[]) => Promise<void>;
  readonly now: () => Date;
  readonly logger: Logger;
  /** How long a provider may take to answer. */
  readonly answerMs: number;
  /** How many messages may be with one channel's provider at a time. */
  readonly atOnce: number;
};

const METHOD = "ordertrail.v1.Notifier/Send";
/** After its time limit an answer has to be recorded, too; whoever finds an attempt later than this knows that its process has died. */
const RECORD_MS = 10_000;
const FIRST_RETRY_MS = 2_000;
const LAST_RETRY_MS = 300_000;
const MOST_ATTEMPTS = 12;
/** After so many failures in a row a channel is left alone for a while; then one message tries. */
const FAILURES_TO_OPEN = 5;
const OPEN_MS = 10_000;
const MISCONFIGURED_MS = 60_000;
const RECORD_RETRY_MS = 500;

type Lane = { underWay: number; failures: number; closedUntil: number; readonly waiting: Set<string> };

export function createSender(options: SenderOptions): Sender {
  const { channels, notifications, orders, stores, receivers, keys, unsubscribeLink, now, logger, answerMs, atOnce } = options;
  const lanes = new Map<NotificationChannel, Lane>(
    Array.from(channels.keys(), (channel) => [channel, { underWay: 0, failures: 0, closedUntil: 0, waiting: new Set() }]),
  );
  const stopping = new AbortController();
  const running = new Set<Promise<void>>();

  function hasRoom(channel: NotificationChannel, reserved = 0): boolean {
    const lane = lanes.get(channel);
    if (!lane || stopping.signal.aborted || performance.now() < lane.closedUntil) return false;
    // After a failure that closed it, one message tries before all do.
    return lane.underWay + reserved < (lane.failures >= FAILURES_TO_OPEN ? 1 : atOnce);
  }

  const command = (decide: (state: NotificationsState | undefined) => Event[]) => ({
    ...{ method: METHOD, requestId: "", correlationId: "", actor: SYSTEM, door: Door.INTERNAL, decide },
  });

  /** Records what must be recorded, for as long as it takes: the provider has been asked. */
  async function record(orderId: string, decide: (state: NotificationsState | undefined) => Event[]) {
    for (;;) {
      try {
        return await notifications.transact(orderId, command(decide));
      } catch (error) {
        if (error instanceof LogDamaged || stopping.signal.aborted) throw error;
        logger.warn({ err: error, order_id: orderId }, "what came of a message cannot be recorded; trying again");
        await new Promise((resolve) => setTimeout(resolve, RECORD_RETRY_MS));
      }
    }
  }

  async function compose(message: MessageState, order: Snapshot<OrderState>, { receiver, to }: Reached): Promise<Message> {
    const { plan } = message;
    const store = (await stores.read(order.state.storeId))?.state;
    const isToCustomer = plan.audience === NotificationAudience.CUSTOMER;
    const isEmail = plan.channel === NotificationChannel.EMAIL;
    const variables = await messageVariables(
      order,
      store,
      {
        ...{ locale: plan.locale, timeZone: receiver.timeZone },
        unsubscribeUrl: isToCustomer && isEmail ? await unsubscribeLink(plan.recipientId) : "",
      },
      keys,
    );
    const usefulMs = (message.notAfter?.getTime() ?? 0) - now().getTime();
    return {
      ...{ messageId: plan.messageId, orderId: plan.orderId, to, template: plan.template as Message["template"], locale: plan.locale },
      ...{ variables, usefulSeconds: Math.max(1, Math.round(usefulMs / 1000)) },
      isConversationOpen:
        plan.channel === NotificationChannel.WHATSAPP && to.phone !== undefined && (await options.isConversationOpen(to.phone)),
    };
  }

  /** What is recorded of an attempt that failed, and by what other way the message goes. */
  function failure(message: MessageState, error: ChannelError, isPossible: (channel: NotificationChannel) => boolean): Event[] {
    const { plan, attempts: attempt } = message;
    const { messageId } = plan;
    const { code, detail, kind } = error;
    if (kind === "unknown") return [happened({ case: "notificationOutcomeUnknown", value: { messageId, attempt, code } })];
    if (kind !== "refused") {
      const until = new Date(now().getTime() + retryDelay(attempt, error));
      if (attempt < MOST_ATTEMPTS && (!message.notAfter || until < message.notAfter)) {
        const reason = NotificationReason.RETRY;
        return [happened({ case: "notificationHeld", value: { messageId, until: timestampFromDate(until), reason, attempt, code } })];
      }
    }
    return [happened({ case: "notificationFailed", value: { messageId, attempt, code, detail } }), ...failOver(plan, isPossible)];
  }

  /** Asks the provider, once, and records its answer. The attempt is in the log already. */
  async function attempt(orderId: string, message: MessageState): Promise<NotificationsState | undefined> {
    const { plan, attempts } = message;
    const channel = channels.get(plan.channel);
    const lane = lanes.get(plan.channel);
    if (!channel || !lane) return undefined;
    let outcome: Accepted | ChannelError;
    let possible: (each: NotificationChannel) => boolean = () => false;
    try {
      const order = await orders.read(orderId);
      if (!order) throw new Error(`there is no order ${orderId}, of which a message tells`);
      const reached = await receivers.find(plan.audience, order.state);
      const { customer } = reached.receiver;
      possible = (each) => reached.receiver.reached.includes(each) && isAllowed(customer, each);
      if (plan.audience === NotificationAudience.CUSTOMER && customer?.erased)
        outcome = new ChannelError("refused", "erased", "the customer has been forgotten");
      else if (plan.audience === NotificationAudience.CUSTOMER && !isAllowed(customer, plan.channel))
        outcome = new ChannelError("refused", "opted_out", "they have said that they want none by this channel");
      else if (!channel.reaches(reached.to)) outcome = new ChannelError("refused", "no_address", "there is no address any more");
      else {
        const composed = await compose(message, order, reached);
        outcome = await channel.send(composed, AbortSignal.timeout(answerMs));
      }
    } catch (error) {
      outcome =
        error instanceof ChannelError
          ? error
          : new ChannelError("unavailable", "not_composed", "it could not be written yet", { cause: error });
      if (!(error instanceof ChannelError))
        logger.warn({ err: error, order_id: orderId, message_id: plan.messageId }, "a message cannot be written");
    }
    noteHealth(lane, channel, outcome);
    return await conclude(orderId, message, attempts, outcome, possible);
  }

  function noteHealth(lane: Lane, channel: Channel, outcome: Accepted | ChannelError): void {
    const isBad = outcome instanceof ChannelError && outcome.kind !== "refused" && outcome.code !== "not_composed";
    if (!isBad) {
      lane.failures = 0;
      return;
    }
    lane.failures++;
    if (outcome.kind === "misconfigured") {
      lane.failures = FAILURES_TO_OPEN;
      logger.error(
        { provider: channel.provider, code: outcome.code },
        `${channel.provider} takes nothing from this account: ${outcome.detail}`,
      );
    }
    if (lane.failures >= FAILURES_TO_OPEN)
      lane.closedUntil =
        performance.now() + (outcome.kind === "misconfigured" ? MISCONFIGURED_MS : Math.max(OPEN_MS, outcome.retryAfterMs ?? 0));
    else if (outcome.retryAfterMs !== undefined) lane.closedUntil = performance.now() + outcome.retryAfterMs;
  }

  async function conclude(
    orderId: string,
    { plan }: MessageState,
    attemptNumber: number,
    outcome: Accepted | ChannelError,
    possible: (channel: NotificationChannel) => boolean,
    foundLater = false,
  ): Promise<NotificationsState> {
    const { messageId } = plan;
    const settled = await record(orderId, (state) =>
      settleAttempt(state, messageId, attemptNumber, (message) => {
        if (!(outcome instanceof ChannelError))
          return [
            happened({
              case: "notificationAccepted",
              value: { messageId, attempt: attemptNumber, providerMessageId: outcome.providerMessageId, foundLater },
            }),
          ];
        if (outcome.code === "erased") return [suppressed(messageId, NotificationReason.ERASED)];
        return failure(message, outcome, possible);
      }),
    );
    if (plan.audience !== NotificationAudience.CUSTOMER) return settled.state;
    const deadTokenIds = outcome.deadTokenIds ?? [];
    if (deadTokenIds.length > 0) await options.onDeadTokens(plan.recipientId, deadTokenIds);
    if (outcome instanceof ChannelError && outcome.optOut)
      await options.onOptOut(plan.recipientId, plan.channel, outcome.optOut, outcome.code);
    return settled.state;
  }

  /** Runs an attempt in the room that is reserved for it, then sees to what waited for it. */
  function run(orderId: string, message: MessageState): void {
    const { channel } = message.plan;
    const lane = lanes.get(channel);
    if (!lane) return;
    const task: Promise<void> = attempt(orderId, message)
      .catch((error: unknown) => {
        logger.error({ err: error, order_id: orderId, message_id: message.plan.messageId }, "a message's outcome was not recorded");
        return undefined;
      })
      .then((state) => {
        lane.underWay--;
        running.delete(task);
        if (dueMessages(state, now()).length > 0) start(orderId);
        pump(channel);
      });
    running.add(task);
  }

  /** Begins what waited for room. */
  function pump(channel: NotificationChannel): void {
    const lane = lanes.get(channel);
    for (const orderId of lane?.waiting ?? []) {
      if (!hasRoom(channel)) return;
      lane?.waiting.delete(orderId);
      start(orderId);
    }
  }

  function start(orderId: string): void {
    if (stopping.signal.aborted) return;
    const task = begin(orderId).catch((error: unknown) =>
      logger.warn({ err: error, order_id: orderId }, "messages of an order cannot be sent; they will be looked at again"),
    );
    running.add(task);
    void task.then(() => running.delete(task));
  }

  /** Begins what is due of an order and has room. */
  async function begin(orderId: string): Promise<void> {
    const known = await notifications.read(orderId);
    for (const { plan } of dueMessages(known?.state, now())) {
      const { channel, messageId } = plan;
      const lane = lanes.get(channel);
      if (!lane) {
        await giveUp(orderId, messageId);
        continue;
      }
      if (!hasRoom(channel)) {
        lane.waiting.add(orderId);
        continue;
      }
      lane.underWay++;
      let begun: MessageState | undefined;
      try {
        const { allowed } = await options.providerLimit.take(channels.get(channel)?.provider ?? "");
        if (!allowed) continue;
        const at = now();
        const outcome = await notifications.transact(
          orderId,
          command((state) => beginAttempt(state, messageId, at, new Date(at.getTime() + answerMs + RECORD_MS))),
        );
        const message = outcome.state?.messages.get(messageId);
        if (outcome.appended && message?.status === "ATTEMPTING") begun = message;
      } finally {
        if (!begun) lane.underWay--;
      }
      if (begun) run(orderId, begun);
    }
  }

  /** A channel that is off takes nothing, and will not while this process runs: another that the receiver likes may. */
  async function giveUp(orderId: string, messageId: string): Promise<void> {
    const order = await orders.read(orderId);
    const plan = (await notifications.read(orderId))?.state.messages.get(messageId)?.plan;
    if (!order || !plan) return;
    const { receiver } = await receivers.find(plan.audience, order.state);
    await record(orderId, (state) => {
      const message = state?.messages.get(messageId);
      if (message?.status !== "WAITING") return [];
      const detail = "the channel is off";
      return [
        happened({ case: "notificationFailed", value: { messageId, attempt: message.attempts, code: "channel_off", detail } }),
        ...failOver(plan, (each) => receiver.reached.includes(each) && isAllowed(receiver.customer, each)),
      ];
    });
    start(orderId);
  }

  async function settle(orderId: string): Promise<void> {
    const known = await notifications.read(orderId);
    const at = now();
    for (const message of known?.state.messages.values() ?? []) {
      if (message.status !== "ATTEMPTING" || !message.answerBy || message.answerBy > at) continue;
      const { plan, attempts } = message;
      const channel = channels.get(plan.channel);
      let found: Accepted | undefined;
      if (channel?.find) {
        const order = await orders.read(orderId);
        if (!order) continue;
        const reached = await receivers.find(plan.audience, order.state);
        const since = new Date(message.answerBy.getTime() - answerMs - RECORD_MS);
        found = await channel.find(await compose(message, order, reached), since, AbortSignal.timeout(answerMs));
      }
      logger.warn(
        { order_id: orderId, message_id: plan.messageId, found: found !== undefined },
        "whoever sent a message has died before it was recorded",
      );
      const outcome = found ?? new ChannelError("unknown", "process_ended", "whoever asked the provider has died");
      await conclude(orderId, message, attempts, outcome, () => false, true);
    }
    start(orderId);
  }

  return {
    openTurn() {
      const begun = new Map<string, NotificationChannel>();
      const release = (channel: NotificationChannel) => {
        const lane = lanes.get(channel);
        if (lane) lane.underWay--;
      };
      const reset = () => {
        for (const channel of begun.values()) release(channel);
        begun.clear();
      };
      return {
        reset,
        reserve({ channel, messageId }) {
          const lane = lanes.get(channel);
          if (!lane || !hasRoom(channel)) return false;
          lane.underWay++;
          begun.set(messageId, channel);
          return true;
        },
        answerBy: (at) => new Date(at.getTime() + answerMs + RECORD_MS),
        send(orderId, state) {
          for (const [messageId, channel] of begun) {
            const message = state.messages.get(messageId);
            if (message?.status === "ATTEMPTING") run(orderId, message);
            else release(channel);
          }
          begun.clear();
          if (dueMessages(state, now()).length > 0) start(orderId);
        },
        [Symbol.dispose]: reset,
      };
    },
    sendDue: begin,
    settle,
    full: () => [...lanes.keys()].filter((channel) => !hasRoom(channel)),
    counts: () => Array.from(lanes, ([channel, { waiting, underWay }]) => ({ channel, waiting: waiting.size, underWay })),
    async stop() {
      stopping.abort();
      while (running.size > 0) await Promise.all(running);
    },
  };
}

/** Twice as long each time, with jitter, and never sooner than the provider wants to be asked. */
function retryDelay(attempt: number, { retryAfterMs = 0, kind }: ChannelError): number {
  const least = kind === "misconfigured" ? MISCONFIGURED_MS : FIRST_RETRY_MS;
  const usual = Math.min(LAST_RETRY_MS, least * 2 ** (attempt - 1));
  return Math.max(retryAfterMs, 0) + usual * (0.5 + Math.random() / 2);
}
