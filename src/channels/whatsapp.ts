import type { TemplateName } from "../domain/template-names.ts";
import { NotificationChannel } from "../gen/ordertrail/events/v1/notification_events_pb.js";
import { readAtMost } from "../read-at-most.ts";
import type { MessageVariables } from "../templates/message-variables.ts";
import { type Accepted, type Channel, ChannelError, type Message } from "./channel.ts";
import { parseRetryAfter } from "./http-retry-after.ts";
import { noAnswer } from "./no-answer.ts";
import type { ProviderCalls } from "./provider-calls.ts";
import { meaningOf, WINDOW_CLOSED } from "./whatsapp-codes.ts";
import type { WhatsAppSettings } from "./whatsapp-settings.ts";
import { readWhatsAppWebhook } from "./whatsapp-webhook.ts";

/** A message as an approved template, and as the text that says the same. */
export type RenderedWhatsApp = {
  readonly name: string;
  readonly language: string;
  readonly parameters: readonly string[];
  readonly text: string;
};

export type RenderWhatsApp = (template: TemplateName, locale: string, variables: MessageVariables) => RenderedWhatsApp;

export type WhatsAppParts = { readonly render: RenderWhatsApp; readonly calls: ProviderCalls };

type Answer = { readonly status: number; readonly body: unknown; readonly retryAfterMs: number | undefined };

const MAX_BODY_BYTES = 256 * 1024;
const MAX_TEXT_CHARACTERS = 4096;
/** A gateway answers so when it has handed on what it then got no answer to. */
const GATEWAY_FAILURES: readonly number[] = [502, 504];

/**
 * WhatsApp, by Meta's Cloud API: text while a conversation is open, approved templates otherwise. When Meta says of a text that the
 * conversation has ended after all, the template follows within the same `send`; nothing else is sent twice. Meta knows no idempotency
 * keys and cannot be asked what it has taken: our reference comes back with the webhooks.
 */
export function createWhatsApp(settings: WhatsAppSettings, { render, calls }: WhatsAppParts): Channel {
  const { baseUrl, apiVersion, phoneNumberId, accessToken, timeoutMs } = settings;
  const url = `${baseUrl}/${encodeURIComponent(apiVersion)}/${encodeURIComponent(phoneNumberId)}/messages`;
  const provider = "meta";

  async function call(body: object, signal: AbortSignal): Promise<Accepted> {
    const started = performance.now();
    let outcome = "accepted";
    try {
      return read(await post(body, signal));
    } catch (error) {
      outcome = error instanceof ChannelError ? error.code : "failed";
      throw error;
    } finally {
      calls.record(provider, outcome, performance.now() - started);
    }
  }

  async function post(body: object, signal: AbortSignal): Promise<Answer> {
    const limit = AbortSignal.timeout(timeoutMs);
    try {
      const response = await fetch(url, {
        method: "POST",
        headers: { authorization: `Bearer ${accessToken}`, "content-type": "application/json", accept: "application/json" },
        body: JSON.stringify(body),
        // Nobody has said that the token may go anywhere else.
        redirect: "manual",
        signal: AbortSignal.any([signal, limit]),
      });
      const bytes = await readAtMost(response.body ?? [], MAX_BODY_BYTES);
      return { status: response.status, body: parse(bytes), retryAfterMs: parseRetryAfter(response.headers.get("retry-after")) };
    } catch (error) {
      throw noAnswer(error, { timedOut: limit.aborted, stopped: signal.aborted });
    }
  }

  return {
    channel: NotificationChannel.WHATSAPP,
    provider,
    reaches: ({ phone }) => phone !== undefined,
    async send(message, signal) {
      signal.throwIfAborted();
      if (message.to.phone === undefined) throw new ChannelError("refused", "no_address", "there is no phone number");
      const rendered = render(message.template, message.locale, message.variables);
      const envelope = { ...envelopeOf(message), to: message.to.phone };
      const asTemplate = { ...envelope, type: "template", template: templateOf(rendered) };
      if (!message.isConversationOpen || rendered.text.length > MAX_TEXT_CHARACTERS) return await call(asTemplate, signal);
      try {
        return await call({ ...envelope, type: "text", text: { body: rendered.text, preview_url: false } }, signal);
      } catch (error) {
        if (!(error instanceof ChannelError && error.code === WINDOW_CLOSED)) throw error;
        signal.throwIfAborted();
        return await call(asTemplate, signal);
      }
    },
    readWebhook: (webhook) => readWhatsAppWebhook(webhook, settings),
  };
}

function envelopeOf({ messageId }: Message): object {
  return { messaging_product: "whatsapp", recipient_type: "individual", biz_opaque_callback_data: messageId };
}

function templateOf({ name, language, parameters }: RenderedWhatsApp): object {
  const body = { type: "body", parameters: parameters.map((text) => ({ type: "text", text: parameterOf(text) })) };
  return { name, language: { code: language }, components: parameters.length > 0 ? [body] : [] };
}

/** A parameter may be neither empty nor hold line breaks, tabs or many blanks in a row. */
function parameterOf(text: string): string {
  return text.replaceAll(/\s+/g, " ").trim() || "-";
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString());
  } catch {
    return undefined;
  }
}

function read({ status, body, retryAfterMs }: Answer): Accepted {
  const { messages, error } = (typeof body === "object" && body !== null ? body : {}) as { messages?: unknown; error?: unknown };
  if (status >= 200 && status < 300 && error === undefined) {
    const [first] = Array.isArray(messages) ? (messages as { id?: unknown; message_status?: unknown }[]) : [];
    if (typeof first?.id !== "string" || first.id === "")
      throw new ChannelError("unknown", "unreadable_answer", "the provider's answer cannot be read, and it may have taken it");
    if (first.message_status === "paused") throw new ChannelError("refused", "paused", "the template is paused because of its quality");
    return { providerMessageId: first.id };
  }
  const given = (error as { code?: unknown } | undefined)?.code;
  const code = typeof given === "number" && Number.isSafeInteger(given) ? String(given) : undefined;
  const known = code === undefined ? undefined : meaningOf(code);
  if (code !== undefined && known) {
    const { kind, detail, optOut } = known;
    throw new ChannelError(kind, code, detail, { retryAfterMs: retryAfterMs ?? known.retryAfterMs, optOut });
  }
  throw byStatus(status, code, retryAfterMs);
}

/** What an answer means by its status alone. */
function byStatus(status: number, code: string | undefined, retryAfterMs: number | undefined): ChannelError {
  const named = code ?? `http_${status}`;
  if (status < 300) return new ChannelError("unknown", named, "the provider's answer is of a kind that we do not know");
  if (status < 400) return new ChannelError("misconfigured", named, "the provider's address is another one");
  if (status === 401 || status === 403) return new ChannelError("misconfigured", named, "the provider does not let us in");
  if (status === 408 || status === 429) return new ChannelError("unavailable", named, "the provider has too much to do", { retryAfterMs });
  if (status < 500) return new ChannelError("refused", named, "the provider refused it for a reason that we do not know");
  if (code === undefined && GATEWAY_FAILURES.includes(status))
    return new ChannelError("unknown", named, "a gateway of the provider's got no answer, and it may have been taken", { retryAfterMs });
  return new ChannelError("unavailable", named, "the provider has trouble", { retryAfterMs });
}
