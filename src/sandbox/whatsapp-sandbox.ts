import { createHmac, randomBytes } from "node:crypto";
import type { WhatsAppSettings } from "../channels/whatsapp-settings.ts";
import type { Outbox } from "./outbox.ts";
import { type Answered, type Asked, type SandboxApi, startSandboxServer } from "./sandbox-server.ts";
import { createWebhookSender, type OutgoingWebhook, type WebhookSender } from "./webhook-sender.ts";

type Account = Omit<WhatsAppSettings, "baseUrl" | "timeoutMs">;
type Fields = Readonly<Record<string, unknown>>;

/** Meta's WhatsApp Cloud API, played on this machine. */
export type WhatsAppSandbox = AsyncDisposable & {
  readonly settings: Omit<WhatsAppSettings, "timeoutMs">;
  readonly webhooks: WebhookSender;
};

export type WhatsAppSandboxOptions = {
  readonly outbox: Outbox;
  /** Where webhooks go, such as http://127.0.0.1:8080, once that is known. */
  readonly webhooksTo?: () => string | undefined;
  readonly port?: number;
};

const WINDOW_MS = 24 * 3_600_000;
/** Its code for a failure of this status. */
const FAULTS: ReadonlyMap<number, number> = new Map([
  ...([
    [400, 100],
    [401, 190],
    [403, 10],
    [429, 130429],
    [500, 131000],
    [503, 2],
  ] as const),
]);

/** Starts it, with an account made up for the occasion. Templates are taken by any name in lower case that does not begin with "unapproved". */
export async function startWhatsAppSandbox({ outbox, webhooksTo, port }: WhatsAppSandboxOptions): Promise<WhatsAppSandbox> {
  const word = () => randomBytes(24).toString("base64url");
  const account = { apiVersion: "v25.0", phoneNumberId: "106540352242922", accessToken: word(), appSecret: word(), verifyToken: word() };
  const webhooks = createWebhookSender(() => {
    const base = webhooksTo?.();
    return base === undefined ? undefined : `${base}/webhooks/whatsapp`;
  });
  const server = await startSandboxServer(createWhatsAppSandbox(account, outbox, webhooks), undefined, webhooks, port);
  return { settings: { baseUrl: server.url, ...account }, webhooks, [Symbol.asyncDispose]: () => server.stop() };
}

/** A webhook of Meta's with these changes, signed. */
export function whatsappWebhook(
  { appSecret, phoneNumberId }: Pick<Account, "appSecret" | "phoneNumberId">,
  ...values: object[]
): OutgoingWebhook {
  const metadata = { display_phone_number: "15550100000", phone_number_id: phoneNumberId };
  const changes = values.map((value) => ({ field: "messages", value: { messaging_product: "whatsapp", metadata, ...value } }));
  const body = JSON.stringify({ object: "whatsapp_business_account", entry: [{ id: "102290129340398", changes }] });
  const sign = (key: string) => ({ "x-hub-signature-256": `sha256=${createHmac("sha256", key).update(body).digest("hex")}` });
  return { body, headers: sign(appSecret), forged: sign("somebody else's key") };
}

