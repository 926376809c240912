import { createHash } from "node:crypto";
import type { Message } from "../../src/channels/channel.ts";
import { ChannelError } from "../../src/channels/channel.ts";
import type { MessageVariables } from "../../src/templates/message-variables.ts";

export const TIMEOUT_MS = 400;
export const never = () => new AbortController().signal;

const VARIABLES: MessageVariables = {
  ...{ order_id: "order-1", status: "IN_TRANSIT", customer_first_name: "Ada", store_name: "Market", driver_first_name: "Robin" },
  ...{ vehicle: "bicycle", eta: "18:35", due_at: "18:10", items: [{ name: "Milk", quantity: "2" }], item_count: 1, substitutions: [] },
  ...{ reason: "", tracking_url: "https://track.example/1", unsubscribe_url: "" },
};

/** What nobody may read in an error. */
export const PERSONAL = /15550107777|Ada|Market|Secret text|device-token|store\.example|whsec_|PRIVATE KEY|Bearer/;

/** A message to somebody who has all addresses; any of it otherwise. */
export function aMessage(more: Partial<Message> = {}): Message {
  return {
    ...{ messageId: "812.customer.test", orderId: "order-1", template: "order-on-the-way", locale: "en", variables: VARIABLES },
    ...{ usefulSeconds: 600, isConversationOpen: false },
    to: {
      phone: "+15550107777",
      pushTokens: [{ tokenId: "t1", token: "device-token-1" }],
      webhook: { url: "https://store.example/hook", secret: `whsec_${createHash("sha256").update("key").digest("base64")}` },
    },
    ...more,
  };
}

/** The ChannelError that a sending ends with; fails the test when it holds what it must not. */
export async function failure(call: Promise<unknown>): Promise<ChannelError> {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof ChannelError)) throw new Error(`it did not end with a ChannelError: ${error}`);
  const all = `${error.stack} ${JSON.stringify(error, Object.getOwnPropertyNames(error))} ${String(error.cause)}`;
  if (PERSONAL.test(all) || error.cause !== undefined) throw new Error(`the error holds what it must not: ${all}`);
  return error;
}
