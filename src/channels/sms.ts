import { AsyncLocalStorage } from "node:async_hooks";
import twilio from "twilio";
import { NotificationChannel } from "../gen/ordertrail/events/v1/notification_events_pb.js";
import type { renderSms } from "../templates/render.ts";
import { type Accepted, type Channel, ChannelError, type Message } from "./channel.ts";
import { parseRetryAfter } from "./http-retry-after.ts";
import { noAnswer } from "./no-answer.ts";
import type { ProviderCalls } from "./provider-calls.ts";
import { meaningOfCode, meaningOfStatus } from "./sms-codes.ts";
import type { SmsSettings } from "./sms-settings.ts";
import { readSmsWebhook } from "./sms-webhook.ts";

export type SmsParts = { readonly render: typeof renderSms; readonly calls: ProviderCalls };

/** A call of the library, and what came back: its errors do not hold all of it. */
type Calling = { readonly signal: AbortSignal; status?: number; retryAfterMs?: number | undefined };
type Taken = { readonly sid?: unknown; readonly status?: unknown; readonly errorCode?: unknown };

const MAX_BODY_BYTES = 1024 * 1024;
/** By how much the library's own limit is longer than ours, so that it is ours that ends a call. */
const GRACE_MS = 1000;
const MAX_VALIDITY_SECONDS = 36_000;
/** How many messages to one number are looked through. */
/** Twilio tells times in whole seconds, by its own clock. */
const CLOCKS_MS = 5000;
const PAGE_SIZE = 50;
const CALLBACK_PATH = "/webhooks/twilio";
/** Has Twilio call again, three times, when we fail in any way; by itself it does so only when there was no connection. */
const CALLBACK_RETRIES = "#rc=3&rp=all";
const NOT_SENT: readonly unknown[] = ["failed", "undelivered", "canceled"];

