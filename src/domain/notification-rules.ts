import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import {
  NotificationAudience,
  NotificationCategory,
  NotificationChannel,
  NotificationPriority,
} from "../gen/ordertrail/events/v1/notification_events_pb.js";
import { Deadline, DriverMilestone } from "../gen/ordertrail/events/v1/values_pb.js";
import type { Happening } from "./order-event.ts";
import type { TemplateName } from "./template-names.ts";

/** What an event means to somebody. */
export type NotificationRule = {
  readonly event: Happening["case"];
  /** Which events of that kind; all, if absent. */
  readonly when?: (kind: Event["kind"]) => boolean;
  readonly audience: NotificationAudience;
  readonly category: NotificationCategory;
  readonly template: TemplateName;
  /** The channels for whoever has not said which they like: the first that reaches them. Stores and operators get it by all of theirs. */
  readonly channels: readonly NotificationChannel[];
  readonly priority: NotificationPriority;
  /** Sent also to whoever has switched its category off. */
  readonly mandatory?: true;
  /** Tells how things stand, and no more: one that still waits gives way to the next message. */
  readonly merges?: true;
  /** For how long after the event it is worth sending. */
  readonly usefulSeconds: number;
};

const { CUSTOMER, STORE, OPERATOR } = NotificationAudience;
const { ORDER_UPDATES, SUBSTITUTIONS, DELIVERY } = NotificationCategory;
const { EMAIL, SMS, WHATSAPP, PUSH, WEBHOOK } = NotificationChannel;
const { LOW, NORMAL, URGENT } = NotificationPriority;

/** Silent first, for what is nice to know. */
const QUIETLY = [PUSH, WHATSAPP, EMAIL, SMS] as const;
/** By what people look at soon. */
const QUICKLY = [PUSH, SMS, WHATSAPP, EMAIL] as const;
/** By what people keep. */
const FOR_THE_RECORD = [EMAIL, PUSH, WHATSAPP, SMS] as const;
const TO_STORES = [WEBHOOK, EMAIL, SMS] as const;
const TO_OPERATORS = [EMAIL] as const;

const HOUR = 3600;
const DAY = 24 * HOUR;

const reminds =
  (deadline: Deadline) =>
  (kind: Event["kind"]): boolean =>
    (kind.case === "deadlineReminded" || kind.case === "deadlineEscalated") && kind.value.deadline === deadline;
const reaches =
  (milestone: DriverMilestone) =>
  (kind: Event["kind"]): boolean =>
    kind.case === "driverMilestoneReached" && kind.value.milestone === milestone;

