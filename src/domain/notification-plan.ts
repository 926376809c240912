import { clone } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { NotificationWishes } from "../gen/ordertrail/events/v1/customer_events_pb.js";
import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import {
  NotificationAudience,
  NotificationCategory,
  NotificationChannel,
  type NotificationPlanned,
  NotificationPlannedSchema,
  NotificationPriority,
  NotificationReason,
} from "../gen/ordertrail/events/v1/notification_events_pb.js";
import { type CustomerState, isAllowed } from "./customer.ts";
import type { NotificationRule } from "./notification-rules.ts";
import { giveWayTo, messageIdOf, type NotificationsState, suppressed } from "./notifications.ts";
import { happened } from "./order-event.ts";
import { quietUntil } from "./quiet-hours.ts";

/** An event that a rule is about, and of which order. */
export type Occasion = {
  readonly rule: NotificationRule;
  readonly eventType: string;
  readonly position: number;
  readonly orderVersion: number;
  readonly orderId: string;
  readonly at: Date;
};

/** To whom a message would go, and by what it could. */
export type Receiver = {
  readonly recipientId: string;
  /** The channels that are on and reach them by an address. */
  readonly reached: readonly NotificationChannel[];
  readonly locale: string;
  readonly timeZone: string;
  /** Of customers only. */
  readonly customer?: CustomerState | undefined;
};

export type PlanSettings = {
  readonly now: Date;
  /** For how long a message of low priority waits for newer news. */
  readonly gatherMs: number;
  /** For how long a message that can wait has to, as there have been many. */
  readonly limitMs: number;
};

/** A customer's own wish where they have one; with it goes whoever is to be told although they want nothing. */
type Choice = {
  readonly channels: readonly NotificationChannel[];
  readonly decisions: readonly string[];
  readonly refused?: NotificationReason;
};

const { IN_APP } = NotificationChannel;
const { CUSTOMER } = NotificationAudience;

/** What an event leads to for its rule's audience: messages, or why there are none; nothing when it has been looked at before. */
export function planMessages(
  state: NotificationsState | undefined,
  occasion: Occasion,
  receiver: Receiver,
  settings: PlanSettings,
): Event[] {
  if (occasion.orderVersion <= (state?.plannedVersion ?? 0)) return [];
  return occasion.rule.audience === CUSTOMER
    ? planForCustomer(state, occasion, receiver, settings)
    : planForOthers(occasion, receiver, settings);
}

/** Stores and operators are told by every channel that they have. */
function planForOthers(occasion: Occasion, { recipientId, reached, locale }: Receiver, { now }: PlanSettings): Event[] {
  const channels = occasion.rule.channels.filter((channel) => reached.includes(channel));
  const late = channels.length > 0 && isTooLate(occasion, now);
  if (late) return [notEven(occasion, recipientId, NotificationReason.TOO_LATE, [ruleSays(occasion), late])];
  return channels.map((channel) =>
    planned(occasion, recipientId, channel, { locale, decisions: [ruleSays(occasion), `${name(channel)}: one of their contacts`] }),
  );
}

