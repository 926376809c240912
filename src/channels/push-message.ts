import { createHash } from "node:crypto";
import type { BaseMessage } from "firebase-admin/messaging";
import type { Message } from "./channel.ts";

/** What a push message shows, and what the app reads. */
export type RenderedPush = { readonly title: string; readonly body: string; readonly data: Readonly<Record<string, string>> };

/** Apple takes no longer ones. */
const MAX_COLLAPSE_BYTES = 64;
/** Four weeks; nothing is kept longer. */
const MAX_TTL_SECONDS = 2_419_200;

/**
 * A message as FCM takes it. All devices know it by our reference, so that one that comes again takes the place of the first; and nobody
 * delivers it after it has become useless.
 */
export function toFcmMessage(message: Message, { title, body, data }: RenderedPush, now: Date): BaseMessage {
  const { messageId, orderId } = message;
  const tag = Buffer.byteLength(messageId) <= MAX_COLLAPSE_BYTES ? messageId : createHash("sha256").update(messageId).digest("base64url");
  const seconds = Math.min(MAX_TTL_SECONDS, Math.max(0, Math.floor(message.usefulSeconds)));
  const expiresAt = Math.floor(now.getTime() / 1000) + seconds;
  return {
    notification: { title, body },
    data: { ...data, message_id: messageId, order_id: orderId },
    android: { ttl: seconds * 1000, notification: { tag } },
    apns: { headers: { "apns-collapse-id": tag, "apns-expiration": String(expiresAt) }, payload: { aps: { sound: "default" } } },
    webpush: { headers: { TTL: String(seconds) }, notification: { tag } },
  };
}
