import twilio from "twilio";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type ChannelWebhook, ChannelWebhookRefused } from "../../src/channels/channel.ts";
import { createProviderCalls } from "../../src/channels/provider-calls.ts";
import { createSms } from "../../src/channels/sms.ts";
import { readSmsWebhook } from "../../src/channels/sms-webhook.ts";
import { createOutbox } from "../../src/sandbox/outbox.ts";
import { startTwilioSandbox, type TwilioSandbox, twilioWebhook } from "../../src/sandbox/twilio-sandbox.ts";
import { control } from "../couriers/sandboxed.ts";
import { eventually } from "../support/eventually.ts";
import { aMessage, never, TIMEOUT_MS } from "./messages.ts";
import { startWebhookTaker, type TakenWebhook, type WebhookTaker } from "./webhook-taker.ts";

const TOKEN = "0123456789abcdef0123456789abcdef";
const SID = `SM${"a".repeat(32)}`;
const URL_OF_OURS = "https://shop.example/webhooks/twilio?message_id=812.customer.test";
type Signed = { readonly url: string; readonly body: string; readonly headers: Readonly<Record<string, string>> };
const asWebhook = ({ url, body, headers }: Signed, method = "POST"): ChannelWebhook => ({
  ...{ method, url, headers: new Map(Object.entries(headers)), body: Buffer.from(body) },
});
const read = (fields: Readonly<Record<string, string>>, url = URL_OF_OURS) =>
  readSmsWebhook(asWebhook(twilioWebhook(TOKEN, url, { MessageSid: SID, From: "+15550107777", ...fields })), TOKEN);
const refusal = (webhook: ChannelWebhook, token = TOKEN) => {
  try {
    readSmsWebhook(webhook, token);
  } catch (error) {
    return error instanceof ChannelWebhookRefused ? error.kind : error;
  }
  return "believed";
};

describe("webhooks of Twilio", () => {
  it.each([
    ["sent", "SENT"],
    ["partially_delivered", "SENT"],
    ["delivered", "DELIVERED"],
    ["read", "READ"],
  ])("tell that a message was %s", (status, report) => {
    expect(read({ MessageStatus: status })).toEqual([
      {
        ...{ kind: "message", reportId: `${SID}.${status}`, messageId: "812.customer.test", providerMessageId: SID, report },
        ...{ code: "", detail: "", optOut: undefined },
      },
    ]);
  });

  it.each(["undelivered", "failed", "canceled"])("tell why one is %s", (MessageStatus) => {
    const failed = (ErrorCode: string) => read({ MessageStatus, ErrorCode });
    expect(failed("30005")).toMatchObject([{ report: "FAILED", code: "30005", detail: "the number is not known, or no longer in use" }]);
    expect(failed("21610")).toMatchObject([{ report: "FAILED", code: "21610", optOut: "provider" }]);
    expect(failed("42424")).toMatchObject([{ report: "FAILED", code: "42424", optOut: undefined }]);
    expect(failed("Ada")).toMatchObject([{ report: "FAILED", code: "", detail: expect.stringContaining("we do not know") }]);
  });

  it.each(["queued", "accepted", "scheduled", "sending", "warming"])("tell us nothing by %s", (MessageStatus) => {
    expect(read({ MessageStatus })).toEqual([]);
  });

  it("may lack our reference", () => {
    for (const url of ["https://shop.example/webhooks/twilio", "https://shop.example/webhooks/twilio?message_id="])
      expect(read({ MessageStatus: "sent" }, url)).toMatchObject([{ messageId: undefined, providerMessageId: SID }]);
  });

  it.each([
    ...["STOP", " stop. ", "StopAll", "unsubscribe", "CANCEL", "end", "quit", "ALTO", "¡alto!", "parar", "Baja"].map((text) => [
      text,
      "STOP",
    ]),
    ...["START", "unstop", "alta"].map((text) => [text, "START"]),
    ...["please stop", "", "no", "stopping", "Is it still coming?"].map((text) => [text, "none"]),
  ])("take %j for a wish of %s", (text, wish) => {
    expect(read({ Body: text ?? "", SmsStatus: "received" })).toEqual([{ kind: "inbound", reportId: SID, phone: "+15550107777", wish }]);
  });

  it("tell nothing of who has no number", () => {
    for (const From of ["whatsapp:+15550107777", "262966", ""]) expect(read({ From, Body: "STOP" })).toEqual([]);
  });

  it("are the same when they come again", () => {
    expect(read({ MessageStatus: "sent" })).toEqual(read({ MessageStatus: "sent" }));
  });

  it("are believed whatever fields Twilio adds, and wherever a port is written", () => {
    const added = { MessageStatus: "sent", ErrorMessage: "grün & more", RawDlrDoneDate: "2611261200", Empty: "" };
    expect(read(added)).toHaveLength(1);
    const { body, headers } = twilioWebhook(TOKEN, URL_OF_OURS, { MessageSid: SID, MessageStatus: "sent" });
    expect(refusal(asWebhook({ url: URL_OF_OURS.replace("shop.example", "shop.example:443"), body, headers }))).toBe("believed");
    const form = new URLSearchParams([...Object.entries({ MessageSid: SID, MessageStatus: "sent" }), ["Twice", "b"], ["Twice", "a"]]);
    const fields = { MessageSid: SID, MessageStatus: "sent", Twice: ["b", "a"] };
    const signature = twilio.getExpectedTwilioSignature(TOKEN, URL_OF_OURS, fields);
    expect(refusal(asWebhook({ url: URL_OF_OURS, body: form.toString(), headers: { "x-twilio-signature": signature } }))).toBe("believed");
  });

  it("are not believed when they are forged, altered or unsigned", () => {
    const webhook = twilioWebhook(TOKEN, URL_OF_OURS, { MessageSid: SID, MessageStatus: "sent" });
    const { url, body, headers, forged } = webhook;
    const cut = { "x-twilio-signature": (headers["x-twilio-signature"] ?? "").slice(1) };
    for (const wrong of [forged, {}, cut, { "x-twilio-signature": "" }])
      expect(refusal(asWebhook({ url, body, headers: wrong }))).toBe("forged");
    for (const changed of [body.replace("sent", "delivered"), `${body}&Added=1`, "", body.replace("MessageSid", "messageSid")])
      expect(refusal(asWebhook({ url, body: changed, headers }))).toBe("forged");
    for (const other of [url.replace("812", "813"), url.replace("https", "http"), url.replace("shop", "shop2"), "/webhooks/twilio", ""])
      expect(refusal(asWebhook({ url: other, body, headers }))).toBe("forged");
    expect(refusal(asWebhook(webhook), "")).toBe("forged");
  });

  it("are refused when they make no sense", () => {
    for (const fields of [{}, { MessageSid: "SM1" }, { MessageStatus: "sent" }] as Record<string, string>[])
      expect(refusal(asWebhook(twilioWebhook(TOKEN, URL_OF_OURS, fields)))).toBe("malformed");
    expect(refusal(asWebhook(twilioWebhook(TOKEN, URL_OF_OURS, { MessageSid: SID, MessageStatus: "sent" }), "GET"))).toBe("malformed");
  });
});