function planForCustomer(state: NotificationsState | undefined, occasion: Occasion, receiver: Receiver, settings: PlanSettings): Event[] {
  const { rule } = occasion;
  const { recipientId, customer, locale } = receiver;
  const first = ruleSays(occasion);
  if (customer?.erased) return [notEven(occasion, recipientId, NotificationReason.ERASED, [first, "the customer has been forgotten"])];
  const late = isTooLate(occasion, settings.now);
  if (late) return [notEven(occasion, recipientId, NotificationReason.TOO_LATE, [first, late])];
  const choice = chooseChannels(rule, receiver);
  if (choice.refused) return [notEven(occasion, recipientId, choice.refused, [first, ...choice.decisions])];

  const events: Event[] = [];
  const [channel, ...alternatives] = choice.channels.filter((each) => each !== IN_APP);
  if (channel !== undefined) {
    const wait = waitOf(rule, receiver, settings);
    const given = giveWayTo(state, { audience: rule.audience, channel });
    const messageId = messageIdOf(occasion.position, rule.audience, channel);
    // What was to wait may go at the time of the message in whose place it goes: the newest of many, not a later one each time.
    const earliest = wait && given.map(({ notBefore }) => notBefore).sort((one, other) => one.getTime() - other.getTime())[0];
    const until = wait && (earliest && earliest < wait.until && earliest > settings.now ? earliest : wait.until);
    events.push(...given.map(({ plan }) => suppressed(plan.messageId, NotificationReason.MERGED, messageId)));
    const decisions = [
      first,
      ...choice.decisions,
      ...given.map(({ plan }) => `takes the place of ${plan.messageId}, which still waited`),
      ...(wait && until ? [`${wait.why}: waits until ${until.toISOString()}`] : ["goes at once"]),
    ];
    const times = wait && until ? { notBefore: until, waitsFor: wait.reason } : {};
    events.push(planned(occasion, recipientId, channel, { locale, decisions, alternatives, ...times }));
  }
  if (receiver.reached.includes(IN_APP) && (channel === undefined || isListedOrFree(IN_APP, rule, customer?.wishes))) {
    const decisions = channel === undefined ? [first, ...choice.decisions, "shown in the app"] : [first, "shown in the app as well"];
    const messageId = messageIdOf(occasion.position, rule.audience, IN_APP);
    events.push(
      planned(occasion, recipientId, IN_APP, { locale, decisions }),
      happened({ case: "notificationAccepted", value: { messageId, attempt: 1, providerMessageId: messageId } }),
    );
  }
  if (events.length === 0) return [notEven(occasion, recipientId, NotificationReason.NO_CHANNEL, [first, ...choice.decisions])];
  return events;
}

/** The app shows everything, unless a customer has named channels for the category and the app is not among them: then it is for when nothing else reaches them. */
function isListedOrFree(channel: NotificationChannel, rule: NotificationRule, wishes: NotificationWishes | undefined): boolean {
  const own = wishOf(rule, wishes)?.channels ?? [];
  return own.length === 0 || own.includes(channel);
}

function wishOf({ category }: NotificationRule, wishes: NotificationWishes | undefined) {
  return wishes?.categories.find((wish) => wish.category === category);
}

/** The channels by which a customer is to be told, the first one first. */
function chooseChannels(rule: NotificationRule, { reached, customer }: Receiver): Choice {
  const wishes = customer?.wishes;
  const wish = wishOf(rule, wishes);
  const decisions: string[] = [];
  if (wish?.off && !rule.mandatory) {
    return {
      ...{ channels: [], refused: NotificationReason.CATEGORY_OFF },
      decisions: [`the customer wants none about ${categoryName(rule)}`],
    };
  }
  if (wish?.off) decisions.push(`the customer wants none about ${categoryName(rule)}, but this one is mandatory`);
  const own = wish && wish.channels.length > 0 ? wish.channels : (wishes?.channels ?? []);
  const wanted = own.length > 0 ? own : rule.channels;
  decisions.push(own.length > 0 ? `the customer likes ${names(own)}` : `the customer has named no channel: ${names(rule.channels)}`);
  const possible = wanted.filter((channel) => {
    const why = whyNot(channel, reached, customer);
    if (why !== undefined) decisions.push(`${name(channel)}: ${why}`);
    return why === undefined;
  });
  if (possible.length > 0) return { channels: possible, decisions };
  if (!rule.mandatory) return { channels: [], decisions: [...decisions, "none of them reaches the customer"] };
  const any = rule.channels.filter((channel) => whyNot(channel, reached, customer) === undefined);
  return {
    channels: any,
    decisions: [
      ...decisions,
      any.length > 0 ? `mandatory: ${names(any)} reaches the customer` : "mandatory, but nothing reaches the customer",
    ],
  };
}

function whyNot(channel: NotificationChannel, reached: readonly NotificationChannel[], customer: CustomerState | undefined) {
  if (!isAllowed(customer, channel))
    return customer?.consents.get(channel) ? "they have refused it, or it bounced" : "they have not opted in";
  return reached.includes(channel) ? undefined : "it is off, or there is no address";
}

