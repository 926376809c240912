import { createHash } from "node:crypto";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { parsePhoneNumberFromString } from "libphonenumber-js/max";
import { mayAccess } from "../access/permissions.ts";
import { type CustomerState, comeBack, isAllowed, optIn, optOut, setWishes } from "../domain/customer.ts";
import { evolveNotifications, type NotificationsState, notificationStream } from "../domain/notifications.ts";
import type { OrderState } from "../domain/order.ts";
import { orderNotFound } from "../domain/order-refusals.ts";
import { type PushTokenState, registerToken, removeToken } from "../domain/push-token.ts";
import { isTimeZone } from "../domain/quiet-hours.ts";
import { Refusal } from "../domain/refusal.ts";
import { ConsentSource, NotificationWishesSchema } from "../gen/ordertrail/events/v1/customer_events_pb.js";
import {
  NotificationAudience,
  NotificationCategory,
  NotificationChannel,
  NotificationReason,
} from "../gen/ordertrail/events/v1/notification_events_pb.js";
import { Role } from "../gen/ordertrail/events/v1/values_pb.js";
import { type NotificationPreferencesSchema, type NotificationSchema, NotificationStatus } from "../gen/ordertrail/v1/notification_pb.js";
import type {
  ExplainNotificationsResponseSchema,
  ListNotificationsRequest,
  NotificationService,
  UpdatePreferencesRequest,
} from "../gen/ordertrail/v1/notification_service_pb.js";
import type { LogReader } from "../log/reader.ts";
import type { Snapshot, Transactor } from "../log/transact.ts";
import { explainEvent } from "../notifications/explain-notifications.ts";
import { contactContext, openContact, sealContact } from "../notifications/receivers.ts";
import type { ContactIndex } from "../privacy/contact-index.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import {
  NOTIFICATION_LOGS,
  type NotificationDocument,
  type NotificationListing,
  type NotificationLogs,
} from "../projections/notification-logs.ts";
import type { Projector } from "../projections/projector.ts";
import type { PushTokens } from "../projections/push-tokens.ts";
import type { Call, ServiceHandlers } from "./call.ts";
import { recordedOrigin } from "./origin.ts";
import { formatPageToken, pageLimit, parsePageToken } from "./page-token.ts";
import type { WatchNotifications } from "./watch-notifications.ts";

export type NotificationServiceOptions = {
  readonly customers: Transactor<CustomerState>;
  readonly tokens: Transactor<PushTokenState>;
  readonly orders: Pick<Transactor<OrderState>, "read">;
  readonly reader: Pick<LogReader, "readStream">;
  readonly pushTokens: PushTokens;
  readonly logs: NotificationLogs;
  readonly contacts: Pick<ContactIndex, "note">;
  readonly projector: Pick<Projector, "waitFor">;
  readonly keys: PersonalKeys;
  readonly watch: WatchNotifications;
};

type Preferences = MessageInitShape<typeof NotificationPreferencesSchema>;
type Trace = NonNullable<Exclude<MessageInitShape<typeof ExplainNotificationsResponseSchema>, { $typeName: string }>["traces"]>[number];

const { WHATSAPP } = NotificationChannel;
const MINUTES = 60;

