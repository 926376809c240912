import { randomBytes } from "node:crypto";
import twilio from "twilio";
import type { SmsSettings } from "../channels/sms-settings.ts";
import type { Outbox } from "./outbox.ts";
import { type Answered, type Asked, type SandboxApi, startSandboxServer } from "./sandbox-server.ts";
import { createWebhookSender, type OutgoingWebhook, type WebhookSender } from "./webhook-sender.ts";

type Account = Pick<SmsSettings, "accountSid" | "authToken" | "from">;
type Form = Readonly<Record<string, string>>;
type Sent = {
  readonly sid: string;
  readonly to: string;
  readonly from: string;
  readonly service: string | null;
  readonly body: string;
  readonly at: Date;
  readonly callback: string | undefined;
  status: string;
  errorCode: number | null;
};

/** Twilio's messages, played on this machine. */
export type TwilioSandbox = AsyncDisposable & {
  /** `publicUrl` is where webhooks go, as soon as that is known. */
  readonly settings: Omit<SmsSettings, "timeoutMs">;
  readonly webhooks: WebhookSender;
};

export type TwilioSandboxOptions = {
  readonly outbox: Outbox;
  /** Where webhooks go, such as http://127.0.0.1:8080, once that is known. */
  readonly webhooksTo?: () => string | undefined;
  readonly port?: number;
};

const NUMBER = "+15550100001";
const MAX_BODY_CHARACTERS = 1600;
const MAX_VALIDITY_SECONDS = 36_000;
/** Numbers that are not sent to, by what they end with. */
const REFUSED: ReadonlyMap<string, number> = new Map([
  ["0000", 21211],
  ["0001", 21610],
]);
/** Its code for a failure of this status. */
const FAULTS: ReadonlyMap<number, number> = new Map([
  ...([
    [400, 21211],
    [401, 20003],
    [403, 20003],
    [404, 20404],
    [429, 20429],
    [500, 20500],
    [503, 20503],
  ] as const),
]);

/** Starts it, with an account made up for the occasion. */
export async function startTwilioSandbox({ outbox, webhooksTo, port }: TwilioSandboxOptions): Promise<TwilioSandbox> {
  const account = { accountSid: newSid("AC"), authToken: randomBytes(16).toString("hex"), from: NUMBER };
  const webhooks = createWebhookSender(undefined);
  const inboundTo = () => {
    const base = webhooksTo?.();
    return base === undefined ? undefined : `${base}/webhooks/twilio`;
  };
  const server = await startSandboxServer(createTwilioSandbox(account, outbox, webhooks, inboundTo), undefined, webhooks, port);
  const settings = {
    ...{ baseUrl: server.url, ...account },
    get publicUrl() {
      return webhooksTo?.();
    },
  };
  return { settings, webhooks, [Symbol.asyncDispose]: () => server.stop() };
}

