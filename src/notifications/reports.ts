import { randomUUID } from "node:crypto";
import type { Logger } from "pino";
import type { ChannelReport } from "../channels/channel.ts";
import { type CustomerState, optIn, optOut } from "../domain/customer.ts";
import { type NotificationsState, recordReport } from "../domain/notifications.ts";
import { orderStream } from "../domain/order.ts";
import { type PushTokenState, removeToken } from "../domain/push-token.ts";
import { ConsentSource } from "../gen/ordertrail/events/v1/customer_events_pb.js";
import { NotificationAudience, type NotificationChannel, NotificationReport } from "../gen/ordertrail/events/v1/notification_events_pb.js";
import { Door } from "../gen/ordertrail/events/v1/values_pb.js";
import type { LogReader } from "../log/reader.ts";
import type { Transactor } from "../log/transact.ts";
import type { ContactIndex } from "../privacy/contact-index.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import type { NotificationLogs } from "../projections/notification-logs.ts";
import { SYSTEM } from "./planner.ts";
import { openContact } from "./receivers.ts";

/** Records what providers tell of messages and of people. */
export type Reports = {
  /** When it resolves, all of a report that matters is durable. Done again, it changes nothing. */
  take(
    channel: NotificationChannel,
    report: ChannelReport,
    occasion: { readonly method: string; readonly correlationId: string },
  ): Promise<void>;
  /** Nothing more goes to a customer by a channel. */
  optOut(customerId: string, channel: NotificationChannel, source: ConsentSource, place: string): Promise<void>;
  /** These devices are gone. */
  removeTokens(customerId: string, tokenIds: readonly string[]): Promise<void>;
};

export type ReportsOptions = {
  readonly notifications: Transactor<NotificationsState>;
  readonly customers: Transactor<CustomerState>;
  readonly tokens: Transactor<PushTokenState>;
  readonly reader: Pick<LogReader, "readForward">;
  readonly logs: Pick<NotificationLogs, "orderOf">;
  readonly contacts: ContactIndex;
  readonly keys: Pick<PersonalKeys, "open">;
  readonly now: () => Date;
  readonly logger: Logger;
};

const METHOD = "ordertrail.v1.Notifier/Report";
const SOURCES = {
  bounce: ConsentSource.BOUNCE,
  complaint: ConsentSource.COMPLAINT,
  unsubscribe: ConsentSource.UNSUBSCRIBE,
  provider: ConsentSource.PROVIDER,
} as const;

/** By what a person said so, for each thing that a provider may tell. */
export const consentSource = (why: keyof typeof SOURCES): ConsentSource => SOURCES[why];

export function createReports(options: ReportsOptions): Reports {
  const { notifications, customers, tokens, reader, logs, contacts, keys, now, logger } = options;

  const command = (method: string, door: Door, correlationId: string) => ({ method, requestId: "", correlationId, actor: SYSTEM, door });

  /** The order of a message: its identifier begins with the position of the order's entry that caused it. */
  async function find(report: Extract<ChannelReport, { kind: "message" }>) {
    const position = Number(/^([1-9][0-9]{0,15})\.[a-z]+\.[a-z_]+$/.exec(report.messageId ?? "")?.[1] ?? 0);
    if (position > 0 && report.messageId !== undefined) {
      for await (const [recorded] of reader.readForward({ after: position - 1, to: position })) {
        const stream = recorded?.entry.stream ?? "";
        if (stream.startsWith(orderStream(""))) return { orderId: stream.slice(orderStream("").length), messageId: report.messageId };
      }
    }
    return report.providerMessageId === "" ? undefined : await logs.orderOf(report.providerMessageId);
  }

  async function takeMessage(
    channel: NotificationChannel,
    report: Extract<ChannelReport, { kind: "message" }>,
    { method, correlationId }: { readonly method: string; readonly correlationId: string },
  ): Promise<void> {
    const found = await find(report);
    const known = found && (await notifications.read(found.orderId))?.state.messages.get(found.messageId);
    if (!found || known?.plan.channel !== channel) {
      logger.info({ report_id: report.reportId, method }, "a provider tells of a message that is not known here");
      return;
    }
    const { code, detail, happenedAt, providerMessageId } = report;
    const told = { messageId: found.messageId, report: NotificationReport[report.report], happenedAt, code, detail, providerMessageId };
    await notifications.transact(found.orderId, {
      ...command(method, Door.WEBHOOK, correlationId),
      decide: (state) => recordReport(state, told),
    });
    if (report.optOut && known.plan.audience === NotificationAudience.CUSTOMER)
      await leave(known.plan.recipientId, channel, SOURCES[report.optOut], code, method, Door.WEBHOOK, correlationId);
  }

  async function leave(
    customerId: string,
    channel: NotificationChannel,
    source: ConsentSource,
    place: string,
    method: string,
    door: Door,
    correlationId: string,
  ): Promise<void> {
    await customers.transact(customerId, {
      ...command(method, door, correlationId),
      decide: (state) => (state?.erased ? [] : optOut(state, { customerId, channel, source, place })),
    });
  }

  async function takeInbound(
    channel: NotificationChannel,
    { phone, wish, happenedAt }: Extract<ChannelReport, { kind: "inbound" }>,
    { method, correlationId }: { readonly method: string; readonly correlationId: string },
  ): Promise<void> {
    await contacts.noteInbound(phone, happenedAt ?? now());
    if (wish === "none") return;
    for (const customerId of await contacts.find(phone)) {
      const state = (await customers.read(customerId))?.state;
      if ((await openContact(keys, customerId, state?.contact))?.phone !== phone) continue;
      if (wish === "STOP") await leave(customerId, channel, ConsentSource.KEYWORD, wish, method, Door.WEBHOOK, correlationId);
      else
        await customers.transact(customerId, {
          ...command(method, Door.WEBHOOK, correlationId),
          // Whoever never agreed to a channel has not done so by this word.
          decide: (current) =>
            current?.consents.get(channel)?.isIn === false
              ? optIn(current, { customerId, channel, source: ConsentSource.KEYWORD, place: wish, wording: "" })
              : [],
        });
    }
  }

  return {
    take: (channel, report, occasion) =>
      report.kind === "message" ? takeMessage(channel, report, occasion) : takeInbound(channel, report, occasion),
    optOut: (customerId, channel, source, place) => leave(customerId, channel, source, place, METHOD, Door.INTERNAL, randomUUID()),
    async removeTokens(customerId, tokenIds) {
      for (const tokenId of tokenIds)
        await tokens.transact(tokenId, {
          ...command(METHOD, Door.INTERNAL, randomUUID()),
          decide: (state) => removeToken(state, { tokenId, customerId, reason: "expired" }),
        });
    },
  };
}
