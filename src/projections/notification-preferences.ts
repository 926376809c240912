import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Db } from "mongodb";
import { type CustomerState, customerStream, evolveCustomer } from "../domain/customer.ts";
import { ConsentSource } from "../gen/ordertrail/events/v1/customer_events_pb.js";
import { NotificationCategory, NotificationChannel } from "../gen/ordertrail/events/v1/notification_events_pb.js";
import type { LogReader } from "../log/reader.ts";
import type { Projection } from "./projection.ts";
import { createStreamProjection, type VersionedDocument } from "./stream-documents.ts";

/** The collection, and the projection's name. */
export const NOTIFICATION_PREFERENCES = "notification_preferences";

const REVISION = 1;
const REST_MS = 1000;

type Folded = { readonly customerId: string; readonly state: CustomerState; readonly version: number };

/** The projection `notification_preferences`: what each customer wishes. How they are reached stands sealed in the log only. */
export function createNotificationPreferencesProjection(db: Db, reader: LogReader): Projection {
  return createStreamProjection<Folded>(db, reader, {
    ...{ name: NOTIFICATION_PREFERENCES, revision: REVISION, key: "customer_id", restMs: REST_MS, prefix: customerStream("") },
    indexes: [],
    fold: (before, { entry }) => {
      const recordedAt = entry.recordedAt ? timestampDate(entry.recordedAt) : new Date(0);
      const state = entry.events.reduce<CustomerState | undefined>(
        (folded, event) => evolveCustomer(folded, event, { recordedAt }),
        before?.state,
      );
      return { customerId: entry.stream.slice(customerStream("").length), state: state as CustomerState, version: entry.version };
    },
    documents: (folded) => [toDocument(folded)],
    streamOf: async (customerId) => customerStream(customerId),
  });
}

function toDocument({ customerId, state: { wishes, contact, consents, erased, updatedAt }, version }: Folded): VersionedDocument {
  return {
    customer_id: customerId,
    channels: (wishes?.channels ?? []).map((channel) => NotificationChannel[channel]),
    categories: (wishes?.categories ?? []).map(({ category, off, channels }) => ({
      category: NotificationCategory[category],
      enabled: !off,
      channels: channels.map((channel) => NotificationChannel[channel]),
    })),
    quiet_hours: wishes?.quietHours ? { from_minute: wishes.quietHours.fromMinute, until_minute: wishes.quietHours.untilMinute } : null,
    time_zone: wishes?.timeZone ?? "",
    locale: wishes?.locale ?? "",
    has_contact: contact !== undefined,
    whatsapp_opted_in: consents.get(NotificationChannel.WHATSAPP)?.isIn === true,
    consents: Array.from(consents, ([channel, { isIn, source, place, wording, at }]) => ({
      channel: NotificationChannel[channel],
      opted_in: isIn,
      source: ConsentSource[source],
      place,
      wording,
      at,
    })),
    erased,
    updated_at: updatedAt ?? null,
    version,
  };
}
