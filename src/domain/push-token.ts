import type { PushPlatform, PushTokenRegistered } from "../gen/ordertrail/events/v1/customer_events_pb.js";
import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import type { Sealed } from "../gen/ordertrail/events/v1/values_pb.js";
import { happened } from "./order-event.ts";

/** The stream of a device's push token, by the SHA-256 of it. One stream a token, so that it has one owner at any time. */
export const pushTokenStream = (tokenId: string): string => `push_token-${tokenId}`;

/** Whose a token is; nobody's after it was removed. */
export type PushTokenState = { readonly owner?: PushTokenRegistered | undefined };

/** Gives a token to a customer, taking it from whose it was; nothing when it is theirs already. */
export function registerToken(
  state: PushTokenState | undefined,
  token: { readonly tokenId: string; readonly customerId: string; readonly platform: PushPlatform; readonly token: Sealed },
): Event[] {
  const { owner } = state ?? {};
  if (owner?.customerId === token.customerId && owner.platform === token.platform) return [];
  const takenOverFrom = owner && owner.customerId !== token.customerId ? owner.customerId : "";
  return [happened({ case: "pushTokenRegistered", value: { ...token, takenOverFrom } })];
}

/** Takes a token from a customer; nothing when it is not theirs. */
export function removeToken(
  state: PushTokenState | undefined,
  { tokenId, customerId, reason }: { readonly tokenId: string; readonly customerId: string; readonly reason: "unregistered" | "expired" },
): Event[] {
  if (state?.owner?.customerId !== customerId) return [];
  return [happened({ case: "pushTokenRemoved", value: { tokenId, customerId, reason } })];
}

/** The token after an event. Events of other kinds change nothing. */
export function evolvePushToken(state: PushTokenState | undefined, { kind }: Event): PushTokenState {
  if (kind.case === "pushTokenRegistered") return { owner: kind.value };
  if (kind.case === "pushTokenRemoved") return {};
  return state ?? {};
}