/** Who hears what of which event: all of it. */
export const NOTIFICATION_RULES: readonly NotificationRule[] = [
  toCustomer("orderSubmitted", "order-received", ORDER_UPDATES, FOR_THE_RECORD, NORMAL, { usefulSeconds: DAY }),
  toCustomer("storeAcknowledged", "order-confirmed", ORDER_UPDATES, QUIETLY, NORMAL, { merges: true, usefulSeconds: 6 * HOUR }),
  toCustomer("pickingStarted", "order-picking", ORDER_UPDATES, QUIETLY, LOW, { merges: true, usefulSeconds: 2 * HOUR }),
  toCustomer("substitutionsProposed", "substitutions-needed", SUBSTITUTIONS, QUICKLY, URGENT, { usefulSeconds: HOUR }),
  toCustomer("deadlineReminded", "substitutions-reminder", SUBSTITUTIONS, QUICKLY, URGENT, {
    when: reminds(Deadline.SUBSTITUTIONS),
    usefulSeconds: HOUR,
  }),
  toCustomer("orderReadied", "order-ready", ORDER_UPDATES, QUIETLY, LOW, { merges: true, usefulSeconds: 2 * HOUR }),
  toCustomer("driverAssigned", "driver-assigned", DELIVERY, QUIETLY, LOW, { merges: true, usefulSeconds: HOUR }),
  toCustomer("transitStarted", "order-on-the-way", DELIVERY, QUICKLY, NORMAL, { merges: true, usefulSeconds: HOUR }),
  toCustomer("driverMilestoneReached", "driver-near", DELIVERY, QUICKLY, URGENT, {
    when: reaches(DriverMilestone.NEAR_CUSTOMER),
    merges: true,
    usefulSeconds: HOUR / 4,
  }),
  toCustomer("driverMilestoneReached", "driver-arrived", DELIVERY, QUICKLY, URGENT, {
    when: reaches(DriverMilestone.ARRIVED),
    merges: true,
    usefulSeconds: HOUR / 4,
  }),
  toCustomer("orderDelivered", "order-delivered", DELIVERY, FOR_THE_RECORD, NORMAL, { usefulSeconds: 2 * DAY }),
  toCustomer("deliveryFailed", "delivery-failed", DELIVERY, QUICKLY, URGENT, { mandatory: true, usefulSeconds: DAY }),
  toCustomer("orderCancelled", "order-cancelled", ORDER_UPDATES, FOR_THE_RECORD, NORMAL, { mandatory: true, usefulSeconds: 2 * DAY }),

  toStore("orderSubmitted", "store-new-order", URGENT, { usefulSeconds: DAY }),
  toStore("deadlineReminded", "store-reminder", URGENT, { when: reminds(Deadline.ACKNOWLEDGMENT), usefulSeconds: 2 * HOUR }),
  toStore("deadlineEscalated", "store-escalation", URGENT, { when: reminds(Deadline.ACKNOWLEDGMENT), usefulSeconds: 2 * HOUR }),
  toStore("substitutionsResolved", "store-substitutions-answered", URGENT, { usefulSeconds: 2 * HOUR }),
  toStore("orderCancelled", "store-order-cancelled", URGENT, { usefulSeconds: DAY }),

  {
    ...{ event: "deadlineEscalated", audience: OPERATOR, category: ORDER_UPDATES, template: "operator-escalation" },
    ...{ channels: TO_OPERATORS, priority: URGENT, usefulSeconds: DAY },
  },
];

type Details = Pick<NotificationRule, "when" | "mandatory" | "merges" | "usefulSeconds">;

function toCustomer(
  event: Happening["case"],
  template: TemplateName,
  category: NotificationCategory,
  channels: readonly NotificationChannel[],
  priority: NotificationPriority,
  details: Details,
): NotificationRule {
  return { event, audience: CUSTOMER, category, template, channels, priority, ...details };
}

function toStore(event: Happening["case"], template: TemplateName, priority: NotificationPriority, details: Details): NotificationRule {
  return { event, audience: STORE, category: ORDER_UPDATES, template, channels: TO_STORES, priority, ...details };
}

/** The rule by which a template is sent: each has one. */
export function ruleOf(template: string): NotificationRule | undefined {
  return BY_TEMPLATE.get(template);
}

const BY_TEMPLATE: ReadonlyMap<string, NotificationRule> = new Map(NOTIFICATION_RULES.map((rule) => [rule.template, rule]));
const EVENTS: ReadonlySet<string | undefined> = new Set(NOTIFICATION_RULES.map(({ event }) => event));

/** Whether any rule is about events of this kind. */
export function hasRules({ kind }: Event): boolean {
  return EVENTS.has(kind.case);
}

/**
 * What an entry's events mean, at most one rule for each audience: the most urgent, of those the last. An entry tells one thing: what
 * it implies besides, such as that the goods were picked up when they are on the way, is no message of its own.
 */
export function rulesFor(events: readonly Event[]): readonly { readonly rule: NotificationRule; readonly event: Event }[] {
  const chosen = new Map<NotificationAudience, { rule: NotificationRule; event: Event }>();
  for (const event of events) {
    for (const rule of NOTIFICATION_RULES) {
      if (rule.event !== event.kind.case || rule.when?.(event.kind) === false) continue;
      const before = chosen.get(rule.audience);
      if (!before || rule.priority >= before.rule.priority) chosen.set(rule.audience, { rule, event });
    }
  }
  return [...chosen.values()];
}