function createWhatsAppSandbox(account: Account, outbox: Outbox, webhooks: WebhookSender): SandboxApi {
  /** When people last wrote. */
  const wrote = new Map<string, number>();
  const sent = new Map<string, { readonly to: string; readonly reference: unknown }>();
  const path = `/${account.apiVersion}/${account.phoneNumberId}/messages`;

  function tell(id: string, status: string, code?: number): void {
    const { to, reference } = sent.get(id) ?? { to: "", reference: undefined };
    const told = { id, status, timestamp: seconds(), recipient_id: to, biz_opaque_callback_data: reference };
    const errors = code === undefined ? {} : { errors: [{ code, title: "This is the sandbox.", error_data: { details: "" } }] };
    webhooks.send(whatsappWebhook(account, { statuses: [{ ...told, ...errors }] }));
  }

  function take({ body = {} }: Asked): Answered {
    const { messaging_product, to, type, biz_opaque_callback_data: reference } = body;
    if (messaging_product !== "whatsapp" || typeof to !== "string") return failed(400, 100);
    const digits = to.replace(/\D/g, "");
    if (!/^[1-9]\d{6,14}$/.test(digits)) return failed(400, 131009);
    if (reference !== undefined && !(typeof reference === "string" && reference.length <= 512)) return failed(400, 100);
    const read = type === "text" ? textOf(body) : type === "template" ? templateOf(body) : 131051;
    if (typeof read === "number") return failed(read === 132001 ? 404 : 400, read);
    if (type === "text" && Date.now() - (wrote.get(digits) ?? 0) >= WINDOW_MS) return failed(400, 131047);
    const id = `wamid.${randomBytes(18).toString("base64url")}`;
    sent.set(id, { to: digits, reference });
    outbox.add({ channel: "whatsapp", id, to, ...read, ...(typeof reference === "string" && { reference }), at: new Date() });
    for (const status of ["sent", "delivered", "read"]) tell(id, status);
    return {
      status: 200,
      body: { messaging_product, contacts: [{ input: to, wa_id: digits }], messages: [{ id, message_status: "accepted" }] },
    };
  }

  return {
    outbox,
    operationOf: (asked) => (asked.path === path ? "send" : undefined),
    answer(asked) {
      if (asked.authorization !== `Bearer ${account.accessToken}`) return failed(401, 190);
      return asked.method === "POST" && asked.path === path ? take(asked) : failed(404, 100);
    },
    fault: (status, code) => failed(status, Number(code ?? FAULTS.get(status) ?? 1)).body,
    control({ method, path: controlled, body = {} }) {
      if (method !== "POST") return undefined;
      if (controlled === "/__sandbox/inbound") {
        const from = String(body["from"]).replace(/\D/g, "");
        wrote.set(from, Date.now());
        const id = `wamid.${randomBytes(18).toString("base64url")}`;
        const message = { from, id, timestamp: seconds(), type: "text", text: { body: String(body["text"] ?? "") } };
        webhooks.send(whatsappWebhook(account, { contacts: [{ profile: { name: "Robin" }, wa_id: from }], messages: [message] }));
        return { status: 200, body: { id } };
      }
      const [, id] = /^\/__sandbox\/messages\/([^/]+)\/status$/.exec(controlled) ?? [];
      if (id === undefined || !sent.has(id)) return undefined;
      tell(id, String(body["status"]), typeof body["code"] === "number" ? body["code"] : undefined);
      return { status: 200, body: {} };
    },
  };
}

/** The text of a message, or the code of what is wrong with it. */
function textOf(body: Fields): { readonly text: string } | number {
  const text = (body["text"] as Fields | undefined)?.["body"];
  if (typeof text !== "string" || text === "") return 131008;
  return text.length > 4096 ? 100 : { text };
}

function templateOf(body: Fields): { readonly text: string } | number {
  const { name, language, components = [] } = (body["template"] ?? {}) as Fields;
  const code = (language as Fields | undefined)?.["code"];
  if (typeof name !== "string" || typeof code !== "string" || !Array.isArray(components)) return 131008;
  if (!/^[a-z0-9_]+$/.test(name)) return 131009;
  if (name.startsWith("unapproved")) return 132001;
  const parameters = components.flatMap((each: Fields) => (Array.isArray(each["parameters"]) ? (each["parameters"] as Fields[]) : []));
  const texts = parameters.map(({ text }) => text);
  if (!texts.every((text) => typeof text === "string" && text !== "")) return 131008;
  if (texts.some((text) => /[\n\t]| {5}/.test(String(text)))) return 132012;
  return { text: `${name} (${code}): ${texts.join(" | ")}` };
}

const seconds = () => String(Math.floor(Date.now() / 1000));

function failed(status: number, code: number): Answered {
  const error = {
    message: `(#${code}) This is the sandbox.`,
    type: "OAuthException",
    code,
    error_data: { messaging_product: "whatsapp", details: "" },
  };
  return { status, body: { error: { ...error, fbtrace_id: randomBytes(8).toString("base64url") } } };
}
