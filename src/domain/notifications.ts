import { create } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import {
  NotificationAudience,
  NotificationChannel,
  type NotificationPlanned,
  NotificationPlannedSchema,
  NotificationReason,
  NotificationReport,
  type NotificationSuppressed,
} from "../gen/ordertrail/events/v1/notification_events_pb.js";
import { ruleOf } from "./notification-rules.ts";
import { happened } from "./order-event.ts";

/** The stream of all messages of an order. In one stream, so that they have an order, and each is planned once. */
export const notificationStream = (orderId: string): string => `notification-${orderId}`;

/** How a message stands. `WAITING` and `ATTEMPTING` are the only ones from which something is still to be done. */
const MESSAGE_STATUSES = [
  "WAITING",
  "ATTEMPTING",
  "ACCEPTED",
  "SENT",
  "DELIVERED",
  "READ",
  "BOUNCED",
  "FAILED",
  "UNKNOWN",
  "SUPPRESSED",
] as const;
export type MessageStatus = (typeof MESSAGE_STATUSES)[number];

/** A message as its events tell. */
export type MessageState = {
  readonly plan: NotificationPlanned;
  readonly status: MessageStatus;
  readonly plannedAt: Date;
  /** Not before this time. */
  readonly notBefore: Date;
  readonly notAfter: Date | undefined;
  readonly reason: NotificationReason;
  /** How often the provider was asked. */
  readonly attempts: number;
  readonly answerBy?: Date | undefined;
  readonly acceptedAt?: Date | undefined;
  readonly providerMessageId: string;
  /** Of the last thing that went wrong. */
  readonly code: string;
  readonly detail: string;
};

/** All messages of an order, by their identifiers, in the order in which they were planned. */
export type NotificationsState = {
  readonly messages: ReadonlyMap<string, MessageState>;
  /** What happened to the order up to this version has been looked at. */
  readonly plannedVersion: number;
};

const NONE: NotificationsState = { messages: new Map(), plannedVersion: 0 };

/** Which report is further on than which: one that comes late moves nothing back. */
const RANKS: Readonly<Record<MessageStatus, number>> = {
  WAITING: 0,
  ATTEMPTING: 1,
  UNKNOWN: 2,
  ACCEPTED: 3,
  SENT: 4,
  SUPPRESSED: 5,
  FAILED: 6,
  BOUNCED: 7,
  DELIVERED: 8,
  READ: 9,
};

const REPORTED: Readonly<Partial<Record<NotificationReport, MessageStatus>>> = {
  [NotificationReport.SENT]: "SENT",
  [NotificationReport.DELIVERED]: "DELIVERED",
  [NotificationReport.READ]: "READ",
  [NotificationReport.BOUNCED]: "BOUNCED",
  [NotificationReport.FAILED]: "FAILED",
};

/** The identifier of a message. */
export function messageIdOf(position: number, audience: NotificationAudience, channel?: NotificationChannel): string {
  const to = NotificationAudience[audience].toLowerCase();
  return channel === undefined ? `${position}.${to}` : `${position}.${to}.${NotificationChannel[channel].toLowerCase()}`;
}

/** Whether something is still to be done about a message. */
export function isOpen({ status }: MessageState): boolean {
  return status === "WAITING" || status === "ATTEMPTING";
}

/** The messages that wait, are due, and have no open one of the same way before them, in their order. */
export function dueMessages(state: NotificationsState | undefined, now: Date): MessageState[] {
  const busy = new Set<string>();
  const due: MessageState[] = [];
  for (const message of state?.messages.values() ?? []) {
    if (!isOpen(message)) continue;
    const way = wayOf(message);
    if (!busy.has(way) && message.status === "WAITING" && message.notBefore <= now) due.push(message);
    busy.add(way);
  }
  return due;
}

/** When a message is to be looked at again; undefined when nothing is to be done about it any more. */
export function lookAt({ status, notBefore, answerBy }: MessageState): Date | undefined {
  if (status === "WAITING") return notBefore;
  return status === "ATTEMPTING" ? answerBy : undefined;
}

/** Messages by one way to one audience: they keep their order. */
function wayOf({ plan }: Pick<MessageState, "plan">): string {
  return `${plan.audience}/${plan.channel}`;
}

/**
 * The messages of the same audience and way that still wait, tell only how things stand, and are no news any more beside a new one.
 */
export function giveWayTo(state: NotificationsState | undefined, plan: { audience: NotificationAudience; channel: NotificationChannel }) {
  return [...(state?.messages.values() ?? [])].filter(
    (message) =>
      message.status === "WAITING" &&
      wayOf(message) === wayOf({ plan: plan as NotificationPlanned }) &&
      ruleOf(message.plan.template)?.merges,
  );
}

/** That the provider is about to be asked; nothing unless the message is due and it is its turn. One that would come too late is given up. */
export function beginAttempt(state: NotificationsState | undefined, messageId: string, now: Date, answerBy: Date): Event[] {
  const message = dueMessages(state, now).find(({ plan }) => plan.messageId === messageId);
  if (!message) return [];
  if (message.notAfter && message.notAfter <= now) return [suppressed(messageId, NotificationReason.TOO_LATE)];
  const attempt = message.attempts + 1;
  return [happened({ case: "notificationAttempted", value: { messageId, attempt, answerBy: timestampFromDate(answerBy) } })];
}

