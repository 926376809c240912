import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type CustomerState, isAllowed } from "../../src/domain/customer.ts";
import { failOver, type Occasion, planMessages, type Receiver } from "../../src/domain/notification-plan.ts";
import { NOTIFICATION_RULES, type NotificationRule, rulesFor } from "../../src/domain/notification-rules.ts";
import { evolveNotifications, type NotificationsState } from "../../src/domain/notifications.ts";
import { happened } from "../../src/domain/order-event.ts";
import { TEMPLATE_NAMES } from "../../src/domain/template-names.ts";
import { ConsentSource, NotificationWishesSchema } from "../../src/gen/ordertrail/events/v1/customer_events_pb.js";
import type { Event } from "../../src/gen/ordertrail/events/v1/log_entry_pb.js";
import {
  NotificationAudience,
  NotificationChannel,
  NotificationPriority,
  NotificationReason,
} from "../../src/gen/ordertrail/events/v1/notification_events_pb.js";

const { EMAIL, SMS, WHATSAPP, PUSH, IN_APP, WEBHOOK } = NotificationChannel;
const CHANNELS = [EMAIL, SMS, WHATSAPP, PUSH, IN_APP];
const NOW = new Date("2026-11-26T12:00:00Z");
const SETTINGS = { now: NOW, gatherMs: 60_000, limitMs: 0 };
const CUSTOMER_RULES = NOTIFICATION_RULES.filter(({ audience }) => audience === NotificationAudience.CUSTOMER);

const rule = (template: string) => NOTIFICATION_RULES.find((each) => each.template === template) as NotificationRule;
const occasion = (template: string, version = 1, at = NOW): Occasion => ({
  ...{ rule: rule(template), eventType: "Event", position: 100 + version, orderVersion: version, orderId: "o", at },
});
const receiver = (reached: readonly NotificationChannel[], customer?: Partial<CustomerState>): Receiver => ({
  ...{ recipientId: "ada", reached, locale: "en", timeZone: "UTC" },
  customer: { erased: false, consents: new Map(), ...customer },
});
const said = (isIn: boolean) => ({ isIn, source: ConsentSource.API, place: "", wording: "", at: NOW });
const plans = (events: readonly Event[]) => events.flatMap(({ kind }) => (kind.case === "notificationPlanned" ? [kind.value] : []));
const evolveAll = (state: NotificationsState | undefined, events: readonly Event[], at = NOW) =>
  events.reduce<NotificationsState | undefined>((before, event) => evolveNotifications(before, event, { recordedAt: at }), state);

describe("the rules", () => {
  it("name every template once, with at least one channel", () => {
    expect(NOTIFICATION_RULES.map(({ template }) => template).sort()).toEqual([...TEMPLATE_NAMES].sort());
    for (const { channels } of NOTIFICATION_RULES) expect(channels.length).toBeGreaterThan(0);
  });

  it("tell one thing of an entry of several events", () => {
    const events = [
      happened({ case: "driverPickupCompleted", value: {} }),
      happened({ case: "driverAssigned", value: {} }),
      happened({ case: "transitStarted", value: {} }),
    ];
    expect(rulesFor(events).map(({ rule: { template } }) => template)).toEqual(["order-on-the-way"]);
  });
});

