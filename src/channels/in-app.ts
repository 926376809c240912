import { NotificationChannel } from "../gen/ordertrail/events/v1/notification_events_pb.js";
import type { Channel } from "./channel.ts";

/**
 * Messages that the platform's own app shows. No provider has a part in them: what makes one visible is its entry in the log, so it
 * reaches everybody, is taken at once, and is known by our own reference.
 */
export function createInApp(): Channel {
  return {
    channel: NotificationChannel.IN_APP,
    provider: "in-app",
    reaches: () => true,
    async send({ messageId }, signal) {
      signal.throwIfAborted();
      return { providerMessageId: messageId };
    },
  };
}
