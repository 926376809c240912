import { createHmac } from "node:crypto";
import { request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import { isIP } from "node:net";
import type { TemplateName } from "../domain/template-names.ts";
import { NotificationChannel } from "../gen/ordertrail/events/v1/notification_events_pb.js";
import type { MessageVariables } from "../templates/message-variables.ts";
import { type Accepted, type Channel, ChannelError, type Message } from "./channel.ts";
import { parseRetryAfter } from "./http-retry-after.ts";
import type { ProviderCalls } from "./provider-calls.ts";
import { AddressNotPublic, isPublic, lookupPublic } from "./public-addresses.ts";

export type RenderText = (template: TemplateName, locale: string, variables: MessageVariables) => string;

export type StoreWebhookParts = {
  readonly render: RenderText;
  readonly calls: ProviderCalls;
  readonly clock?: () => Date;
};

export type StoreWebhookOptions = {
  /** How long one call may take. */
  readonly timeoutMs: number;
  /** Whether stores may be on this machine or in its network, and without TLS: for development. */
  readonly allowPrivate: boolean;
};

/** Answers that say "not now" rather than "not this". */
const PASSING: readonly number[] = [408, 425, 429];
const notPublic = () => new ChannelError("refused", "address_not_public", "the store's address is not one that we may call");

/**
 * Calls to a store's own system, signed in the form of the Standard Webhooks specification. A repeat has the same identifier and does a
 * store no harm, so what may have been taken and what was not are the same: `unavailable`. Of an answer the status is all that is read.
 */
export function createStoreWebhook(
  { timeoutMs, allowPrivate }: StoreWebhookOptions,
  { render, calls, clock = () => new Date() }: StoreWebhookParts,
): Channel {
  const provider = "store-webhook";

  function post(url: URL, body: string, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Accepted> {
    const request = url.protocol === "https:" ? requestHttps : requestHttp;
    return new Promise((resolve, reject) => {
      const call = request(url, { method: "POST", headers, signal, agent: false, ...(!allowPrivate && { lookup: lookupPublic }) });
      call.once("error", (error) => reject(error instanceof AddressNotPublic ? notPublic() : broken(signal)));
      call.once("response", (response) => {
        // What comes after the head is neither wanted nor waited for.
        response.on("error", () => undefined);
        response.destroy();
        const refusal = refusalOf(response.statusCode ?? 0, parseRetryAfter(response.headers["retry-after"]));
        if (refusal) reject(refusal);
        else resolve({ providerMessageId: "" });
      });
      call.end(body);
    });
  }

  return {
    channel: NotificationChannel.WEBHOOK,
    provider,
    reaches: ({ webhook }) => webhook !== undefined,
    async send(message, signal) {
      signal.throwIfAborted();
      const { webhook } = message.to;
      if (!webhook) throw new ChannelError("refused", "no_address", "the store has no webhook");
      const url = callable(webhook.url, allowPrivate);
      const body = JSON.stringify(bodyOf(message, render(message.template, message.locale, message.variables)));
      const headers = {
        "content-type": "application/json",
        "content-length": String(Buffer.byteLength(body)),
        "user-agent": "Ordertrail",
        ...signatureOf(message.messageId, Math.floor(clock().getTime() / 1000), body, webhook.secret),
      };
      const started = performance.now();
      let outcome = "accepted";
      try {
        return await post(url, body, headers, AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]));
      } catch (error) {
        outcome = error instanceof ChannelError ? error.code : "failed";
        throw error;
      } finally {
        calls.record(provider, outcome, performance.now() - started);
      }
    },
  };
}

/** The headers that sign a call. The secret is "whsec_" and a key in base64. */
function signatureOf(id: string, timestamp: number, body: string, secret: string): Readonly<Record<string, string>> {
  const [, encoded = ""] = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(secret) ?? [];
  const key = Buffer.from(encoded, "base64");
  if (key.length === 0) throw new ChannelError("refused", "bad_secret", "the store's webhook has a secret that is none");
  const signature = createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64");
  return { "webhook-id": id, "webhook-timestamp": String(timestamp), "webhook-signature": `v1,${signature}` };
}

/** What a store is told: what has happened, and what its own people must know. */
function bodyOf({ messageId, orderId, template, variables }: Message, text: string): object {
  const { status, items, item_count, due_at, reason, substitutions } = variables;
  const told = { message_id: messageId, type: template, order_id: orderId };
  return { ...told, status, items, item_count, substitutions, due_at, reason, text };
}

/** The address, if it is one that may be called. Names are checked when they are looked up. */
function callable(text: string, allowPrivate: boolean): URL {
  const url = URL.parse(text);
  if (!url || (url.protocol !== "https:" && url.protocol !== "http:") || url.username !== "" || url.password !== "")
    throw new ChannelError("refused", "bad_address", "the store's address is not one of the web");
  if (allowPrivate) return url;
  if (url.protocol !== "https:") throw new ChannelError("refused", "not_https", "the store's address is not one of https");
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  if (isIP(host) !== 0 && !isPublic(host)) throw notPublic();
  return url;
}

function broken(signal: AbortSignal): ChannelError {
  if (signal.aborted) return new ChannelError("unavailable", "timeout", "the store's system did not answer in time");
  return new ChannelError("unavailable", "no_connection", "the connection to the store's system failed");
}

function refusalOf(status: number, retryAfterMs: number | undefined): ChannelError | undefined {
  const code = `http_${status}`;
  if (status >= 200 && status < 300) return undefined;
  if (status === 410) return new ChannelError("refused", code, "the store's system wants no more calls", { optOut: "provider" });
  if (PASSING.includes(status)) return new ChannelError("unavailable", code, "the store's system has too much to do", { retryAfterMs });
  if (status >= 500) return new ChannelError("unavailable", code, "the store's system has trouble", { retryAfterMs });
  if (status >= 400) return new ChannelError("refused", code, "the store's system refused it");
  return new ChannelError("refused", code, "the store's system is elsewhere, and redirects are not followed");
}