describe("the sandbox of Twilio", () => {
  let taker: WebhookTaker;
  let sandbox: TwilioSandbox;
  beforeAll(async () => {
    taker = await startWebhookTaker();
    sandbox = await startTwilioSandbox({ outbox: createOutbox(), webhooksTo: () => taker.url });
  });
  afterAll(async () => {
    await sandbox[Symbol.asyncDispose]();
    await taker[Symbol.asyncDispose]();
  });
  beforeEach(() => void taker.taken.splice(0));

  const sms = () => {
    const render = () => ({ text: "Order", encoding: "GSM-7" as const, segments: 1 });
    const { settings } = sandbox;
    return createSms({ ...settings, publicUrl: settings.publicUrl, timeoutMs: TIMEOUT_MS }, { render, calls: createProviderCalls() });
  };
  const told = ({ webhook }: TakenWebhook): readonly object[] => {
    try {
      return sms().readWebhook?.(webhook) ?? [];
    } catch {
      return [{ report: "refused" }];
    }
  };

  it("tells what becomes of a message by webhooks that are believed", async () => {
    const { providerMessageId } = await sms().send(aMessage({ messageId: "812.customer/é&x" }), never());
    await eventually(() => expect(taker.taken).toHaveLength(2));
    const expected = ["SENT", "DELIVERED"].map((report) => ({ report, providerMessageId, messageId: "812.customer/é&x" }));
    expect(taker.taken.flatMap(told)).toMatchObject(expected);
    await control(sandbox.settings.baseUrl, "POST", `messages/${providerMessageId}/status`, { status: "undelivered", code: 30003 });
    await eventually(() => expect(taker.taken.flatMap(told)[2]).toMatchObject({ report: "FAILED", code: "30003" }));
  });

  it.each([
    ["duplicate", ["SENT", "SENT", "DELIVERED"]],
    ["reorder", ["DELIVERED", "SENT"]],
    ["drop", ["DELIVERED"]],
    ["forge", ["refused", "DELIVERED"]],
  ])("can %s them", async (fault, expected) => {
    await control(sandbox.settings.baseUrl, "POST", "webhook-faults", { fault });
    await sms().send(aMessage(), never());
    await eventually(() => expect(taker.taken).toHaveLength(expected.length));
    expect(taker.taken.flatMap(told)).toMatchObject(expected.map((report) => ({ report })));
  });

  it("writes what somebody is told to", async () => {
    await control(sandbox.settings.baseUrl, "POST", "inbound", { from: "+15550107777", text: "Baja" });
    await eventually(() => expect(taker.taken.flatMap(told)).toMatchObject([{ kind: "inbound", phone: "+15550107777", wish: "STOP" }]));
    expect(taker.taken[0]?.webhook.url).toBe(`${taker.url}/webhooks/twilio`);
  });
});