/** NotificationService: what people wish to be told, and what they were told. */
export function createNotificationService(options: NotificationServiceOptions): ServiceHandlers<typeof NotificationService> {
  const { customers, tokens, orders, reader, pushTokens, logs, contacts, projector, keys, watch } = options;

  async function preferencesOf(customerId: string, known: Snapshot<CustomerState> | undefined): Promise<Preferences> {
    const { state } = known ?? {};
    const [contact, devices] = await Promise.all([openContact(keys, customerId, state?.contact), pushTokens.of(customerId)]);
    const { wishes } = state ?? {};
    return {
      ...{ customerId, channels: wishes?.channels ?? [], email: contact?.email ?? "", phone: contact?.phone ?? "" },
      whatsappOptedIn: isAllowed(state, WHATSAPP),
      categories: (wishes?.categories ?? []).map(({ category, off, channels }) => ({ category, enabled: !off, channels })),
      ...(wishes?.quietHours && {
        quietHours: { from: clockTime(wishes.quietHours.fromMinute), until: clockTime(wishes.quietHours.untilMinute) },
      }),
      ...{ timeZone: wishes?.timeZone ?? "", locale: wishes?.locale ?? "" },
      consents: Array.from(state?.consents ?? [], ([channel, { isIn, source, place, wording, at }]) => ({
        ...{ channel, optedIn: isIn, source, place, wording, at: timestampFromDate(at) },
      })),
      pushDevices: devices.map(({ tokenId, platform, registeredAt }) => ({
        tokenId,
        platform,
        registeredAt: timestampFromDate(registeredAt),
      })),
      ...{ version: known?.version ?? 0, position: BigInt(known?.position ?? 0) },
      ...(state?.updatedAt && { updatedAt: timestampFromDate(state.updatedAt) }),
    };
  }

  async function command(method: string, call: Call, customerId: string, requestId = "") {
    const { caller, door, traceId } = call;
    return {
      ...{ method: `ordertrail.v1.NotificationService/${method}`, requestId, correlationId: traceId, door },
      actor: { role: caller.role, subject: caller.subject },
      origin: await recordedOrigin(call, customerId, keys),
    };
  }

  async function seal(customerId: string, contact: { readonly email: string; readonly phone: string }) {
    const sealed = await sealContact(keys, customerId, contact);
    if (!sealed && (contact.email !== "" || contact.phone !== "")) throw erased(customerId);
    if (contact.phone !== "") await contacts.note(customerId, contact.phone);
    return sealed;
  }

  async function list(request: ListNotificationsRequest, call: Call) {
    const filter = filterOf(request, call);
    const digested = {
      filter,
      from: request.plannedFrom && timestampDate(request.plannedFrom),
      before: request.plannedBefore && timestampDate(request.plannedBefore),
    };
    const after = parsePageToken(request.pageToken, ["number", "string"], digested);
    const limit = pageLimit(request.pageSize);
    if (request.minPosition > 0n) await projector.waitFor(NOTIFICATION_LOGS, Number(request.minPosition), call.signal);
    const found = await logs.list({
      ...{ filter, plannedFrom: digested.from, plannedBefore: digested.before, limit: limit + 1 },
      ...(after && { after: { plannedAt: new Date(Number(after[0])), notificationId: String(after[1]) } }),
    });
    const page = found.slice(0, limit);
    const last = page.at(-1);
    const nextPageToken = found.length > limit && last ? formatPageToken([last.planned_at.getTime(), last.notification_id], digested) : "";
    return { notifications: page.map(presentNotification), nextPageToken };
  }

  return {
    async getPreferences({ customerId: named }, call) {
      const customerId = customerOf(named, call);
      return { preferences: await preferencesOf(customerId, await customers.read(customerId)) };
    },

    async updatePreferences(request, call) {
      const customerId = customerOf(request.customerId, call);
      const wishes = wishesOf(request);
      const phone = request.phone === "" ? "" : parsePhone(request.phone, "phone");
      const contact = await seal(customerId, { email: request.email, phone });
      const outcome = await customers.transact(
        customerId,
        {
          ...(await command("UpdatePreferences", call, customerId, request.requestId)),
          decide: (state) => {
            if (state?.erased) throw erased(customerId);
            if (request.whatsappOptedIn !== undefined && request.whatsappOptedIn !== isAllowed(state, WHATSAPP))
              throw invalid("whatsapp_opted_in", "read_only", "is changed by POST /notifications/whatsapp/opt-in and opt-out only");
            const asks = call.caller.role === Role.CUSTOMER ? comeBack(state, customerId, wishes) : [];
            return [...setWishes(state, customerId, wishes, contact), ...asks];
          },
        },
        call.signal,
      );
      if (outcome.appended) call.log({ customer_id: customerId, position: outcome.position }, "preferences set");
      return { preferences: await preferencesOf(customerId, outcome) };
    },

    async registerPushToken({ customerId: named, token, platform }, call) {
      const customerId = customerOf(named, call);
      const tokenId = tokenIdOf(token);
      const sealed = await keys.sealLasting(`customer-${customerId}`, Buffer.from(token), contactContext.pushToken(tokenId));
      if (!sealed) throw erased(customerId);
      const outcome = await tokens.transact(
        tokenId,
        {
          ...(await command("RegisterPushToken", call, customerId)),
          decide: (state) => registerToken(state, { tokenId, customerId, platform, token: sealed }),
        },
        call.signal,
      );
      const takenOver = outcome.appended && (outcome.state.owner?.takenOverFrom ?? "") !== "";
      if (outcome.appended)
        call.log({ customer_id: customerId, position: outcome.position, taken_over: takenOver }, "push token registered");
      return { device: { tokenId, platform }, takenOver };
    },

    async unregisterPushToken({ customerId: named, token }, call) {
      const customerId = customerOf(named, call);
      const tokenId = tokenIdOf(token);
      const outcome = await tokens.transact(
        tokenId,
        {
          ...(await command("UnregisterPushToken", call, customerId)),
          decide: (state) => removeToken(state, { tokenId, customerId, reason: "unregistered" }),
        },
        call.signal,
      );
      return { removed: outcome.appended };
    },

    async optInWhatsApp({ customerId: named, phone: given, source: place, wording }, call) {
      const customerId = customerOf(named, call);
      const known = await openContact(keys, customerId, (await customers.read(customerId))?.state.contact);
      const phone = given === "" ? (known?.phone ?? "") : parsePhone(given, "phone");
      if (phone === "") throw invalid("phone", "required", "is needed: no phone number of this customer is known");
      const contact = await seal(customerId, { email: known?.email ?? "", phone });
      const outcome = await customers.transact(
        customerId,
        {
          ...(await command("OptInWhatsApp", call, customerId)),
          decide: (state) => {
            if (state?.erased) throw erased(customerId);
            return optIn(state, { customerId, channel: WHATSAPP, source: ConsentSource.API, place, wording, contact });
          },
        },
        call.signal,
      );
      if (outcome.appended) call.log({ customer_id: customerId, position: outcome.position }, "opted in to WhatsApp");
      return { preferences: await preferencesOf(customerId, outcome) };
    },

    async optOutWhatsApp({ customerId: named, source: place }, call) {
      const customerId = customerOf(named, call);
      const outcome = await customers.transact(
        customerId,
        {
          ...(await command("OptOutWhatsApp", call, customerId)),
          decide: (state) => (state?.erased ? [] : optOut(state, { customerId, channel: WHATSAPP, source: ConsentSource.API, place })),
        },
        call.signal,
      );
      if (outcome.appended) call.log({ customer_id: customerId, position: outcome.position }, "opted out of WhatsApp");
      return { preferences: await preferencesOf(customerId, outcome) };
    },

    listNotifications: list,

    async explainNotifications({ orderId }, call) {
      const order = await orders.read(orderId);
      if (!order || !mayAccess(call.caller, order.state)) throw orderNotFound(orderId);
      return { traces: await explain(reader, orderId, isForCaller(call)) };
    },

    watchNotifications: (request, call) => watch.open(customerOf(request.customerId, call), Number(request.afterPosition), call),
  };
}

