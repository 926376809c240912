import { generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import type { EmailSettings } from "../channels/email-settings.ts";
import type { Outbox } from "./outbox.ts";
import { type Answered, type Asked, type SandboxApi, startSandboxServer } from "./sandbox-server.ts";
import { createWebhookSender, type OutgoingWebhook, type WebhookSender } from "./webhook-sender.ts";

type Fields = Readonly<Record<string, unknown>>;
type Sent = { readonly to: string; readonly customArgs: Readonly<Record<string, string>> };

/** SendGrid, played on this machine. */
export type SendGridSandbox = AsyncDisposable & {
  readonly settings: Omit<EmailSettings, "timeoutMs"> & { readonly webhookPublicKey: string };
  readonly webhooks: WebhookSender;
};

export type SendGridSandboxOptions = {
  readonly outbox: Outbox;
  /** Where webhooks go, such as http://127.0.0.1:8080, once that is known. */
  readonly webhooksTo?: () => string | undefined;
  readonly port?: number;
};

const PATH = "/v3/mail/send";
const SENDER = "orders@sandbox.example";
const MAX_CUSTOM_ARGS_BYTES = 10_000;
const MAX_RECIPIENTS = 1000;
/** Headers that a message may not set. */
const OWN_HEADERS: readonly string[] = [
  ...["x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding"],
  ...["to", "from", "subject", "reply-to", "cc", "bcc"],
];
/** What becomes of messages, by the first part of the address. */
const ENDINGS: ReadonlyMap<string, Fields> = new Map([
  ["bounce", { event: "bounce", type: "bounce", status: "5.1.1", reason: "550 5.1.1 no such user" }],
  ["blocked", { event: "bounce", type: "blocked", status: "5.7.1", reason: "550 5.7.1 blocked" }],
  ["dropped", { event: "dropped", reason: "Bounced Address" }],
]);

/** Starts it, with an account made up for the occasion, in which one sender is verified. */
export async function startSendGridSandbox({ outbox, webhooksTo, port }: SendGridSandboxOptions): Promise<SendGridSandbox> {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const apiKey = `SG.${randomBytes(16).toString("base64url")}.${randomBytes(32).toString("base64url")}`;
  const webhooks = createWebhookSender(() => {
    const base = webhooksTo?.();
    return base === undefined ? undefined : `${base}/webhooks/sendgrid`;
  });
  const server = await startSandboxServer(createSendGridSandbox(apiKey, privateKey, outbox, webhooks), undefined, webhooks, port);
  const webhookPublicKey = publicKey.export({ format: "der", type: "spki" }).toString("base64");
  return {
    settings: { baseUrl: server.url, apiKey, from: SENDER, fromName: "Sandbox Market", webhookPublicKey },
    webhooks,
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

/** A webhook of SendGrid's with these events, signed. */
export function sendgridWebhook(privateKey: KeyObject, ...events: readonly unknown[]): OutgoingWebhook {
  // As SendGrid does, with a line's end that is part of what is signed.
  const body = `${JSON.stringify(events)}\r\n`;
  const { privateKey: another } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return { body, headers: sendgridSignature(privateKey, body), forged: sendgridSignature(another, body) };
}

/** The headers by which SendGrid signs a body. */
export function sendgridSignature(privateKey: KeyObject, body: string): Readonly<Record<string, string>> {
  const timestamp = String(Math.floor(Date.now() / 1000));
  const signature = sign("sha256", Buffer.from(timestamp + body), { key: privateKey, dsaEncoding: "der" });
  return {
    "x-twilio-email-event-webhook-signature": signature.toString("base64"),
    "x-twilio-email-event-webhook-timestamp": timestamp,
  };
}

function createSendGridSandbox(apiKey: string, privateKey: KeyObject, outbox: Outbox, webhooks: WebhookSender): SandboxApi {
  const sent = new Map<string, Sent>();

  function tell(id: string, event: Fields): void {
    const { to, customArgs } = sent.get(id) ?? { to: "", customArgs: {} };
    const ids = { sg_event_id: randomBytes(16).toString("base64url"), sg_message_id: `${id}.recvd-1-1` };
    const told = { ...customArgs, email: to, timestamp: Math.floor(Date.now() / 1000), "smtp-id": `<${id}@sandbox.example>` };
    webhooks.send(sendgridWebhook(privateKey, { ...told, ...ids, ...event }));
  }

  function take({ body }: Asked): Answered {
    const problem = problemWith(body ?? {});
    if (problem) return failed(problem.field === "from" ? 403 : 400, problem.message, problem.field);
    const { personalizations, subject, content } = body as { personalizations: Fields[]; subject: unknown; content: Fields[] };
    const id = randomBytes(16).toString("base64url");
    for (const each of personalizations) {
      const customArgs = { ...textsOf(body?.["custom_args"]), ...textsOf(each["custom_args"]) };
      const headers = { ...textsOf(body?.["headers"]), ...textsOf(each["headers"]) };
      const reference = customArgs["message_id"];
      for (const { email } of each["to"] as Fields[]) {
        const to = String(email);
        sent.set(id, { to, customArgs });
        const bodyOf = (type: string) => content.find((part) => part["type"] === type)?.["value"];
        const texts = { subject: String(each["subject"] ?? subject), text: String(bodyOf("text/plain") ?? ""), html: bodyOf("text/html") };
        outbox.add({
          ...{ channel: "email", id, to, ...texts, html: String(texts.html ?? ""), data: headers, at: new Date() },
          ...(reference !== undefined && { reference }),
        });
        const ending = ENDINGS.get(to.split("@", 1)[0] ?? "") ?? { event: "delivered", response: "250 OK" };
        if (ending["event"] !== "dropped") tell(id, { event: "processed" });
        tell(id, ending);
      }
    }
    return { status: 202, body: undefined, headers: { "x-message-id": id } };
  }

  return {
    outbox,
    operationOf: ({ path }) => (path === PATH ? "send" : undefined),
    answer(asked) {
      if (asked.authorization !== `Bearer ${apiKey}`)
        return failed(401, "The provided authorization grant is invalid, expired, or revoked", null);
      if (asked.path !== PATH) return failed(404, "not found", null);
      return asked.method === "POST" ? take(asked) : failed(405, "method not allowed", null);
    },
    // A proxy answers before SendGrid itself does.
    fault: (status) => (status === 413 || status === 502 ? "<html><h1>This is the sandbox.</h1></html>" : failed(status).body),
    // Where SendGrid says how long to wait, it says until when.
    faultHeaders: (status, retryAfter) =>
      status === 429
        ? { "x-ratelimit-limit": "600", "x-ratelimit-remaining": "0", "x-ratelimit-reset": resetAfter(retryAfter) }
        : retryAfter === "1"
          ? {}
          : { "retry-after": retryAfter },
    control({ method, path: controlled, body = {} }) {
      const [, id] = /^\/__sandbox\/messages\/([^/]+)\/event$/.exec(controlled) ?? [];
      if (method !== "POST" || id === undefined || !sent.has(id)) return undefined;
      tell(id, body);
      return { status: 200, body: {} };
    },
  };
}

/** What is wrong with a message, and with which field. */
function problemWith(body: Fields): { readonly field: string; readonly message: string } | undefined {
  const { personalizations, from, subject, content, headers } = body;
  const wrong = (field: string, message: string) => ({ field, message });
  if (!Array.isArray(personalizations) || personalizations.length === 0 || personalizations.length > MAX_RECIPIENTS)
    return wrong("personalizations", "The personalizations field is required and must have at least one personalization.");
  for (const each of personalizations as Fields[]) {
    const to = each["to"];
    if (!Array.isArray(to) || to.length === 0 || !to.every(({ email }: Fields) => isAddress(email)))
      return wrong("personalizations.0.to.0.email", "Does not contain a valid address.");
    const args = { ...fieldsOf(body["custom_args"]), ...fieldsOf(each["custom_args"]) };
    if (!Object.values(args).every((value) => typeof value === "string")) return wrong("custom_args", "Must be strings.");
    if (Buffer.byteLength(JSON.stringify(args)) > MAX_CUSTOM_ARGS_BYTES) return wrong("custom_args", "Exceeds 10000 bytes.");
    const names = Object.keys({ ...fieldsOf(headers), ...fieldsOf(each["headers"]) });
    if (names.some((name) => OWN_HEADERS.includes(name.toLowerCase()))) return wrong("headers", "Cannot be set by you.");
    if (typeof (each["subject"] ?? subject) !== "string" || (each["subject"] ?? subject) === "")
      return wrong("subject", "The subject is required.");
  }
  if (!isAddress(fieldsOf(from)["email"])) return wrong("from.email", "The from object must have a valid address.");
  const types = Array.isArray(content) ? content.map(({ type, value }: Fields) => (value === "" ? undefined : type)) : [];
  if (types.length === 0 || types.includes(undefined))
    return wrong("content", "The content value must be a string at least one character.");
  if (types.indexOf("text/plain") > 0) return wrong("content", "text/plain must be the first.");
  if (body["reply_to"] !== undefined && !isAddress(fieldsOf(body["reply_to"])["email"])) return wrong("reply_to", "Is no valid address.");
  if (fieldsOf(from)["email"] !== SENDER) return wrong("from", "The from address does not match a verified Sender Identity.");
  return undefined;
}

function isAddress(value: unknown): boolean {
  return typeof value === "string" && /^[^\s@<>]+@[^\s@<>]+\.[^\s@<>]+$/.test(value);
}

function fieldsOf(value: unknown): Fields {
  return typeof value === "object" && value !== null ? { ...value } : {};
}

function textsOf(value: unknown): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(fieldsOf(value)).map(([name, each]) => [name, String(each)]));
}

function resetAfter(seconds: string): string {
  return String(Math.ceil(Date.now() / 1000) + Number(seconds));
}

function failed(
  status: number,
  message = status === 429 ? "too many requests" : "This is the sandbox.",
  field: string | null = null,
): Answered {
  return { status, body: { errors: [{ message, field, help: null }] } };
}
