import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createEmail } from "../../src/channels/email.ts";
import { createProviderCalls } from "../../src/channels/provider-calls.ts";
import { createOutbox } from "../../src/sandbox/outbox.ts";
import { type SendGridSandbox, startSendGridSandbox } from "../../src/sandbox/sendgrid-sandbox.ts";
import type { MessageVariables } from "../../src/templates/message-variables.ts";
import { renderEmail } from "../../src/templates/render.ts";
import { control, fail } from "../couriers/sandboxed.ts";
import { aMessage, failure, never, TIMEOUT_MS } from "./messages.ts";

const outbox = createOutbox();
const calls = createProviderCalls();
const rendered = { subject: "On its way, Ada", text: "Secret text for Ada\n", html: "<p>Secret text for <b>Ada</b></p>" };
const render = () => rendered;
let sandbox: SendGridSandbox;
const email = (more: object = {}) => createEmail({ ...sandbox.settings, timeoutMs: TIMEOUT_MS, ...more }, { render, calls });
const faults = (body: object) => control(sandbox.settings.baseUrl, "POST", "faults", { operation: "send", times: 1, ...body });
const TO = "ada.lovelace@home.example";
const toAda = (more: object = {}) => aMessage({ to: { email: TO }, ...more });
const variables = (unsubscribe_url: string): MessageVariables => ({ ...aMessage().variables, unsubscribe_url });
/** The ChannelError that a sending ends with, which holds neither the address nor the key. */
async function refusal(call: Promise<unknown>) {
  const error = await failure(call);
  const all = `${error.stack} ${JSON.stringify(error, Object.getOwnPropertyNames(error))}`;
  expect(all).not.toContain("lovelace");
  expect(all).not.toContain(sandbox.settings.apiKey);
  return error;
}

beforeAll(async () => {
  sandbox = await startSendGridSandbox({ outbox });
});
afterAll(() => sandbox[Symbol.asyncDispose]());
beforeEach(async () => {
  outbox.clear();
  await control(sandbox.settings.baseUrl, "DELETE", "faults");
});

describe("email", () => {
  it("sends text and HTML with our reference", async () => {
    const { providerMessageId } = await email({ replyTo: "help@sandbox.example" }).send(toAda(), never());
    expect(providerMessageId).not.toBe("");
    expect(outbox.all()).toEqual([
      {
        ...{ channel: "email", id: providerMessageId, to: TO, ...rendered, reference: "812.customer.test" },
        ...{ data: {}, at: expect.any(Date) },
      },
    ]);
    expect(calls.read()).toContainEqual(expect.objectContaining({ provider: "sendgrid", outcome: "accepted", calls: 1 }));
  });

  it("sends what the templates make", async () => {
    const { settings } = sandbox;
    await createEmail({ ...settings, timeoutMs: TIMEOUT_MS }, { render: renderEmail, calls }).send(toAda({ locale: "es-MX" }), never());
    const { variables } = toAda();
    expect(outbox.all()).toMatchObject([renderEmail("order-on-the-way", "es", variables)]);
  });

  it("says how to unsubscribe with one click, where there is a way", async () => {
    await email().send(toAda({ variables: variables("https://shop.example/unsubscribe?token=1") }), never());
    await email().send(toAda({ variables: variables("no address\r\nX-Injected: 1") }), never());
    expect(outbox.all().map(({ data }) => data)).toEqual([
      { "List-Unsubscribe": "<https://shop.example/unsubscribe?token=1>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click" },
      {},
    ]);
  });

  it.each([
    [400, "refused"],
    [401, "misconfigured"],
    [403, "misconfigured"],
    [404, "misconfigured"],
    [405, "misconfigured"],
    [408, "unavailable"],
    [413, "refused"],
    [418, "refused"],
    [429, "unavailable"],
    [500, "unavailable"],
    [502, "unknown"],
    [503, "unavailable"],
    [504, "unknown"],
    [599, "unavailable"],
    [302, "misconfigured"],
    [204, "unknown"],
  ])("takes status %i for %s", async (fault, kind) => {
    await faults({ fault });
    const error = await refusal(email().send(toAda(), never()));
    expect(error).toMatchObject({ kind, code: `http_${fault}`, optOut: undefined });
    expect(error.detail).not.toBe("");
    expect(outbox.all()).toEqual([]);
  });

  it("tells how long SendGrid wants us to wait", async () => {
    await faults({ fault: 429, retryAfter: "30" });
    const { retryAfterMs } = await refusal(email().send(toAda(), never()));
    expect(retryAfterMs).toBeGreaterThan(28_000);
    expect(retryAfterMs).toBeLessThanOrEqual(31_000);
    await faults({ fault: 503, retryAfter: "7" });
    expect(await refusal(email().send(toAda(), never()))).toMatchObject({ kind: "unavailable", retryAfterMs: 7000 });
  });

  it.each([
    ["timeout", "timeout", 0],
    ["slow", "timeout", 0],
    ["lose", "timeout", 1],
    ["reset", "connection_lost", 0],
    ["reset-mid-body", "connection_lost", 1],
    ["malformed", "unreadable_answer", 0],
  ] as const)("does not know what has become of it after %s, and asks once only", async (fault, code, taken) => {
    await fail(sandbox.settings.baseUrl, "send", fault);
    // A reference of its own: what is slow may be taken when other tests run.
    const message = toAda({ messageId: `812.customer.${fault}` });
    const started = performance.now();
    expect(await refusal(email().send(message, never()))).toMatchObject({ kind: "unknown", code });
    expect(performance.now() - started).toBeLessThan(TIMEOUT_MS + 600);
    expect(outbox.all().filter(({ reference }) => reference === message.messageId)).toHaveLength(taken);
  });

  it("knows that nothing has left when there was no connection", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    for (const baseUrl of [`http://127.0.0.1:${port}`, "http://nobody.invalid"])
      expect(await refusal(email({ baseUrl, timeoutMs: 5000 }).send(toAda(), never()))).toMatchObject({ kind: "unavailable" });
  });

  it("says that a wrong key or sender is ours to mend", async () => {
    const error = await refusal(email({ apiKey: "SG.wr0ng" }).send(toAda(), never()));
    expect(error).toMatchObject({ kind: "misconfigured", code: "http_401" });
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain("wr0ng");
    expect(await refusal(email({ from: "someone@else.example" }).send(toAda(), never()))).toMatchObject({ code: "http_403" });
    expect(() => email({ webhookPublicKey: "bm8ga2V5" })).toThrow();
  });

  it("ends with the signal's reason before anything has left, and does not know afterwards", async () => {
    const reason = new Error("enough");
    await expect(email().send(toAda(), AbortSignal.abort(reason))).rejects.toBe(reason);
    await fail(sandbox.settings.baseUrl, "send", "timeout");
    expect(await refusal(email().send(toAda(), AbortSignal.timeout(100)))).toMatchObject({ kind: "unknown", code: "stopped" });
  });

  it("reaches whoever has an address that SendGrid takes", async () => {
    expect(email().reaches({ email: TO })).toBe(true);
    expect(email().reaches({ phone: "+15550107777" })).toBe(false);
    expect(await refusal(email().send(toAda({ to: {} }), never()))).toMatchObject({ kind: "refused", code: "no_address" });
    expect(await refusal(email().send(toAda({ to: { email: "lovelace" } }), never()))).toMatchObject({ kind: "refused", code: "http_400" });
  });
});