describe("a plan", () => {
  it("is made once for each entry, whoever asks again", () => {
    const first = planMessages(undefined, occasion("order-received"), receiver([EMAIL, IN_APP]), SETTINGS);
    expect(plans(first).map(({ messageId }) => messageId)).toEqual(["101.customer.email", "101.customer.in_app"]);
    const state = evolveAll(undefined, first);
    expect(planMessages(state, occasion("order-received"), receiver([EMAIL, SMS, IN_APP]), SETTINGS)).toEqual([]);
  });

  it("merges what tells how things stand, and nothing else", () => {
    const to = receiver([PUSH, IN_APP]);
    let state = evolveAll(undefined, planMessages(undefined, occasion("order-picking", 1), to, SETTINGS));
    state = evolveAll(state, planMessages(state, occasion("order-ready", 2), to, SETTINGS));
    state = evolveAll(state, planMessages(state, occasion("driver-assigned", 3), to, SETTINGS));
    const pushed = [...(state?.messages.values() ?? [])].filter(({ plan }) => plan.channel === PUSH);
    expect(pushed.map(({ status, reason }) => [status, reason])).toEqual([
      ["SUPPRESSED", NotificationReason.MERGED],
      ["SUPPRESSED", NotificationReason.MERGED],
      ["WAITING", NotificationReason.GATHERING],
    ]);
    // The newest goes when the first would have gone.
    expect(pushed[2]?.notBefore).toEqual(new Date(NOW.getTime() + 60_000));
    const urgent = planMessages(state, occasion("substitutions-needed", 4), to, SETTINGS);
    expect(plans(urgent)[0]?.notBefore).toBeUndefined();
  });

  it("comes to nothing, with the reason, for the forgotten and for what is too late", () => {
    const [forgotten] = planMessages(undefined, occasion("order-received"), receiver([EMAIL], { erased: true }), SETTINGS);
    expect(forgotten?.kind.value).toMatchObject({ reason: NotificationReason.ERASED, messageId: "101.customer" });
    const [late] = planMessages(undefined, occasion("driver-near", 1, new Date(NOW.getTime() - 3_600_000)), receiver([PUSH]), SETTINGS);
    expect(late?.kind.value).toMatchObject({ reason: NotificationReason.TOO_LATE });
  });

  it("tells a store by every contact it has", () => {
    const events = planMessages(undefined, occasion("store-new-order"), receiver([WEBHOOK, SMS, IN_APP]), SETTINGS);
    expect(plans(events).map(({ channel }) => channel)).toEqual([WEBHOOK, SMS]);
  });

  it("goes on by the next channel that is possible when one has failed", () => {
    const [plan] = plans(planMessages(undefined, occasion("order-received"), receiver([EMAIL, PUSH, SMS]), SETTINGS));
    const [next] = plans(failOver(plan as never, (channel) => channel === SMS));
    expect(next).toMatchObject({ messageId: "101.customer.sms", insteadOf: "101.customer.email", alternatives: [] });
    expect(failOver(plan as never, () => false)).toEqual([]);
  });

  it("is what a plain reading of wishes, consent, category and quiet hours says", () => {
    const channels = fc.uniqueArray(fc.constantFrom(...CHANNELS), { maxLength: 5 });
    const consent = fc.constantFrom(undefined, true, false);
    const wish = fc.record({ off: fc.boolean(), channels });
    const world = fc.record({
      ...{ rule: fc.constantFrom(...CUSTOMER_RULES), reached: channels, channels, wish: fc.option(wish), quiet: fc.boolean() },
      ...{ consents: fc.tuple(consent, consent, consent, consent), hasMany: fc.boolean() },
    });
    fc.assert(
      fc.property(world, ({ rule: wanted, reached, channels: liked, wish: own, quiet, consents, hasMany }) => {
        const wishes = create(NotificationWishesSchema, {
          channels: liked,
          categories: own ? [{ category: wanted.category, off: own.off, channels: own.channels }] : [],
          ...(quiet && { quietHours: { fromMinute: 11 * 60, untilMinute: 13 * 60 } }),
        });
        const known = new Map(
          consents.flatMap((isIn, index) => (isIn === undefined ? [] : [[CHANNELS[index] as number, said(isIn)] as const])),
        );
        const state: CustomerState = { erased: false, wishes, consents: known };
        const events = planMessages(undefined, { ...occasion(wanted.template) }, receiver(reached, state), {
          ...SETTINGS,
          limitMs: hasMany && wanted.priority === NotificationPriority.NORMAL ? 30_000 : 0,
        });

        const can = (channel: NotificationChannel) =>
          reached.includes(channel) && (channel === WHATSAPP ? known.get(channel)?.isIn === true : known.get(channel)?.isIn !== false);
        const isOff = own?.off === true && !wanted.mandatory;
        const list = own && own.channels.length > 0 ? own.channels : liked.length > 0 ? liked : wanted.channels;
        let expected = list.filter((channel) => can(channel));
        if (expected.length === 0 && wanted.mandatory) expected = wanted.channels.filter((channel) => can(channel));
        const [first] = isOff ? [] : expected.filter((channel) => channel !== IN_APP);
        const planned = plans(events);
        const outward = planned.filter(({ channel }) => channel !== IN_APP);
        expect(outward.map(({ channel }) => channel)).toEqual(first === undefined ? [] : [first]);
        for (const { channel } of planned) expect(channel === IN_APP || isAllowed(state, channel)).toBe(true);
        if (isOff) expect(planned).toEqual([]);
        const waits = wanted.priority !== NotificationPriority.URGENT && (quiet || hasMany || wanted.priority === NotificationPriority.LOW);
        for (const plan of outward)
          expect(plan.notBefore !== undefined).toBe(waits && (quiet || wanted.priority === NotificationPriority.LOW || hasMany));
        // Whoever is told nothing can read why.
        expect(events.length).toBeGreaterThan(0);
        for (const { kind } of events) if (kind.case === "notificationSuppressed") expect(kind.value.decisions.length).toBeGreaterThan(0);
      }),
      { numRuns: 3000 },
    );
  });
});
