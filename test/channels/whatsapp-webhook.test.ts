import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type ChannelReport, type ChannelWebhook, ChannelWebhookRefused } from "../../src/channels/channel.ts";
import { createProviderCalls } from "../../src/channels/provider-calls.ts";
import { createWhatsApp } from "../../src/channels/whatsapp.ts";
import { answerChallenge, readWhatsAppWebhook } from "../../src/channels/whatsapp-webhook.ts";
import { createOutbox } from "../../src/sandbox/outbox.ts";
import { startWhatsAppSandbox, type WhatsAppSandbox, whatsappWebhook } from "../../src/sandbox/whatsapp-sandbox.ts";
import { control } from "../couriers/sandboxed.ts";
import { eventually } from "../support/eventually.ts";
import { aMessage, never, TIMEOUT_MS } from "./messages.ts";

const ACCOUNT = { appSecret: "app secret", phoneNumberId: "1" };
const settings = { ...ACCOUNT, baseUrl: "", apiVersion: "v25.0", accessToken: "", verifyToken: "", timeoutMs: 1 };
type Sent = { readonly body: string; readonly headers: Readonly<Record<string, string>> };
const asWebhook = ({ body, headers }: Sent, method = "POST"): ChannelWebhook => ({
  ...{ method, url: "/webhooks/whatsapp", headers: new Map(Object.entries(headers)), body: Buffer.from(body) },
});
const read = (...values: object[]) => readWhatsAppWebhook(asWebhook(whatsappWebhook(ACCOUNT, ...values)), settings);
const inbound = (text: string, more: object = {}) => ({
  messages: [{ from: "15550107777", id: "wamid.in", timestamp: "1760000000", type: "text", text: { body: text }, ...more }],
});
const refusal = (webhook: ChannelWebhook) => {
  try {
    readWhatsAppWebhook(webhook, settings);
  } catch (error) {
    return error instanceof ChannelWebhookRefused ? error.kind : error;
  }
  return "believed";
};

describe("webhooks of WhatsApp", () => {
  it.each([
    ["sent", "SENT"],
    ["delivered", "DELIVERED"],
    ["read", "READ"],
    ["played", "READ"],
  ])("tell that a message was %s", (status, report) => {
    const told = {
      id: "wamid.1",
      status,
      timestamp: "1760000000",
      recipient_id: "15550107777",
      biz_opaque_callback_data: "812.customer.test",
    };
    expect(read({ statuses: [told] })).toEqual([
      {
        ...{ kind: "message", reportId: `wamid.1.${status}`, messageId: "812.customer.test", providerMessageId: "wamid.1", report },
        ...{ happenedAt: new Date(1760000000_000), code: "", detail: "", optOut: undefined },
      },
    ]);
  });

  it("tell why one has failed, and who wants no more", () => {
    const failed = (code: number) => read({ statuses: [{ id: "wamid.1", status: "failed", timestamp: "1760000000", errors: [{ code }] }] });
    expect(failed(131026)).toMatchObject([{ report: "FAILED", code: "131026", detail: "this number cannot be reached by WhatsApp" }]);
    expect(failed(131050)).toMatchObject([{ report: "FAILED", optOut: "provider" }]);
    expect(failed(424242)).toMatchObject([{ report: "FAILED", code: "424242", optOut: undefined }]);
  });

  it.each([
    ...["STOP", " stop. ", "StopAll", "unsubscribe", "CANCEL", "end", "quit", "ALTO", "¡alto!", "parar", "Baja"].map((text) => [
      text,
      "STOP",
    ]),
    ...["START", "unstop", "alta"].map((text) => [text, "START"]),
    ...["please stop", "", "no", "stopping", "Is it still coming?"].map((text) => [text, "none"]),
  ])("take %j for a wish of %s", (text, wish) => {
    expect(read(inbound(text ?? ""))).toEqual([
      { kind: "inbound", reportId: "wamid.in", phone: "+15550107777", happenedAt: new Date(1760000000_000), wish },
    ]);
  });

  it("read a button's words, and any other message as one that opens the conversation", () => {
    expect(read(inbound("", { type: "button", text: undefined, button: { text: "Stop" } }))).toMatchObject([{ wish: "STOP" }]);
    const reply = { type: "interactive", text: undefined, interactive: { button_reply: { id: "1", title: "Alta" } } };
    expect(read(inbound("", reply))).toMatchObject([{ wish: "START" }]);
    expect(read(inbound("", { type: "image", text: undefined }))).toMatchObject([{ wish: "none" }]);
  });

  it("are read whole, and without what is not ours to know", () => {
    const status = { id: "wamid.1", status: "read", timestamp: "1", recipient_user_id: "DE.1" };
    const strange = [{ ...status, status: "warming" }, { status: "sent" }, null, 7];
    const reports = read(
      { statuses: [status, ...strange] },
      inbound("hi", { from: undefined }),
      { errors: [{ code: 1 }] },
      inbound("STOP"),
    );
    expect(reports.map(({ reportId }) => reportId)).toEqual(["wamid.1.read", "wamid.in"]);
    const toAnother = whatsappWebhook({ ...ACCOUNT, phoneNumberId: "2" }, { ...inbound("STOP"), statuses: [status] });
    expect(readWhatsAppWebhook(asWebhook(toAnother), settings).map(({ reportId }) => reportId)).toEqual(["wamid.1.read"]);
    const oneEntry = JSON.parse(whatsappWebhook(ACCOUNT, inbound("a")).body);
    oneEntry.entry.push({ id: "2", changes: [{ field: "account_update", value: {} }, oneEntry.entry[0].changes[0]] });
    expect(readWhatsAppWebhook(asWebhook(signed(JSON.stringify(oneEntry))), settings)).toHaveLength(2);
  });

  it("are not believed when they are forged, altered or unsigned, and refused when they make no sense", () => {
    const { body, headers, forged } = whatsappWebhook(ACCOUNT, inbound("STOP"));
    const upper = { "x-hub-signature-256": String(headers["x-hub-signature-256"]).toUpperCase() };
    for (const wrong of [forged, {}, upper, { "x-hub-signature-256": "sha256=" }])
      expect(refusal(asWebhook({ body, headers: wrong }))).toBe("forged");
    expect(refusal(asWebhook({ body: body.replace("STOP", "STAY"), headers }))).toBe("forged");
    for (const text of ["", "[]", "null", "{", `{"object":"page","entry":[]}`, `{"object":"whatsapp_business_account"}`])
      expect(refusal(asWebhook(signed(text)))).toBe("malformed");
    expect(refusal(asWebhook({ body, headers }, "GET"))).toBe("malformed");
  });

  /** Any text, signed as Meta would. */
  function signed(text: string): Sent {
    return {
      body: text,
      headers: { "x-hub-signature-256": `sha256=${createHmac("sha256", ACCOUNT.appSecret).update(text).digest("hex")}` },
    };
  }
});

