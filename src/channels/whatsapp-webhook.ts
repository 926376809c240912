import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { type ChannelReport, type ChannelWebhook, ChannelWebhookRefused } from "./channel.ts";
import { wishOf } from "./stop-words.ts";
import { meaningOf } from "./whatsapp-codes.ts";
import type { WhatsAppSettings } from "./whatsapp-settings.ts";

type Fields = Readonly<Record<string, unknown>>;
type MessageReport = Extract<ChannelReport, { kind: "message" }>;

/** What Meta calls a status. "delivered" may be left out when it was read at once. */
const STATUSES: ReadonlyMap<string, MessageReport["report"]> = new Map([
  ["sent", "SENT"],
  ["delivered", "DELIVERED"],
  ["read", "READ"],
  ["played", "READ"],
  ["failed", "FAILED"],
]);

/**
 * What Meta's webhook tells: what became of messages, and what people wrote. A message to another number of ours than the one that is
 * set up is no report, nor is one from somebody whose number Meta does not tell; what became of messages is told all the same.
 */
export function readWhatsAppWebhook({ method, headers, body }: ChannelWebhook, settings: WhatsAppSettings): readonly ChannelReport[] {
  if (!isSigned(headers.get("x-hub-signature-256") ?? "", body, settings.appSecret))
    throw new ChannelWebhookRefused("forged", "the signature is wrong");
  const read = method === "POST" ? parse(body) : undefined;
  if (read?.["object"] !== "whatsapp_business_account" || !Array.isArray(read["entry"]))
    throw new ChannelWebhookRefused("malformed", "this is no webhook of WhatsApp");
  const values = listOf(read, "entry")
    .flatMap((entry) => listOf(entry, "changes"))
    .filter((change) => change["field"] === "messages")
    .map((change) => fieldsOf(change["value"]));
  return values.flatMap((value) => [
    ...listOf(value, "statuses").flatMap(statusReport),
    ...(isFor(value, settings.phoneNumberId) ? listOf(value, "messages").flatMap(inboundReport) : []),
  ]);
}

/** What a GET by which Meta sets up the webhook is to be answered with, as text; undefined when it does not have the token (403). */
export function answerChallenge(url: string, verifyToken: string): string | undefined {
  const asked = URL.parse(url, "http://localhost")?.searchParams;
  const given = asked?.get("hub.verify_token") ?? "";
  const challenge = asked?.get("hub.challenge") ?? "";
  // Digests are of one length, whatever was given.
  const digest = (text: string) => createHash("sha256").update(text).digest();
  const isKnown = timingSafeEqual(digest(given), digest(verifyToken)) && verifyToken !== "";
  return isKnown && asked?.get("hub.mode") === "subscribe" && challenge !== "" ? challenge : undefined;
}

function isSigned(header: string, body: Uint8Array, appSecret: string): boolean {
  const [, hex] = /^sha256=([0-9a-f]{64})$/.exec(header) ?? [];
  return hex !== undefined && timingSafeEqual(Buffer.from(hex, "hex"), createHmac("sha256", appSecret).update(body).digest());
}

function parse(body: Uint8Array): Fields | undefined {
  try {
    return fieldsOf(JSON.parse(Buffer.from(body).toString()));
  } catch {
    return undefined;
  }
}

function statusReport(status: Fields): readonly ChannelReport[] {
  const providerMessageId = textOf(status, "id");
  const report = STATUSES.get(textOf(status, "status"));
  if (providerMessageId === "" || !report) return [];
  const given = listOf(status, "errors")[0]?.["code"];
  const code = report === "FAILED" && typeof given === "number" ? String(given) : "";
  const known = code === "" ? undefined : meaningOf(code);
  return [
    {
      ...{ kind: "message", reportId: `${providerMessageId}.${textOf(status, "status")}`, providerMessageId, report },
      ...{ messageId: textOf(status, "biz_opaque_callback_data") || undefined, happenedAt: timeOf(status), code },
      detail: known?.detail ?? (report === "FAILED" ? "it was not delivered for a reason that we do not know" : ""),
      optOut: known?.optOut,
    },
  ];
}

function inboundReport(message: Fields): readonly ChannelReport[] {
  const reportId = textOf(message, "id");
  const phone = `+${textOf(message, "from").replace(/^\+/, "")}`;
  // Meta's own announcements, such as of a changed number, come as messages too.
  if (reportId === "" || !/^\+[1-9]\d{6,14}$/.test(phone) || message["type"] === "system") return [];
  return [{ kind: "inbound", reportId, phone, happenedAt: timeOf(message), wish: wishOf(writtenIn(message)) }];
}

/** What a message says: its text, or the title of the button that was pressed. */
function writtenIn(message: Fields): string {
  const interactive = fieldsOf(message["interactive"]);
  return (
    textOf(fieldsOf(message["text"]), "body") ||
    textOf(fieldsOf(message["button"]), "text") ||
    textOf(fieldsOf(interactive["button_reply"]), "title") ||
    textOf(fieldsOf(interactive["list_reply"]), "title")
  );
}

function isFor(value: Fields, phoneNumberId: string): boolean {
  return textOf(fieldsOf(value["metadata"]), "phone_number_id") === phoneNumberId;
}

function fieldsOf(value: unknown): Fields {
  return typeof value === "object" && value !== null ? { ...value } : {};
}

function listOf(fields: Fields, name: string): readonly Fields[] {
  return Array.isArray(fields[name]) ? (fields[name] as unknown[]).map(fieldsOf) : [];
}

function textOf(fields: Fields, name: string): string {
  return typeof fields[name] === "string" ? fields[name] : "";
}

/** A time in seconds, as text. */
function timeOf(fields: Fields): Date | undefined {
  const seconds = textOf(fields, "timestamp");
  return /^\d{1,11}$/.test(seconds) ? new Date(Number(seconds) * 1000) : undefined;
}
