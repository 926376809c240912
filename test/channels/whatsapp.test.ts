import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createProviderCalls } from "../../src/channels/provider-calls.ts";
import { createWhatsApp } from "../../src/channels/whatsapp.ts";
import { createOutbox } from "../../src/sandbox/outbox.ts";
import { startWhatsAppSandbox, type WhatsAppSandbox } from "../../src/sandbox/whatsapp-sandbox.ts";
import { control, fail } from "../couriers/sandboxed.ts";
import { aMessage, failure, never, TIMEOUT_MS } from "./messages.ts";

const outbox = createOutbox();
const calls = createProviderCalls();
const render = () => ({ name: "order_on_the_way", language: "en", parameters: ["Ada", "18:35\nsharp"], text: "Secret text for Ada" });
let sandbox: WhatsAppSandbox;
const whatsapp = (more: object = {}) => createWhatsApp({ ...sandbox.settings, timeoutMs: TIMEOUT_MS, ...more }, { render, calls });
const faults = (body: object) => control(sandbox.settings.baseUrl, "POST", "faults", { operation: "send", times: 1, ...body });

beforeAll(async () => {
  sandbox = await startWhatsAppSandbox({ outbox });
});
afterAll(() => sandbox[Symbol.asyncDispose]());
beforeEach(async () => {
  outbox.clear();
  await control(sandbox.settings.baseUrl, "DELETE", "faults");
});

describe("WhatsApp", () => {
  it("sends the approved template while no conversation is open, with our reference", async () => {
    const { providerMessageId } = await whatsapp().send(aMessage(), never());
    expect(outbox.all()).toMatchObject([
      { id: providerMessageId, to: "+15550107777", text: "order_on_the_way (en): Ada | 18:35 sharp", reference: "812.customer.test" },
    ]);
  });

  it("sends text while one is", async () => {
    await control(sandbox.settings.baseUrl, "POST", "inbound", { from: "+15550108888", text: "hello" });
    const message = aMessage({ isConversationOpen: true, to: { phone: "+15550108888" } });
    await whatsapp().send(message, never());
    expect(outbox.all()).toMatchObject([{ text: "Secret text for Ada" }]);
  });

  it("sends the template, once, when the conversation has ended after all", async () => {
    await whatsapp().send(aMessage({ isConversationOpen: true }), never());
    expect(outbox.all()).toMatchObject([{ text: "order_on_the_way (en): Ada | 18:35 sharp" }]);
    expect(calls.read()).toContainEqual(expect.objectContaining({ provider: "meta", outcome: "131047", calls: 1 }));
    await faults({ fault: 400, code: 131047, times: 2 });
    expect(await failure(whatsapp().send(aMessage({ isConversationOpen: true }), never()))).toMatchObject({
      kind: "refused",
      code: "131047",
    });
  });

  it.each([
    ...[
      [401, 0],
      [401, 190],
      [403, 3],
      [403, 10],
      [403, 200],
      [403, 299],
      [400, 131031],
      [400, 368],
      [400, 130497],
    ].map((e) => [...e, "misconfigured"]),
    ...[
      [400, 131042],
      [400, 133010],
      [400, 131048],
    ].map((each) => [...each, "misconfigured"]),
    ...[
      [400, 4],
      [400, 80007],
      [429, 130429],
      [400, 131056],
      [500, 131000],
      [500, 131016],
      [500, 1],
      [503, 2],
    ].map((e) => [...e, "unavailable"]),
    ...[
      [400, 131047],
      [400, 131026],
      [400, 131051],
      [400, 131049],
      [400, 131050],
      [400, 100],
      [400, 131008],
    ].map((e) => [...e, "refused"]),
    ...[
      [400, 131009],
      [400, 131021],
      [400, 132000],
      [404, 132001],
      [400, 132005],
      [400, 132007],
    ].map((e) => [...e, "refused"]),
    ...[
      [400, 132012],
      [400, 132015],
      [400, 132016],
      [400, 999999],
    ].map((e) => [...e, "refused"]),
    ...[
      [401, 999999],
      [403, 999999],
    ].map((e) => [...e, "misconfigured"]),
    [503, 999999, "unavailable"],
  ] as [number, number, string][])("takes status %i with code %i for %s", async (fault, code, kind) => {
    await faults({ fault, code });
    const error = await failure(whatsapp().send(aMessage(), never()));
    expect(error).toMatchObject({ kind, code: String(code) });
    expect(error.detail).not.toBe("");
    expect(error.optOut).toBe(code === 131050 ? "provider" : undefined);
    expect(outbox.all()).toEqual([]);
  });

  it("tells how long Meta wants us to wait", async () => {
    await faults({ fault: 429, code: 130429, retryAfter: "7" });
    expect(await failure(whatsapp().send(aMessage(), never()))).toMatchObject({ kind: "unavailable", retryAfterMs: 7000 });
    await faults({ fault: 503, code: 2, retryAfter: new Date(Date.now() + 60_000).toUTCString() });
    expect((await failure(whatsapp().send(aMessage(), never()))).retryAfterMs).toBeGreaterThan(50_000);
    await faults({ fault: 400, code: 131056 });
    expect(await failure(whatsapp().send(aMessage(), never()))).toMatchObject({ retryAfterMs: 6000 });
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
    const message = aMessage({ messageId: `812.customer.${fault}` });
    expect(await failure(whatsapp().send(message, never()))).toMatchObject({ kind: "unknown", code });
    expect(outbox.all().filter(({ reference }) => reference === message.messageId)).toHaveLength(taken);
  });

  it("knows that nothing has left when there was no connection", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    for (const baseUrl of [`http://127.0.0.1:${port}`, "http://nobody.invalid"])
      expect(await failure(whatsapp({ baseUrl, timeoutMs: 5000 }).send(aMessage(), never()))).toMatchObject({ kind: "unavailable" });
  });

  it("says that a wrong token is ours to mend, and shows nothing of it", async () => {
    const error = await failure(whatsapp({ accessToken: "wr0ng" }).send(aMessage(), never()));
    expect(error).toMatchObject({ kind: "misconfigured", code: "190" });
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain("wr0ng");
  });

  it("ends with the signal's reason before anything has left, and does not know afterwards", async () => {
    const reason = new Error("enough");
    await expect(whatsapp().send(aMessage(), AbortSignal.abort(reason))).rejects.toBe(reason);
    await fail(sandbox.settings.baseUrl, "send", "timeout");
    expect(await failure(whatsapp().send(aMessage(), AbortSignal.timeout(100)))).toMatchObject({ kind: "unknown", code: "stopped" });
  });

  it("reaches whoever has a phone", async () => {
    expect(whatsapp().reaches({ phone: "+15550107777" })).toBe(true);
    expect(whatsapp().reaches({})).toBe(false);
    expect(await failure(whatsapp().send(aMessage({ to: {} }), never()))).toMatchObject({ kind: "refused", code: "no_address" });
  });
});