describe("the challenge by which Meta sets up the webhook", () => {
  const url = (token: string, mode = "subscribe") =>
    `https://shop.example/webhooks/whatsapp?hub.mode=${mode}&hub.verify_token=${token}&hub.challenge=1158201444`;

  it("is answered to whoever has the token, and nobody else", () => {
    expect(answerChallenge(url("right"), "right")).toBe("1158201444");
    expect(answerChallenge("/webhooks/whatsapp?hub.mode=subscribe&hub.verify_token=right&hub.challenge=1", "right")).toBe("1");
    for (const [asked, token] of [
      [url("wrong"), "right"],
      [url(""), ""],
      [url("right", "unsubscribe"), "right"],
      ["/webhooks/whatsapp", "right"],
    ])
      expect(answerChallenge(asked ?? "", token ?? "")).toBeUndefined();
  });
});

describe("the sandbox of WhatsApp", () => {
  const taken: Sent[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      taken.push({ body: Buffer.concat(chunks).toString(), headers: request.headers as Record<string, string> });
      response.end();
    });
  });
  let sandbox: WhatsAppSandbox;
  beforeAll(async () => {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    sandbox = await startWhatsAppSandbox({ outbox: createOutbox(), webhooksTo: () => url });
  });
  afterAll(async () => {
    await sandbox[Symbol.asyncDispose]();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  beforeEach(() => void taken.splice(0));

  const whatsapp = () => {
    const render = () => ({ name: "order", language: "es", parameters: [], text: "x" });
    return createWhatsApp({ ...sandbox.settings, timeoutMs: TIMEOUT_MS }, { render, calls: createProviderCalls() });
  };
  const tellings = (): (readonly ChannelReport[] | "refused")[] =>
    taken.map((webhook) => {
      try {
        return whatsapp().readWebhook?.(asWebhook(webhook)) ?? [];
      } catch {
        return "refused";
      }
    });

  it("tells what becomes of a message by webhooks that are believed", async () => {
    const { providerMessageId } = await whatsapp().send(aMessage(), never());
    await eventually(() => expect(taken).toHaveLength(3));
    const reports = tellings().flat();
    expect(reports).toMatchObject(
      ["SENT", "DELIVERED", "READ"].map((report) => ({ report, providerMessageId, messageId: "812.customer.test" })),
    );
    await control(sandbox.settings.baseUrl, "POST", `messages/${providerMessageId}/status`, { status: "failed", code: 131049 });
    await eventually(() => expect(tellings()[3]).toMatchObject([{ report: "FAILED", code: "131049" }]));
  });

  it.each([
    ["duplicate", ["sent", "sent", "delivered", "read"]],
    ["reorder", ["delivered", "sent", "read"]],
    ["drop", ["delivered", "read"]],
    ["forge", ["refused", "delivered", "read"]],
  ])("can %s them", async (fault, expected) => {
    await control(sandbox.settings.baseUrl, "POST", "webhook-faults", { fault });
    await whatsapp().send(aMessage(), never());
    await eventually(() => expect(taken).toHaveLength(expected.length));
    const kinds = tellings().map((each) => (each === "refused" ? each : each[0]?.reportId.split(".").at(-1)));
    expect(kinds).toEqual(expected);
  });

  it("writes what somebody is told to", async () => {
    await control(sandbox.settings.baseUrl, "POST", "inbound", { from: "+15550107777", text: "Baja" });
    await eventually(() => expect(tellings()).toMatchObject([[{ kind: "inbound", phone: "+15550107777", wish: "STOP" }]]));
  });
});
