import twilio from "twilio";
import { type ChannelReport, type ChannelWebhook, ChannelWebhookRefused } from "./channel.ts";
import { meaningOfCode } from "./sms-codes.ts";
import { wishOf } from "./stop-words.ts";

type MessageReport = Extract<ChannelReport, { kind: "message" }>;

/** What Twilio calls a status. Those before "sent" tell us no more than that it was taken. */
const STATUSES: ReadonlyMap<string, MessageReport["report"]> = new Map([
  ["sent", "SENT"],
  ["partially_delivered", "SENT"],
  ["delivered", "DELIVERED"],
  ["read", "READ"],
  ["undelivered", "FAILED"],
  ["failed", "FAILED"],
  ["canceled", "FAILED"],
]);

/** What Twilio's webhook tells: what became of a message, whose reference is in the address that was called, or what somebody wrote. */
export function readSmsWebhook({ method, url, headers, body }: ChannelWebhook, authToken: string): readonly ChannelReport[] {
  const form = new URLSearchParams(Buffer.from(body).toString());
  const called = URL.parse(url);
  if (!called || !isSigned(headers.get("x-twilio-signature") ?? "", url, form, authToken))
    throw new ChannelWebhookRefused("forged", "the signature is wrong");
  const sid = form.get("MessageSid") ?? "";
  if (method !== "POST" || !/^[A-Z]{2}[0-9a-f]{32}$/.test(sid))
    throw new ChannelWebhookRefused("malformed", "this is no webhook of Twilio");
  const status = form.get("MessageStatus");
  return status === null ? inboundReport(sid, form) : statusReport(sid, status, form, called.searchParams.get("message_id"));
}

/** Twilio's own library compares in constant time, and knows how Twilio writes an address with a port. */
function isSigned(signature: string, url: string, form: URLSearchParams, authToken: string): boolean {
  const fields = Object.fromEntries([...new Set(form.keys())].map((name) => [name, form.getAll(name)]));
  return authToken !== "" && twilio.validateRequest(authToken, signature, url, fields);
}

function statusReport(sid: string, status: string, form: URLSearchParams, messageId: string | null): readonly ChannelReport[] {
  const report = STATUSES.get(status);
  if (!report) return [];
  const given = form.get("ErrorCode") ?? "";
  const code = report === "FAILED" && /^\d{1,9}$/.test(given) ? given : "";
  const known = code === "" ? undefined : meaningOfCode(code);
  return [
    {
      ...{ kind: "message", reportId: `${sid}.${status}`, messageId: messageId || undefined, providerMessageId: sid, report, code },
      detail: known?.detail ?? (report === "FAILED" ? "it was not delivered for a reason that we do not know" : ""),
      optOut: known?.optOut,
    },
  ];
}

function inboundReport(sid: string, form: URLSearchParams): readonly ChannelReport[] {
  const phone = form.get("From") ?? "";
  if (!/^\+[1-9]\d{6,14}$/.test(phone)) return [];
  return [{ kind: "inbound", reportId: sid, phone, wish: wishOf(form.get("Body") ?? "") }];
}