/** SMS, by Twilio. It knows no idempotency keys, but can be asked for the messages that it has taken for a number. */
export function createSms(settings: SmsSettings, { render, calls }: SmsParts): Channel {
  const { baseUrl, accountSid, authToken, from, timeoutMs } = settings;
  const sender = from.startsWith("MG") ? { messagingServiceSid: from } : { from };
  const callings = new AsyncLocalStorage<Calling>();
  const httpClient = new twilio.RequestClient({ timeout: timeoutMs + GRACE_MS, autoRetry: false });
  httpClient.axios.defaults.maxContentLength = MAX_BODY_BYTES;
  // The library has no way to end a call; what it calls by has.
  httpClient.axios.interceptors.request.use((config) => Object.assign(config, { signal: callings.getStore()?.signal }));
  httpClient.axios.interceptors.response.use((response) => {
    const retryAfter: unknown = response.headers["retry-after"];
    const retryAfterMs = parseRetryAfter(typeof retryAfter === "string" ? retryAfter : undefined);
    Object.assign(callings.getStore() ?? {}, { status: response.status, retryAfterMs });
    return response;
  });
  // Empty ones, lest the environment change where messages go, or have them printed.
  const client = twilio(accountSid, authToken, { httpClient, autoRetry: false, edge: "", region: "", logLevel: "" });
  client.api.baseUrl = baseUrl;
  const provider = "twilio";

  /** One call. What it ends with is a ChannelError without what the library's errors hold. */
  async function call<T>(signal: AbortSignal, act: () => Promise<T>, outcomeOf: (result: T) => string): Promise<T> {
    const limit = AbortSignal.timeout(timeoutMs);
    const calling: Calling = { signal: AbortSignal.any([signal, limit]) };
    const started = performance.now();
    let outcome = "failed";
    try {
      const result = await callings.run(calling, act).catch((error: unknown) => {
        if (error instanceof ChannelError) throw error;
        if (calling.status === undefined) throw noAnswer(error, { timedOut: limit.aborted, stopped: signal.aborted });
        throw errorOf(calling.status, (error as { code?: unknown }).code, calling.retryAfterMs);
      });
      outcome = outcomeOf(result);
      return result;
    } catch (error) {
      if (error instanceof ChannelError) outcome = error.code;
      throw error;
    } finally {
      calls.record(provider, outcome, performance.now() - started);
    }
  }

  function phoneOf({ to }: Message): string {
    if (to.phone === undefined) throw new ChannelError("refused", "no_address", "there is no phone number");
    return to.phone;
  }

  const textOf = ({ template, locale, variables }: Message) => render(template, locale, variables).text;

  return {
    channel: NotificationChannel.SMS,
    provider,
    reaches: ({ phone }) => phone !== undefined,
    async send(message, signal) {
      signal.throwIfAborted();
      const outgoing = {
        ...{ to: phoneOf(message), ...sender, body: textOf(message) },
        validityPeriod: Math.min(Math.max(Math.floor(message.usefulSeconds), 1), MAX_VALIDITY_SECONDS),
        ...callbackOf(settings.publicUrl, message.messageId),
      };
      const create = async () => read(await client.messages.create(outgoing));
      return await call(signal, create, () => "accepted");
    },
    async find(message, since, signal) {
      signal.throwIfAborted();
      const [to, body] = [phoneOf(message), textOf(message)];
      // Twilio's own filter goes by when a message was sent, which one that still waits there was not: by when it was taken, it is looked for here.
      const isOurs = (each: {
        readonly body: string;
        readonly from: string;
        readonly messagingServiceSid: string;
        readonly dateCreated: Date;
      }) =>
        each.body === body &&
        each.dateCreated.getTime() >= since.getTime() - CLOCKS_MS &&
        (sender.from === undefined ? each.messagingServiceSid === from : each.from === from);
      const list = async () => {
        const { instances } = await client.messages.page({ to, pageSize: PAGE_SIZE });
        const found = instances.find(isOurs);
        return found && { providerMessageId: found.sid };
      };
      try {
        return await call<Accepted | undefined>(signal, list, (found) => (found ? "found" : "not_found"));
      } catch (error) {
        // Nothing is taken by asking.
        if (!(error instanceof ChannelError && error.kind === "unknown")) throw error;
        throw new ChannelError("unavailable", error.code, "Twilio could not be asked", { retryAfterMs: error.retryAfterMs });
      }
    },
    readWebhook: (webhook) => readSmsWebhook(webhook, authToken),
  };
}

function callbackOf(publicUrl: string | undefined, messageId: string): { readonly statusCallback?: string } {
  if (publicUrl === undefined) return {};
  const query = `message_id=${encodeURIComponent(messageId)}`;
  return { statusCallback: `${publicUrl.replace(/\/+$/, "")}${CALLBACK_PATH}?${query}${CALLBACK_RETRIES}` };
}

function read({ sid, status, errorCode }: Taken): Accepted {
  if (typeof sid !== "string" || sid === "") throw new Error("This is no message of Twilio's.");
  if (NOT_SENT.includes(status)) {
    if (typeof errorCode === "number") throw errorOf(400, errorCode, undefined);
    throw new ChannelError("refused", "not_sent", "Twilio did not send it, and does not say why");
  }
  return { providerMessageId: sid };
}

/** What an answer means that is not that of a message taken. */
function errorOf(status: number, given: unknown, retryAfterMs: number | undefined): ChannelError {
  const code = typeof given === "number" && Number.isSafeInteger(given) && given > 0 ? String(given) : undefined;
  const known = code === undefined ? undefined : meaningOfCode(code);
  if (code !== undefined && known) return new ChannelError(known.kind, code, known.detail, { retryAfterMs, optOut: known.optOut });
  if (code === undefined && status >= 200 && status < 300)
    return new ChannelError("unknown", "unreadable_answer", "the answer cannot be read, and it may have been taken");
  const { kind, detail } = meaningOfStatus(status);
  return new ChannelError(kind, code ?? `http_${status}`, detail, { retryAfterMs });
}