/** That a message is not sent. */
export function suppressed(messageId: string, reason: NotificationReason, mergedInto = ""): Event {
  return happened({ case: "notificationSuppressed", value: { messageId, reason, mergedInto } });
}

/** What came of an attempt. Nothing when the attempt is not under way any more: somebody else has settled it. */
export function settleAttempt(
  state: NotificationsState | undefined,
  messageId: string,
  attempt: number,
  outcome: (message: MessageState) => Event[],
): Event[] {
  const message = state?.messages.get(messageId);
  return message?.status === "ATTEMPTING" && message.attempts === attempt ? outcome(message) : [];
}

/** What a provider tells of a message later; nothing when it has been further on before, or is not known. */
export function recordReport(
  state: NotificationsState | undefined,
  told: {
    readonly messageId: string;
    readonly report: NotificationReport;
    readonly happenedAt?: Date | undefined;
    readonly code: string;
    readonly detail: string;
    readonly providerMessageId: string;
  },
): Event[] {
  const message = state?.messages.get(told.messageId);
  const status = REPORTED[told.report];
  if (!message || !status || message.attempts === 0 || RANKS[status] <= RANKS[message.status]) return [];
  const { happenedAt, ...rest } = told;
  return [happened({ case: "notificationReported", value: { ...rest, ...(happenedAt && { happenedAt: timestampFromDate(happenedAt) }) } })];
}

/** A message that was decided against before it had a channel. */
function neverPlanned(suppression: NotificationSuppressed, at: Date): MessageState {
  const { $typeName: _, $unknown: __, reason, mergedInto: ___, ...known } = suppression;
  return {
    ...{ plan: create(NotificationPlannedSchema, known), status: "SUPPRESSED", plannedAt: at, notBefore: at, notAfter: undefined, reason },
    ...{ attempts: 0, providerMessageId: "", code: "", detail: "" },
  };
}

/** The messages after an event. Events of other kinds change nothing. */
export function evolveNotifications(
  state: NotificationsState | undefined,
  { kind }: Event,
  { recordedAt }: { readonly recordedAt: Date },
): NotificationsState {
  const before = state ?? NONE;
  const change = (messageId: string, changes: (message: MessageState) => Partial<MessageState>): NotificationsState => {
    const message = before.messages.get(messageId);
    if (!message) return before;
    return { ...before, messages: new Map(before.messages).set(messageId, { ...message, ...changes(message) }) };
  };
  switch (kind.case) {
    case "notificationPlanned": {
      const plan = kind.value;
      const message: MessageState = {
        ...{ plan, status: "WAITING", plannedAt: recordedAt, reason: plan.waitsFor, attempts: 0 },
        ...{ providerMessageId: "", code: "", detail: "" },
        notBefore: plan.notBefore ? timestampDate(plan.notBefore) : recordedAt,
        notAfter: plan.notAfter && timestampDate(plan.notAfter),
      };
      const messages = new Map(before.messages).set(plan.messageId, message);
      return { messages, plannedVersion: Math.max(before.plannedVersion, plan.orderVersion) };
    }
    case "notificationSuppressed": {
      const { messageId, reason, orderVersion } = kind.value;
      if (before.messages.has(messageId)) return change(messageId, () => ({ status: "SUPPRESSED", reason }));
      const messages = new Map(before.messages).set(messageId, neverPlanned(kind.value, recordedAt));
      return { messages, plannedVersion: Math.max(before.plannedVersion, orderVersion) };
    }
    case "notificationAttempted": {
      const { messageId, attempt, answerBy } = kind.value;
      return change(messageId, () => ({ status: "ATTEMPTING", attempts: attempt, answerBy: answerBy && timestampDate(answerBy) }));
    }
    case "notificationAccepted": {
      const { messageId, attempt, providerMessageId } = kind.value;
      return change(messageId, () => ({
        ...{ status: "ACCEPTED", attempts: attempt, providerMessageId, acceptedAt: recordedAt },
        ...{ reason: NotificationReason.UNSPECIFIED, code: "", detail: "" },
      }));
    }
    case "notificationHeld": {
      const { messageId, until, reason, code } = kind.value;
      return change(messageId, () => ({ status: "WAITING", reason, code, notBefore: until ? timestampDate(until) : recordedAt }));
    }
    case "notificationFailed": {
      const { messageId, code, detail } = kind.value;
      return change(messageId, () => ({ status: "FAILED", code, detail }));
    }
    case "notificationOutcomeUnknown": {
      const { messageId, code } = kind.value;
      return change(messageId, () => ({ status: "UNKNOWN", code }));
    }
    case "notificationReported": {
      const { messageId, report, code, detail, providerMessageId } = kind.value;
      return change(messageId, (message) => ({
        status: REPORTED[report] ?? message.status,
        ...{ code, detail },
        ...(providerMessageId !== "" && { providerMessageId }),
        ...(message.acceptedAt === undefined && { acceptedAt: recordedAt }),
      }));
    }
    default:
      return before;
  }
}