/** Why, and until when, a message that can wait has to. */
function waitOf(rule: NotificationRule, { customer, timeZone }: Receiver, { now, gatherMs, limitMs }: PlanSettings) {
  if (rule.priority === NotificationPriority.URGENT) return undefined;
  const quiet = customer?.wishes?.quietHours && quietUntil(customer.wishes.quietHours, customer.wishes.timeZone || timeZone, now);
  if (quiet) return { until: quiet, reason: NotificationReason.QUIET_HOURS, why: "it is a quiet hour for the customer" };
  if (limitMs > 0)
    return { until: new Date(now.getTime() + limitMs), reason: NotificationReason.LIMIT, why: "there have been many messages" };
  if (rule.priority === NotificationPriority.LOW && gatherMs > 0)
    return { until: new Date(now.getTime() + gatherMs), reason: NotificationReason.GATHERING, why: "newer news may follow" };
  return undefined;
}

function isTooLate({ rule, at }: Occasion, now: Date): string | undefined {
  const seconds = Math.round((now.getTime() - at.getTime()) / 1000);
  return seconds > rule.usefulSeconds ? `it happened ${seconds} seconds ago, and is of use for ${rule.usefulSeconds}` : undefined;
}

/** The message that goes by the next channel when one has failed; nothing when there is none left. */
export function failOver(plan: NotificationPlanned, isPossible: (channel: NotificationChannel) => boolean): Event[] {
  const left = plan.alternatives.filter(isPossible);
  const [channel, ...alternatives] = left;
  if (channel === undefined) return [];
  const messageId = messageIdOf(Number(plan.position), plan.audience, channel);
  const next = clone(NotificationPlannedSchema, plan);
  return [
    happened({
      case: "notificationPlanned",
      value: Object.assign(next, {
        ...{ messageId, channel, alternatives, insteadOf: plan.messageId, notBefore: undefined, waitsFor: NotificationReason.UNSPECIFIED },
        decisions: [`${plan.messageId} has failed: ${name(channel)} is the next that the customer likes`],
      }),
    }),
  ];
}

function planned(
  { rule, position, orderVersion, eventType, orderId, at }: Occasion,
  recipientId: string,
  channel: NotificationChannel,
  more: {
    readonly locale: string;
    readonly decisions: readonly string[];
    readonly alternatives?: readonly NotificationChannel[];
    readonly notBefore?: Date;
    readonly waitsFor?: NotificationReason;
  },
): Event {
  const { locale, decisions, alternatives = [], notBefore, waitsFor = NotificationReason.UNSPECIFIED } = more;
  return happened({
    case: "notificationPlanned",
    value: {
      messageId: messageIdOf(position, rule.audience, channel),
      ...{ position: BigInt(position), orderVersion, eventType, orderId, audience: rule.audience, recipientId, channel },
      ...{ category: rule.category, template: rule.template, priority: rule.priority, mandatory: rule.mandatory ?? false },
      ...{ locale, waitsFor, alternatives: [...alternatives], decisions: [...decisions] },
      notAfter: timestampFromDate(new Date(at.getTime() + rule.usefulSeconds * 1000)),
      ...(notBefore && { notBefore: timestampFromDate(notBefore) }),
    },
  });
}

/** That nothing is planned, and why. */
function notEven(occasion: Occasion, recipientId: string, reason: NotificationReason, decisions: readonly string[]): Event {
  const { rule, position, orderVersion, eventType, orderId } = occasion;
  return happened({
    case: "notificationSuppressed",
    value: {
      messageId: messageIdOf(position, rule.audience),
      ...{ reason, position: BigInt(position), orderVersion, eventType, orderId, audience: rule.audience, recipientId },
      ...{ category: rule.category, template: rule.template, decisions: [...decisions] },
    },
  });
}

function ruleSays({ rule, eventType }: Occasion): string {
  const to = NotificationAudience[rule.audience].toLowerCase();
  return `${eventType}: the ${to} is told by the template ${rule.template}${rule.mandatory ? ", in any case" : ""}`;
}

function categoryName({ category }: NotificationRule): string {
  return NotificationCategory[category].toLowerCase().replaceAll("_", " ");
}

const name = (channel: NotificationChannel): string => NotificationChannel[channel].toLowerCase().replaceAll("_", "-");
const names = (channels: readonly NotificationChannel[]): string => channels.map(name).join(", ");