/** Whether a message of an order that the caller may see is shown to them: a customer sees those to them, a store those to it. */
function isForCaller({ caller }: Call): (audience: NotificationAudience) => boolean {
  if (caller.role === Role.CUSTOMER) return (audience) => audience === NotificationAudience.CUSTOMER;
  if (caller.role === Role.STORE) return (audience) => audience === NotificationAudience.STORE;
  return () => true;
}

async function explain(
  reader: Pick<LogReader, "readStream">,
  orderId: string,
  isShown: (audience: NotificationAudience) => boolean,
): Promise<Trace[]> {
  const steps = new Map<string, NonNullable<Exclude<Trace, { $typeName: string }>["steps"]>>();
  let state: NotificationsState | undefined;
  const changed = new Map<string, Date>();
  for (const { entry, position } of await reader.readStream(notificationStream(orderId), 0)) {
    const at = entry.recordedAt ? timestampDate(entry.recordedAt) : new Date(0);
    for (const event of entry.events) {
      state = evolveNotifications(state, event, { recordedAt: at });
      const told = explainEvent(event);
      if (!told) continue;
      changed.set(told.messageId, at);
      const known = steps.get(told.messageId) ?? [];
      steps.set(told.messageId, known);
      for (const text of told.texts) known.push({ at: timestampFromDate(at), text, position: BigInt(position) });
    }
  }
  return Array.from(state?.messages.values() ?? [])
    .filter(({ plan }) => isShown(plan.audience))
    .map((message) => {
      const { plan, status, reason, code, detail, attempts, providerMessageId, plannedAt, acceptedAt, notBefore } = message;
      return {
        notification: {
          ...{ notificationId: plan.messageId, orderId, audience: plan.audience, recipientId: plan.recipientId, channel: plan.channel },
          ...{ category: plan.category, template: plan.template, status: NotificationStatus[status], reason, code, detail, attempts },
          ...{ providerMessageId, eventType: plan.eventType, eventPosition: plan.position, plannedAt: timestampFromDate(plannedAt) },
          updatedAt: timestampFromDate(changed.get(plan.messageId) ?? plannedAt),
          ...(acceptedAt && { sentAt: timestampFromDate(acceptedAt) }),
          ...(status === "WAITING" && { notBefore: timestampFromDate(notBefore) }),
        },
        steps: steps.get(plan.messageId) ?? [],
      };
    });
}

/** The customer whom a call is about: customers act for themselves, others name them. */
function customerOf(named: string, { caller }: Call): string {
  if (caller.role !== Role.CUSTOMER) {
    if (named === "") throw invalid("customer_id", "required", "is needed: name the customer");
    return named;
  }
  if (named === "" || named === caller.subject) return caller.subject;
  throw new Refusal("PERMISSION_DENIED", "customer_id: may only be your own; leave it out", { field: "customer_id" });
}

