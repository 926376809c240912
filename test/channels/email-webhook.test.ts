import { generateKeyPairSync, sign } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type ChannelWebhook, ChannelWebhookRefused } from "../../src/channels/channel.ts";
import { createEmail } from "../../src/channels/email.ts";
import { readEmailWebhook, readWebhookKey } from "../../src/channels/email-webhook.ts";
import { createProviderCalls } from "../../src/channels/provider-calls.ts";
import { createOutbox } from "../../src/sandbox/outbox.ts";
import { type SendGridSandbox, sendgridSignature, sendgridWebhook, startSendGridSandbox } from "../../src/sandbox/sendgrid-sandbox.ts";
import { control } from "../couriers/sandboxed.ts";
import { eventually } from "../support/eventually.ts";
import { aMessage, never, TIMEOUT_MS } from "./messages.ts";
import { startWebhookTaker, type TakenWebhook, type WebhookTaker } from "./webhook-taker.ts";

const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const KEY = readWebhookKey(publicKey.export({ format: "der", type: "spki" }).toString("base64"));
type Signed = { readonly body: string; readonly headers: Readonly<Record<string, string>> };
const asWebhook = ({ body, headers }: Signed, method = "POST"): ChannelWebhook => ({
  ...{ method, url: "https://shop.example/webhooks/sendgrid", headers: new Map(Object.entries(headers)), body: Buffer.from(body) },
});
const read = (...events: unknown[]) => readEmailWebhook(asWebhook(sendgridWebhook(privateKey, ...events)), KEY);
const anEvent = (event: string, more: object = {}) => ({
  ...{ event, email: "ada@home.example", timestamp: 1760000000, sg_event_id: `id-${event}`, sg_message_id: "abc.recvd-1-2.0" },
  ...{ message_id: "812.customer.test", ...more },
});
const refusal = (webhook: ChannelWebhook, key: typeof KEY | undefined = KEY) => {
  try {
    readEmailWebhook(webhook, key);
  } catch (error) {
    return error instanceof ChannelWebhookRefused ? error.kind : error;
  }
  return "believed";
};

describe("webhooks of SendGrid", () => {
  it.each([
    ["processed", {}, { report: "SENT", code: "" }],
    ["delivered", { response: "250 OK" }, { report: "DELIVERED", code: "" }],
    ["open", {}, { report: "READ", code: "" }],
    [
      "bounce",
      { type: "bounce", status: "5.1.1", reason: "550 ada@home.example?" },
      { report: "BOUNCED", code: "5.1.1", optOut: "bounce" },
    ],
    ["bounce", { status: "bad ada" }, { report: "BOUNCED", code: "bounce", optOut: "bounce" }],
    ["bounce", { type: "blocked", status: "5.7.1" }, { report: "FAILED", code: "5.7.1" }],
    ["dropped", { reason: "Bounced Address" }, { report: "FAILED", code: "dropped", optOut: "bounce" }],
    ["dropped", { reason: "Unsubscribed Address" }, { report: "FAILED", optOut: "unsubscribe" }],
    ["dropped", { reason: "Spam Reporting Address" }, { report: "FAILED", optOut: "complaint" }],
    ["dropped", { reason: "Invalid SMTPAPI header" }, { report: "FAILED", code: "dropped" }],
    ["spamreport", {}, { report: "DELIVERED", code: "spamreport", optOut: "complaint" }],
    ["unsubscribe", {}, { report: "DELIVERED", optOut: "unsubscribe" }],
    ["group_unsubscribe", { asm_group_id: 1 }, { report: "DELIVERED", optOut: "unsubscribe" }],
  ])("tell what %s %j means", (event, more, expected) => {
    const [report, ...others] = read(anEvent(event, more));
    expect(report).toEqual({
      ...{ kind: "message", reportId: `id-${event}`, messageId: "812.customer.test", providerMessageId: "abc", code: expect.any(String) },
      ...{ happenedAt: new Date(1760000000_000), detail: expect.any(String), optOut: undefined, ...expected },
    });
    expect(others).toEqual([]);
    expect(JSON.stringify(report)).not.toContain("ada");
  });

  it("are read whole, and without what tells us nothing", () => {
    const strange = ["deferred", "click", "group_resubscribe", "account_status_change", "warming"].map((event) => anEvent(event));
    const nobodys = anEvent("delivered", { message_id: undefined, sg_message_id: undefined });
    const events = [anEvent("processed"), ...strange, null, 7, [], nobodys, anEvent("open", { sg_event_id: 1 }), anEvent("delivered")];
    expect(read(...events).map(({ reportId }) => reportId)).toEqual(["id-processed", "id-delivered"]);
    expect(read()).toEqual([]);
  });

  it("are known by one of the two names, and may lack the time", () => {
    expect(read(anEvent("bounce", { sg_message_id: undefined, timestamp: "soon" }))).toMatchObject([
      { messageId: "812.customer.test", providerMessageId: "", happenedAt: undefined },
    ]);
    expect(read(anEvent("open", { message_id: 7 }))).toMatchObject([{ messageId: undefined, providerMessageId: "abc" }]);
  });

  it("are the same when they come again", () => {
    expect(read(anEvent("open"))).toEqual(read(anEvent("open")));
  });

  it("are not believed when they are forged, altered or unsigned, or when there is no key", () => {
    const webhook = sendgridWebhook(privateKey, anEvent("delivered"));
    const { body, headers, forged } = webhook;
    expect(refusal(asWebhook(webhook))).toBe("believed");
    const [signature, timestamp] = ["x-twilio-email-event-webhook-signature", "x-twilio-email-event-webhook-timestamp"];
    for (const wrong of [forged, {}, { [signature]: headers[signature] ?? "" }, { ...headers, [timestamp]: "1" }])
      expect(refusal(asWebhook({ body, headers: wrong }))).toBe("forged");
    for (const wrong of ["", "AAAA", "not base64 at all", (headers[signature] ?? "").slice(0, -8)])
      expect(refusal(asWebhook({ body, headers: { ...headers, [signature]: wrong } }))).toBe("forged");
    expect(refusal(asWebhook({ body: body.replace("delivered", "processed"), headers }))).toBe("forged");
    expect(refusal(asWebhook({ body: body.trimEnd(), headers }))).toBe("forged");
    const unsigned = { [signature]: sign("sha256", Buffer.from(body), privateKey).toString("base64"), [timestamp]: "" };
    expect(refusal(asWebhook({ body, headers: unsigned }))).toBe("forged");
    const keyless = createEmail(
      { baseUrl: "http://127.0.0.1:9", apiKey: "SG.x", from: "a@b.example", fromName: "", webhookPublicKey: undefined, timeoutMs: 1 },
      { render: () => ({ subject: "", text: "", html: "" }), calls: createProviderCalls() },
    );
    expect(() => keyless.readWebhook?.(asWebhook(webhook))).toThrow(new ChannelWebhookRefused("forged", "the signature is wrong"));
  });

  it("are refused when they make no sense", () => {
    for (const text of ["", "{}", "null", "[", "7"])
      expect(refusal(asWebhook({ body: text, headers: sendgridSignature(privateKey, text) }))).toBe("malformed");
    expect(refusal(asWebhook(sendgridWebhook(privateKey, anEvent("open")), "GET"))).toBe("malformed");
  });
});

