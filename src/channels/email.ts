import { AsyncLocalStorage } from "node:async_hooks";
import sharedClient from "@sendgrid/client";
import sharedMail from "@sendgrid/mail";
import { NotificationChannel } from "../gen/ordertrail/events/v1/notification_events_pb.js";
import type { RenderedEmail, renderEmail } from "../templates/render.ts";
import { type Accepted, type Channel, ChannelError, type Message } from "./channel.ts";
import { meaningOfStatus } from "./email-codes.ts";
import type { EmailSettings } from "./email-settings.ts";
import { readEmailWebhook, readWebhookKey } from "./email-webhook.ts";
import { parseRetryAfter } from "./http-retry-after.ts";
import { noAnswer } from "./no-answer.ts";
import type { ProviderCalls } from "./provider-calls.ts";

export type EmailParts = { readonly render: typeof renderEmail; readonly calls: ProviderCalls };

type ClientRequest = Parameters<typeof sharedClient.createRequest>[0];
type Mail = Exclude<Parameters<typeof sharedMail.send>[0], readonly unknown[]>;
type Answer = { readonly status: number; readonly headers: Readonly<Record<string, unknown>> };

const MAX_BODY_BYTES = 256 * 1024;
const TAKEN = 202;
// The library has these, and its types do not say so.
const { Client } = sharedClient as unknown as { readonly Client: new () => typeof sharedClient };
const { MailService } = sharedMail as unknown as { readonly MailService: new () => typeof sharedMail };

/**
 * Email, by SendGrid. It knows no idempotency keys and cannot be asked what it has taken: our reference comes back with the webhooks.
 * Opens and clicks are not tracked. Throws when the key of the webhooks is none.
 */
export function createEmail(settings: EmailSettings, { render, calls }: EmailParts): Channel {
  const { baseUrl, apiKey, webhookPublicKey, timeoutMs } = settings;
  const webhookKey = webhookPublicKey === undefined ? undefined : readWebhookKey(webhookPublicKey);
  const signals = new AsyncLocalStorage<AbortSignal>();
  const mail = new MailService();
  const client = new (class extends Client {
    /** The library has no way to end a call; what it calls by has. */
    override createRequest(data: ClientRequest): ClientRequest {
      const limits = { signal: signals.getStore(), maxContentLength: MAX_BODY_BYTES, maxRedirects: 0 };
      return Object.assign(super.createRequest(data), limits);
    }
  })();
  client.setApiKey(apiKey);
  // After the key, with which the library sets its own.
  client.setDefaultRequest("baseUrl", baseUrl);
  mail.setClient(client);
  const provider = "sendgrid";

  async function post(data: Mail, signal: AbortSignal): Promise<Answer> {
    const limit = AbortSignal.timeout(timeoutMs);
    try {
      const [{ statusCode, headers }] = await signals.run(AbortSignal.any([signal, limit]), () => mail.send(data));
      return { status: statusCode, headers: headers ?? {} };
    } catch (error) {
      const answer = answerIn(error);
      if (answer) return answer;
      throw noAnswer(error, { timedOut: limit.aborted, stopped: signal.aborted });
    }
  }

  return {
    channel: NotificationChannel.EMAIL,
    provider,
    reaches: ({ email }) => email !== undefined,
    async send(message, signal) {
      signal.throwIfAborted();
      const { email } = message.to;
      if (email === undefined) throw new ChannelError("refused", "no_address", "there is no email address");
      const data = mailOf(message, email, render(message.template, message.locale, message.variables), settings);
      const started = performance.now();
      let outcome = "accepted";
      try {
        return read(await post(data, signal));
      } catch (error) {
        outcome = error instanceof ChannelError ? error.code : "failed";
        throw error;
      } finally {
        calls.record(provider, outcome, performance.now() - started);
      }
    },
    readWebhook: (webhook) => readEmailWebhook(webhook, webhookKey),
  };
}

function mailOf(message: Message, to: string, { subject, text, html }: RenderedEmail, settings: EmailSettings): Mail {
  const { from, fromName, replyTo } = settings;
  const headers = unsubscribeHeaders(message.variables.unsubscribe_url);
  return {
    from: { email: from, name: fromName },
    ...(replyTo !== undefined && { replyTo }),
    subject,
    // Headers stay here: those of the whole message the library also sends with the request itself.
    personalizations: [{ to: { email: to }, customArgs: { message_id: message.messageId }, ...(headers && { headers }) }],
    // The plain one must be the first.
    content: [
      { type: "text/plain", value: text },
      { type: "text/html", value: html },
    ],
    trackingSettings: { clickTracking: { enable: false, enableText: false }, openTracking: { enable: false } },
  };
}

/** By which mail programs offer to unsubscribe with one click. */
function unsubscribeHeaders(url: string): Record<string, string> | undefined {
  const href = url === "" ? undefined : URL.parse(url)?.href;
  return href === undefined ? undefined : { "List-Unsubscribe": `<${href}>`, "List-Unsubscribe-Post": "List-Unsubscribe=One-Click" };
}

/** The answer that the library makes an error of; undefined when there was none, or not all of it. */
function answerIn(error: unknown): Answer | undefined {
  const { code, response } = error as { code?: unknown; response?: { status?: unknown; headers?: Answer["headers"] } };
  if (!response) return undefined;
  const status = typeof code === "number" ? code : response.status;
  // One that says it was taken is no error by itself: it was cut off within.
  return typeof status === "number" && status >= 300 ? { status, headers: response.headers ?? {} } : undefined;
}

function read({ status, headers }: Answer): Accepted {
  if (status === TAKEN) return { providerMessageId: textOf(headers["x-message-id"]) };
  if (status === 200) throw new ChannelError("unknown", "unreadable_answer", "the answer cannot be read, and it may have been taken");
  const { kind, detail } = meaningOfStatus(status);
  throw new ChannelError(kind, `http_${status}`, detail, { retryAfterMs: waitOf(headers) });
}

/** How long SendGrid wants us to wait. */
function waitOf(headers: Answer["headers"]): number | undefined {
  const reset = textOf(headers["x-ratelimit-reset"]);
  const untilReset = /^\d{1,11}$/.test(reset) ? Math.max(0, Number(reset) * 1000 - Date.now()) : undefined;
  return parseRetryAfter(textOf(headers["retry-after"])) ?? untilReset;
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}
