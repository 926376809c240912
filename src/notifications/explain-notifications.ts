import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { NotificationReason, NotificationReport } from "../gen/ordertrail/events/v1/notification_events_pb.js";

/** What an event of a message tells people, with the message that it is about; undefined for events of other kinds. */
export function explainEvent({ kind }: Event): { readonly messageId: string; readonly texts: readonly string[] } | undefined {
  switch (kind.case) {
    case "notificationPlanned":
      return { messageId: kind.value.messageId, texts: [...kind.value.decisions, "planned"] };
    case "notificationSuppressed": {
      const { messageId, decisions, reason, mergedInto } = kind.value;
      const why = mergedInto === "" ? words(reason) : `${words(reason)}: ${mergedInto}`;
      return { messageId, texts: [...decisions, `not sent: ${why}`] };
    }
    case "notificationAttempted":
      return { messageId: kind.value.messageId, texts: [`the provider is asked, attempt ${kind.value.attempt}`] };
    case "notificationAccepted": {
      const { messageId, providerMessageId, foundLater } = kind.value;
      const by = providerMessageId === "" ? "" : ` as ${providerMessageId}`;
      return { messageId, texts: [`${foundLater ? "asked later, the provider says that it has" : "the provider has"} taken it${by}`] };
    }
    case "notificationHeld": {
      const { messageId, reason, until, code } = kind.value;
      const when = until ? ` until ${timestampDate(until).toISOString()}` : "";
      return { messageId, texts: [`waits${when}: ${words(reason)}${code === "" ? "" : ` (${code})`}`] };
    }
    case "notificationFailed":
      return { messageId: kind.value.messageId, texts: [`failed: ${kind.value.detail} (${kind.value.code})`] };
    case "notificationOutcomeUnknown":
      return {
        messageId: kind.value.messageId,
        texts: [`nobody knows whether the provider has taken it (${kind.value.code}); it is not sent again`],
      };
    case "notificationReported": {
      const { messageId, report, code, detail } = kind.value;
      const why = [detail, code && `(${code})`].filter((part) => part !== "").join(" ");
      return { messageId, texts: [`the provider reports: ${NotificationReport[report].toLowerCase()}${why === "" ? "" : `: ${why}`}`] };
    }
    default:
      return undefined;
  }
}

function words(reason: NotificationReason): string {
  return REASONS[reason];
}

const REASONS: Readonly<Record<NotificationReason, string>> = {
  [NotificationReason.UNSPECIFIED]: "no reason was given",
  [NotificationReason.CATEGORY_OFF]: "the customer wants none of this category",
  [NotificationReason.NO_CHANNEL]: "no channel reaches the customer",
  [NotificationReason.MERGED]: "a newer message says it",
  [NotificationReason.TOO_LATE]: "it would have come too late to be of use",
  [NotificationReason.ERASED]: "the customer has been forgotten",
  [NotificationReason.QUIET_HOURS]: "it is a quiet hour for the customer",
  [NotificationReason.GATHERING]: "newer news may follow",
  [NotificationReason.LIMIT]: "there have been many messages",
  [NotificationReason.RETRY]: "the provider has not taken it, and may later",
};