describe("the sandbox of SendGrid", () => {
  let taker: WebhookTaker;
  let sandbox: SendGridSandbox;
  beforeAll(async () => {
    taker = await startWebhookTaker();
    sandbox = await startSendGridSandbox({ outbox: createOutbox(), webhooksTo: () => taker.url });
  });
  afterAll(async () => {
    await sandbox[Symbol.asyncDispose]();
    await taker[Symbol.asyncDispose]();
  });
  beforeEach(() => void taker.taken.splice(0));

  const email = () => {
    const render = () => ({ subject: "Order", text: "x", html: "<p>x</p>" });
    return createEmail({ ...sandbox.settings, timeoutMs: TIMEOUT_MS }, { render, calls: createProviderCalls() });
  };
  const told = ({ webhook }: TakenWebhook): readonly object[] => {
    try {
      return email().readWebhook?.(webhook) ?? [];
    } catch {
      return [{ report: "refused" }];
    }
  };
  const send = (to: string) => email().send(aMessage({ to: { email: to } }), never());

  it.each([
    ["ada@home.example", ["SENT", "DELIVERED"]],
    ["bounce@home.example", ["SENT", "BOUNCED"]],
    ["blocked@home.example", ["SENT", "FAILED"]],
    ["dropped@home.example", ["FAILED"]],
  ])("tells what becomes of a message to %s by webhooks that are believed", async (to, expected) => {
    const { providerMessageId } = await send(to);
    await eventually(() => expect(taker.taken).toHaveLength(expected.length));
    expect(taker.taken[0]?.webhook.url).toBe(`${taker.url}/webhooks/sendgrid`);
    const reports = taker.taken.flatMap(told);
    expect(reports).toMatchObject(expected.map((report) => ({ report, providerMessageId, messageId: "812.customer.test" })));
  });

  it("tells what it is told to", async () => {
    const { providerMessageId } = await send("ada@home.example");
    await control(sandbox.settings.baseUrl, "POST", `messages/${providerMessageId}/event`, { event: "spamreport" });
    await eventually(() => expect(taker.taken.flatMap(told)).toMatchObject([{}, {}, { optOut: "complaint", providerMessageId }]));
  });

  it.each([
    ["duplicate", ["SENT", "SENT", "DELIVERED"]],
    ["reorder", ["DELIVERED", "SENT"]],
    ["drop", ["DELIVERED"]],
    ["forge", ["refused", "DELIVERED"]],
  ])("can %s them", async (fault, expected) => {
    await control(sandbox.settings.baseUrl, "POST", "webhook-faults", { fault });
    await send("ada@home.example");
    await eventually(() => expect(taker.taken).toHaveLength(expected.length));
    expect(taker.taken.flatMap(told)).toMatchObject(expected.map((report) => ({ report })));
  });
});
