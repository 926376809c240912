import { equals } from "@bufbuild/protobuf";
import { ConsentSource, type NotificationWishes, NotificationWishesSchema } from "../gen/ordertrail/events/v1/customer_events_pb.js";
import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { NotificationChannel } from "../gen/ordertrail/events/v1/notification_events_pb.js";
import { type Sealed, SealedSchema } from "../gen/ordertrail/events/v1/values_pb.js";
import { happened } from "./order-event.ts";

/** The stream of a customer: what they wish, agree to and refuse, and that they were forgotten. */
export const customerStream = (customerId: string): string => `customer-${customerId}`;

/** What a person last said about a channel. */
export type Consent = {
  readonly isIn: boolean;
  readonly source: ConsentSource;
  readonly place: string;
  readonly wording: string;
  readonly at: Date;
};

/** A customer as their events tell. */
export type CustomerState = {
  readonly erased: boolean;
  readonly wishes?: NotificationWishes | undefined;
  /** An ordertrail.v1.ContactDetails. */
  readonly contact?: Sealed | undefined;
  readonly consents: ReadonlyMap<NotificationChannel, Consent>;
  readonly updatedAt?: Date | undefined;
};

const NOBODY: CustomerState = { erased: false, consents: new Map() };

/** Sets what a customer wishes, as a whole; nothing when they wish it already. */
export function setWishes(
  state: CustomerState | undefined,
  customerId: string,
  wishes: NotificationWishes,
  contact: Sealed | undefined,
): Event[] {
  const isSame =
    state?.wishes !== undefined &&
    equals(NotificationWishesSchema, state.wishes, wishes) &&
    (contact && state.contact ? equals(SealedSchema, contact, state.contact) : contact === state.contact);
  if (isSame) return [];
  return [happened({ case: "notificationPreferencesSet", value: { customerId, wishes, ...(contact && { contact }) } })];
}

/** Records that a customer agreed to a channel: nothing when they last agreed to the same wording, in the same place and by the same address. */
export function optIn(
  state: CustomerState | undefined,
  said: {
    readonly customerId: string;
    readonly channel: NotificationChannel;
    readonly source: ConsentSource;
    readonly place: string;
    readonly wording: string;
    /** Their address, when it is new with this. */
    readonly contact?: Sealed | undefined;
  },
): Event[] {
  const known = state?.consents.get(said.channel);
  const isSame = known?.isIn && known.source === said.source && known.place === said.place && known.wording === said.wording;
  if (isSame && !said.contact) return [];
  if (isSame && said.contact && state?.contact && equals(SealedSchema, said.contact, state.contact)) return [];
  const { contact, ...rest } = said;
  return [happened({ case: "channelOptedIn", value: { ...rest, ...(contact && { contact }) } })];
}

/** Records that a customer is to get nothing by a channel any more; nothing when that is so already. */
export function optOut(
  state: CustomerState | undefined,
  said: { readonly customerId: string; readonly channel: NotificationChannel; readonly source: ConsentSource; readonly place: string },
): Event[] {
  if (state?.consents.get(said.channel)?.isIn === false) return [];
  return [happened({ case: "channelOptedOut", value: said })];
}

/** A customer who names a channel again that they had unsubscribed from wants it again. A word such as STOP is taken back by a word only. */
export function comeBack(state: CustomerState | undefined, customerId: string, wishes: NotificationWishes): Event[] {
  const named = new Set([...wishes.channels, ...wishes.categories.flatMap(({ channels }) => channels)]);
  return [...named].flatMap((channel) => {
    const consent = state?.consents.get(channel);
    const isUnsubscribed = consent?.isIn === false && consent.source === ConsentSource.UNSUBSCRIBE;
    return isUnsubscribed ? optIn(state, { customerId, channel, source: ConsentSource.API, place: "preferences", wording: "" }) : [];
  });
}

/** Whether a customer may be sent something by a channel: WhatsApp wants their consent, the others that they have not refused. */
export function isAllowed(state: CustomerState | undefined, channel: NotificationChannel): boolean {
  const consent = state?.consents.get(channel);
  return channel === NotificationChannel.WHATSAPP ? consent?.isIn === true : consent?.isIn !== false;
}

/** The customer after an event. Events of other kinds change nothing. A new address ends what came of the old one's bouncing. */
export function evolveCustomer(
  state: CustomerState | undefined,
  event: Event,
  { recordedAt }: { readonly recordedAt: Date },
): CustomerState {
  const before = state ?? NOBODY;
  const { kind } = event;
  const consented = (channel: NotificationChannel, consent: Consent) => new Map(before.consents).set(channel, consent);
  switch (kind.case) {
    case "notificationPreferencesSet": {
      const { wishes, contact } = kind.value;
      const consents = isSameContact(before.contact, contact) ? before.consents : withoutBounces(before.consents);
      return { ...before, wishes, contact, consents, updatedAt: recordedAt };
    }
    case "channelOptedIn": {
      const { channel, source, place, wording, contact } = kind.value;
      const consents = consented(channel, { isIn: true, source, place, wording, at: recordedAt });
      return { ...before, consents, ...(contact && { contact }), updatedAt: recordedAt };
    }
    case "channelOptedOut": {
      const { channel, source, place } = kind.value;
      return {
        ...before,
        consents: consented(channel, { isIn: false, source, place, wording: "", at: recordedAt }),
        updatedAt: recordedAt,
      };
    }
    case "customerErased":
      return { ...NOBODY, erased: true, updatedAt: recordedAt };
    default:
      return before;
  }
}

function isSameContact(one: Sealed | undefined, other: Sealed | undefined): boolean {
  return one && other ? equals(SealedSchema, one, other) : one === other;
}

function withoutBounces(consents: CustomerState["consents"]): CustomerState["consents"] {
  return new Map([...consents].filter(([, { isIn, source }]) => isIn || source !== ConsentSource.BOUNCE));
}