function filterOf(request: ListNotificationsRequest, { caller }: Call): NotificationListing["filter"] {
  const { recipientId, orderId, channel, status, category, audience } = request;
  const own = caller.role === Role.CUSTOMER ? caller.subject : caller.role === Role.STORE ? (caller.storeId ?? "") : undefined;
  if (own !== undefined && recipientId !== "" && recipientId !== own)
    throw new Refusal("PERMISSION_DENIED", "recipient_id: may only be your own; leave it out", { field: "recipient_id" });
  const to = own ?? recipientId;
  const ownAudience = caller.role === Role.CUSTOMER ? "CUSTOMER" : caller.role === Role.STORE ? "STORE" : undefined;
  const wantedAudience = audience === NotificationAudience.UNSPECIFIED ? ownAudience : NotificationAudience[audience];
  if (ownAudience !== undefined && wantedAudience !== ownAudience)
    throw new Refusal("PERMISSION_DENIED", "audience: may only be your own; leave it out", { field: "audience" });
  return {
    ...(to !== "" && { recipient_id: to }),
    ...(orderId !== "" && { order_id: orderId }),
    ...(wantedAudience !== undefined && { audience: wantedAudience }),
    ...(channel !== NotificationChannel.UNSPECIFIED && { channel: NotificationChannel[channel] }),
    ...(category !== NotificationCategory.UNSPECIFIED && { category: NotificationCategory[category] }),
    ...(status !== NotificationStatus.UNSPECIFIED && { status: NotificationStatus[status] as NotificationDocument["status"] }),
  };
}

/** A message as lists show it. */
function presentNotification(document: NotificationDocument): MessageInitShape<typeof NotificationSchema> {
  return {
    ...{ notificationId: document.notification_id, orderId: document.order_id, recipientId: document.recipient_id },
    audience: NotificationAudience[document.audience as keyof typeof NotificationAudience],
    channel: NotificationChannel[document.channel as keyof typeof NotificationChannel],
    category: NotificationCategory[document.category as keyof typeof NotificationCategory],
    ...{ template: document.template, status: NotificationStatus[document.status] },
    reason: NotificationReason[document.reason as keyof typeof NotificationReason],
    ...{ code: document.code, detail: document.detail, attempts: document.attempts, providerMessageId: document.provider_message_id },
    ...{ eventType: document.event_type, eventPosition: BigInt(document.event_position) },
    ...{ plannedAt: timestampFromDate(document.planned_at), updatedAt: timestampFromDate(document.updated_at) },
    ...(document.sent_at && { sentAt: timestampFromDate(document.sent_at) }),
    ...(document.status === "WAITING" && { notBefore: timestampFromDate(document.not_before) }),
  };
}

function wishesOf({ channels, categories, quietHours, timeZone, locale }: UpdatePreferencesRequest) {
  if (timeZone !== "" && !isTimeZone(timeZone))
    throw invalid("time_zone", "time_zone", "is not the IANA name of a time zone, such as Europe/Berlin");
  for (const [index, { category }] of categories.entries())
    if (categories.findIndex((other) => other.category === category) !== index)
      throw invalid(`categories[${index}].category`, "unique", "is there twice");
  return create(NotificationWishesSchema, {
    ...{ channels, timeZone, locale },
    categories: categories.map(({ category, enabled, channels: own }) => ({ category, off: enabled === false, channels: own })),
    ...(quietHours && { quietHours: { fromMinute: minuteOf(quietHours.from), untilMinute: minuteOf(quietHours.until) } }),
  });
}

/** A phone number in E.164 form. Throws VALIDATION_FAILED for one that no network has. */
function parsePhone(text: string, field: string): string {
  const parsed = parsePhoneNumberFromString(text);
  if (parsed?.isValid()) return parsed.number;
  throw invalid(field, "phone_number", "is not a phone number with its country code, such as +4915112345678");
}

/** By what a push token is known in the log. */
function tokenIdOf(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}

function minuteOf(clock: string): number {
  const [hour = 0, minute = 0] = clock.split(":").map(Number);
  return hour * MINUTES + minute;
}

function clockTime(minutes: number): string {
  return `${String(Math.floor(minutes / MINUTES)).padStart(2, "0")}:${String(minutes % MINUTES).padStart(2, "0")}`;
}

function invalid(field: string, rule: string, detail: string): Refusal {
  return new Refusal("VALIDATION_FAILED", `${field}: ${detail}`, {}, [{ field, rule, detail }]);
}

function erased(customerId: string): Refusal {
  return new Refusal("CUSTOMER_ERASED", `customer ${customerId} has been forgotten`, { customer_id: customerId });
}