/** A webhook of Twilio's with these fields, to this address, signed. */
export function twilioWebhook(authToken: string, address: string, fields: Form): OutgoingWebhook & { readonly url: string } {
  const url = address.replace(/#.*$/, "");
  const type = { "content-type": "application/x-www-form-urlencoded" };
  const sign = (key: string) => ({ ...type, "x-twilio-signature": twilio.getExpectedTwilioSignature(key, url, fields) });
  return { url, body: new URLSearchParams(fields).toString(), headers: sign(authToken), forged: sign("somebody else's token") };
}

function createTwilioSandbox(account: Account, outbox: Outbox, webhooks: WebhookSender, inboundTo: () => string | undefined): SandboxApi {
  const sent = new Map<string, Sent>();
  const path = `/2010-04-01/Accounts/${account.accountSid}/Messages.json`;
  const authorization = `Basic ${Buffer.from(`${account.accountSid}:${account.authToken}`).toString("base64")}`;

  function tell(message: Sent, status: string, errorCode?: number): void {
    message.status = status;
    message.errorCode = errorCode ?? null;
    if (message.callback === undefined) return;
    const { sid, to, from } = message;
    const told = {
      MessageSid: sid,
      SmsSid: sid,
      MessageStatus: status,
      SmsStatus: status,
      AccountSid: account.accountSid,
      From: from,
      To: to,
    };
    const fields = { ...told, ApiVersion: "2010-04-01", ...(errorCode !== undefined && { ErrorCode: String(errorCode) }) };
    webhooks.send(twilioWebhook(account.authToken, message.callback, fields));
  }

  function take({ body = {} }: Asked): Answered {
    const form = body as Form;
    const { To: to = "", Body: text = "", StatusCallback: callback } = form;
    const code = problemWith(form, account.from);
    if (code !== undefined) return failed(400, code);
    const service = form["MessagingServiceSid"] ?? null;
    const message: Sent = {
      ...{ sid: newSid("SM"), to, from: form["From"] ?? account.from, service, body: text, at: new Date(), callback },
      ...{ status: service === null ? "queued" : "accepted", errorCode: null },
    };
    sent.set(message.sid, message);
    const reference = (callback === undefined ? undefined : URL.parse(callback)?.searchParams.get("message_id")) ?? undefined;
    const data = form["ValidityPeriod"] === undefined ? {} : { validity_period: form["ValidityPeriod"] };
    outbox.add({ channel: "sms", id: message.sid, to, text, data, ...(reference !== undefined && { reference }), at: message.at });
    const answer = { status: 201, body: messageBody(message, account) };
    for (const status of ["sent", "delivered"]) tell(message, status);
    return answer;
  }

  function list({ query }: Asked): Answered {
    // The names of these end with what they compare by: "DateSent>=..." is a "DateSent>".
    const [to, from] = [query.get("To"), query.get("From")];
    const since = Date.parse(query.get("DateSent>") ?? "1970-01-01");
    const isWanted = (each: Sent) => (to ?? each.to) === each.to && (from ?? each.from) === each.from && each.at.getTime() >= since;
    const size = Number(query.get("PageSize") ?? 50);
    const messages = [...sent.values()].reverse().filter(isWanted).slice(0, size);
    return {
      status: 200,
      body: { messages: messages.map((each) => messageBody(each, account)), page: 0, page_size: size, next_page_uri: null },
    };
  }

  return {
    outbox,
    operationOf: (asked) => (asked.path === path ? (asked.method === "GET" ? "find" : "send") : undefined),
    answer(asked) {
      if (asked.authorization !== authorization) return failed(401, 20003);
      if (asked.path !== path) return failed(404, 20404);
      return asked.method === "POST" ? take(asked) : asked.method === "GET" ? list(asked) : failed(405, 20004);
    },
    // A gateway does not speak Twilio's language.
    fault: (status, code) =>
      status === 502 && code === undefined
        ? "<html>This is the sandbox.</html>"
        : failed(status, Number(code ?? FAULTS.get(status) ?? 20001)).body,
    control({ method, path: controlled, body = {} }) {
      if (method !== "POST") return undefined;
      if (controlled === "/__sandbox/inbound") {
        const to = inboundTo();
        const sid = newSid("SM");
        const told = {
          MessageSid: sid,
          SmsSid: sid,
          SmsStatus: "received",
          AccountSid: account.accountSid,
          NumMedia: "0",
          NumSegments: "1",
        };
        const fields = {
          ...told,
          From: String(body["from"]),
          To: account.from,
          Body: String(body["text"] ?? ""),
          ApiVersion: "2010-04-01",
        };
        if (to !== undefined) webhooks.send(twilioWebhook(account.authToken, to, fields));
        return { status: 200, body: { sid } };
      }
      const [, sid = ""] = /^\/__sandbox\/messages\/([^/]+)\/status$/.exec(controlled) ?? [];
      const message = sent.get(sid);
      if (!message) return undefined;
      tell(message, String(body["status"]), typeof body["code"] === "number" ? body["code"] : undefined);
      return { status: 200, body: {} };
    },
  };
}

/** The code of what is wrong with a message. */
function problemWith(form: Form, number: string): number | undefined {
  const {
    To: to = "",
    From: from,
    MessagingServiceSid: service,
    Body: text = "",
    StatusCallback: callback,
    ValidityPeriod: validity,
  } = form;
  if (to === "") return 21604;
  if (from === undefined && service === undefined) return 21603;
  if (text === "") return 21602;
  if (text.length > MAX_BODY_CHARACTERS) return 21617;
  if (from !== undefined && !/^\+[1-9]\d{6,14}$/.test(from)) return 21212;
  if (from !== undefined && from !== number) return 21606;
  if (service !== undefined && !/^MG[0-9a-f]{32}$/.test(service)) return 21606;
  if (!/^\+[1-9]\d{6,14}$/.test(to)) return 21211;
  if (callback !== undefined && !isCallback(callback)) return 21609;
  if (validity !== undefined && !(/^\d+$/.test(validity) && Number(validity) >= 1 && Number(validity) <= MAX_VALIDITY_SECONDS))
    return 20001;
  return REFUSED.get(to.slice(-4));
}

function isCallback(address: string): boolean {
  const url = URL.parse(address);
  return url !== null && /^https?:$/.test(url.protocol) && !url.hostname.includes("_");
}

function messageBody({ sid, to, from, service, body, at, status, errorCode }: Sent, { accountSid }: Account): object {
  const date = at.toUTCString().replace("GMT", "+0000");
  return {
    ...{ sid, account_sid: accountSid, messaging_service_sid: service, from: service === null ? from : null, to, body, status },
    ...{ direction: "outbound-api", num_segments: "1", num_media: "0", price: null, price_unit: "USD", api_version: "2010-04-01" },
    ...{ error_code: errorCode, error_message: null, date_created: date, date_sent: date, date_updated: date },
    ...{ uri: `/2010-04-01/Accounts/${accountSid}/Messages/${sid}.json`, subresource_uris: {} },
  };
}

function newSid(prefix: string): string {
  return prefix + randomBytes(16).toString("hex");
}

function failed(status: number, code: number): Answered {
  return { status, body: { code, message: "This is the sandbox.", more_info: `https://www.twilio.com/docs/errors/${code}`, status } };
}
