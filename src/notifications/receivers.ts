import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { Addresses, Channel, PushToken } from "../channels/channel.ts";
import { type CustomerState, customerStream } from "../domain/customer.ts";
import type { Receiver } from "../domain/notification-plan.ts";
import type { OrderState } from "../domain/order.ts";
import type { PushTokenState } from "../domain/push-token.ts";
import type { StoreState } from "../domain/store.ts";
import { NotificationAudience, NotificationChannel } from "../gen/ordertrail/events/v1/notification_events_pb.js";
import type { Sealed } from "../gen/ordertrail/events/v1/values_pb.js";
import { type ContactDetails, ContactDetailsSchema } from "../gen/ordertrail/v1/notification_pb.js";
import type { Transactor } from "../log/transact.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import type { PushTokens } from "../projections/push-tokens.ts";

/** The places of sealed addresses, for the seal. */
export const contactContext = {
  contact: (customerId: string) => `customer-${customerId}/contact`,
  pushToken: (tokenId: string) => `push_token-${tokenId}/token`,
} as const;

/** Who is to be told of an order, and how they can be reached now. */
export type Receivers = {
  find(audience: NotificationAudience, order: OrderState): Promise<Reached>;
};

export type Reached = { readonly receiver: Receiver; readonly to: Addresses };

export type ReceiversOptions = {
  readonly customers: Pick<Transactor<CustomerState>, "read">;
  readonly tokens: Pick<Transactor<PushTokenState>, "read">;
  readonly pushTokens: PushTokens;
  readonly stores: Pick<Transactor<StoreState>, "read">;
  readonly keys: Pick<PersonalKeys, "open">;
  readonly channels: ReadonlyMap<NotificationChannel, Channel>;
  readonly operatorEmail: string | undefined;
  /** What signs the calls to a store's own system. */
  readonly webhookSecret: (storeId: string) => Promise<string>;
  readonly defaultTimeZone: string;
};

const DEFAULT_LOCALE = "en";

export function createReceivers(options: ReceiversOptions): Receivers {
  const { customers, tokens, pushTokens, stores, keys, channels, operatorEmail, webhookSecret, defaultTimeZone } = options;

  const reachedBy = (to: Addresses) => Array.from(channels.values()).flatMap((each) => (each.reaches(to) ? [each.channel] : []));

  /** The customer's devices, each if it is still theirs by the log: what the read model says may be a moment old. */
  async function devicesOf(customerId: string): Promise<PushToken[]> {
    if (!channels.has(NotificationChannel.PUSH)) return [];
    const found = await Promise.all(
      (await pushTokens.of(customerId)).map(async ({ tokenId, sealed }) => {
        const owner = (await tokens.read(tokenId))?.state.owner;
        if (owner?.customerId !== customerId || !sealed) return undefined;
        const token = await keys.open(sealed, contactContext.pushToken(tokenId));
        return token && { tokenId, token: Buffer.from(token).toString() };
      }),
    );
    return found.filter((token) => token !== undefined);
  }

  async function customerOf({ customerId, storeId }: OrderState): Promise<Reached> {
    const [customer, store, devices] = await Promise.all([customers.read(customerId), stores.read(storeId), devicesOf(customerId)]);
    const state = customer?.state;
    const contact = await openContact(keys, customerId, state?.contact);
    const to: Addresses = {
      ...(contact?.email && { email: contact.email }),
      ...(contact?.phone && { phone: contact.phone }),
      ...(devices.length > 0 && { pushTokens: devices }),
    };
    const profile = store?.state.profile;
    return {
      to,
      receiver: {
        ...{ recipientId: customerId, reached: reachedBy(to), customer: state },
        locale: state?.wishes?.locale || profile?.locale || DEFAULT_LOCALE,
        timeZone: state?.wishes?.timeZone || profile?.timeZone || defaultTimeZone,
      },
    };
  }

  async function storeOf({ storeId }: OrderState): Promise<Reached> {
    const profile = (await stores.read(storeId))?.state.profile;
    const to: Addresses = {
      ...(profile?.email && { email: profile.email }),
      ...(profile?.smsPhone && { phone: profile.smsPhone }),
      ...(profile?.webhookUrl && { webhook: { url: profile.webhookUrl, secret: await webhookSecret(storeId) } }),
    };
    const receiver = {
      ...{ recipientId: storeId, reached: reachedBy(to) },
      ...{ locale: profile?.locale || DEFAULT_LOCALE, timeZone: profile?.timeZone || defaultTimeZone },
    };
    return { to, receiver };
  }

  return {
    async find(audience, order) {
      if (audience === NotificationAudience.CUSTOMER) return await customerOf(order);
      if (audience === NotificationAudience.STORE) return await storeOf(order);
      const to: Addresses = operatorEmail === undefined ? {} : { email: operatorEmail };
      return { to, receiver: { recipientId: "", reached: reachedBy(to), locale: DEFAULT_LOCALE, timeZone: defaultTimeZone } };
    },
  };
}

/** A customer's addresses in the clear; undefined when there are none, or they are gone. */
export async function openContact(
  keys: Pick<PersonalKeys, "open">,
  customerId: string,
  contact: Sealed | undefined,
): Promise<ContactDetails | undefined> {
  const opened = contact && (await keys.open(contact, contactContext.contact(customerId)));
  return opened && fromBinary(ContactDetailsSchema, opened);
}

/** Seals a customer's addresses; undefined when there are none, or the customer has been forgotten. */
export async function sealContact(
  keys: Pick<PersonalKeys, "sealLasting">,
  customerId: string,
  contact: { readonly email: string; readonly phone: string },
): Promise<Sealed | undefined> {
  if (contact.email === "" && contact.phone === "") return undefined;
  const bytes = toBinary(ContactDetailsSchema, create(ContactDetailsSchema, contact));
  return await keys.sealLasting(customerStream(customerId), bytes, contactContext.contact(customerId));
}
