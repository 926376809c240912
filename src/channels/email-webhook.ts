import { createPublicKey, type KeyObject, verify } from "node:crypto";
import { type ChannelReport, type ChannelWebhook, ChannelWebhookRefused } from "./channel.ts";
import { meaningOfEvent } from "./email-codes.ts";

type Fields = Readonly<Record<string, unknown>>;

const SIGNATURE = "x-twilio-email-event-webhook-signature";
const TIMESTAMP = "x-twilio-email-event-webhook-timestamp";

/** The key that SendGrid shows for a webhook: SPKI in base64. Throws when it is none. */
export function readWebhookKey(base64: string): KeyObject {
  const key = createPublicKey({ key: Buffer.from(base64, "base64"), format: "der", type: "spki" });
  if (key.asymmetricKeyType !== "ec") throw new Error("The key of SendGrid's webhooks is not one of ECDSA.");
  return key;
}

/**
 * What SendGrid's event webhook tells, which is many messages' events at once. How old it is does not matter: it comes again for a day
 * while it is not taken, and what is known already is known by its `reportId`.
 */
export function readEmailWebhook({ method, headers, body }: ChannelWebhook, key: KeyObject | undefined): readonly ChannelReport[] {
  const timestamp = headers.get(TIMESTAMP) ?? "";
  const signature = Buffer.from(headers.get(SIGNATURE) ?? "", "base64");
  const signed = Buffer.concat([Buffer.from(timestamp), body]);
  if (!key || timestamp === "" || !verify("sha256", signed, { key, dsaEncoding: "der" }, signature))
    throw new ChannelWebhookRefused("forged", "the signature is wrong");
  const events = method === "POST" ? parse(body) : undefined;
  if (!Array.isArray(events)) throw new ChannelWebhookRefused("malformed", "this is no webhook of SendGrid");
  return events.flatMap((event: unknown) => reportOf(typeof event === "object" && event !== null ? { ...event } : {}));
}

function reportOf(event: Fields): readonly ChannelReport[] {
  const name = textOf(event, "event");
  const meaning = meaningOfEvent(name, textOf(event, "type"), textOf(event, "reason"));
  const reportId = textOf(event, "sg_event_id");
  const messageId = textOf(event, "message_id") || undefined;
  // What the message was called when it was taken, and then where it has been.
  const providerMessageId = textOf(event, "sg_message_id").split(".", 1)[0] ?? "";
  if (!meaning || reportId === "" || (messageId === undefined && providerMessageId === "")) return [];
  const { report, detail, optOut } = meaning;
  const code = detail === "" ? "" : (/^\d\.\d{1,3}\.\d{1,3}$/.exec(textOf(event, "status"))?.[0] ?? name);
  return [{ kind: "message", reportId, messageId, providerMessageId, report, happenedAt: timeOf(event), code, detail, optOut }];
}

function parse(body: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(body).toString());
  } catch {
    return undefined;
  }
}

function textOf(fields: Fields, name: string): string {
  return typeof fields[name] === "string" ? fields[name] : "";
}

/** A time in seconds. */
function timeOf(fields: Fields): Date | undefined {
  const seconds = fields["timestamp"];
  return typeof seconds === "number" && seconds >= 0 && seconds < 1e11 ? new Date(seconds * 1000) : undefined;
}
