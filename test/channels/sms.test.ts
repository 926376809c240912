import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createProviderCalls } from "../../src/channels/provider-calls.ts";
import { createSms } from "../../src/channels/sms.ts";
import { createOutbox } from "../../src/sandbox/outbox.ts";
import { startTwilioSandbox, type TwilioSandbox } from "../../src/sandbox/twilio-sandbox.ts";
import { renderSms } from "../../src/templates/render.ts";
import { control, fail } from "../couriers/sandboxed.ts";
import { aMessage, failure, never, TIMEOUT_MS } from "./messages.ts";

const outbox = createOutbox();
const calls = createProviderCalls();
let text = "Secret text for Ada";
const render = () => ({ text, encoding: "GSM-7" as const, segments: 1 });
const SERVICE = `MG${"0".repeat(32)}`;
let sandbox: TwilioSandbox;
const sms = (more: object = {}) => createSms({ ...sandbox.settings, timeoutMs: TIMEOUT_MS, ...more }, { render, calls });
const faults = (body: object) => control(sandbox.settings.baseUrl, "POST", "faults", { operation: "send", times: 1, ...body });
const aMomentAgo = () => new Date(Date.now() - 5000);
/** The ChannelError that a call ends with, which does not hold the token. */
async function refusal(call: Promise<unknown>) {
  const error = await failure(call);
  expect(`${error.stack} ${JSON.stringify(error, Object.getOwnPropertyNames(error))}`).not.toContain(sandbox.settings.authToken);
  return error;
}

beforeAll(async () => {
  sandbox = await startTwilioSandbox({ outbox });
});
afterAll(() => sandbox[Symbol.asyncDispose]());
beforeEach(async () => {
  outbox.clear();
  text = "Secret text for Ada";
  await control(sandbox.settings.baseUrl, "DELETE", "faults");
});

describe("SMS", () => {
  it("sends a text that is given up when it is of no more use", async () => {
    const { providerMessageId } = await sms().send(aMessage(), never());
    expect(providerMessageId).toMatch(/^SM[0-9a-f]{32}$/);
    expect(outbox.all()).toEqual([
      { ...{ channel: "sms", id: providerMessageId, to: "+15550107777", text, data: { validity_period: "600" }, at: expect.any(Date) } },
    ]);
    expect(calls.read()).toContainEqual(expect.objectContaining({ provider: "twilio", outcome: "accepted", calls: 1 }));
  });

  it("sends what the templates make", async () => {
    await createSms({ ...sandbox.settings, timeoutMs: TIMEOUT_MS }, { render: renderSms, calls }).send(aMessage(), never());
    const { variables } = aMessage();
    expect(outbox.all()).toMatchObject([{ text: renderSms("order-on-the-way", "en", variables).text }]);
  });

  it.each([
    [0, "1"],
    [0.5, "1"],
    [90.9, "90"],
    [100_000, "36000"],
  ])("asks for no other validity than Twilio knows, of %s seconds", async (usefulSeconds, validity) => {
    await sms().send(aMessage({ usefulSeconds }), never());
    expect(outbox.all()).toMatchObject([{ data: { validity_period: validity } }]);
  });

  it("says where to tell of it, with our reference, and can send from a messaging service", async () => {
    await sms({ publicUrl: "http://127.0.0.1:9/", from: SERVICE }).send(aMessage(), never());
    expect(outbox.all()).toMatchObject([{ reference: "812.customer.test" }]);
  });

  it.each([
    ...[20003, 20404, 21212, 21603, 21606, 30002, 30034, 11200].map((code) => [400, code, "misconfigured"]),
    ...[21211, 21408, 21602, 21604, 21608, 21610, 21612, 21614, 21617, 21635, 21910].map((code) => [400, code, "refused"]),
    ...[30003, 30004, 30005, 30006, 30007, 30008, 30036, 63016, 99999].map((code) => [400, code, "refused"]),
    ...[21611, 30001, 30022, 30023, 30410].map((code) => [400, code, "unavailable"]),
    ...[
      [401, 20003, "misconfigured"],
      [403, 99999, "misconfigured"],
      [404, 20404, "misconfigured"],
      [405, 20004, "misconfigured"],
    ],
    ...[
      [302, 99999, "misconfigured"],
      [408, 99999, "unavailable"],
      [429, 20429, "unavailable"],
      [429, 99999, "unavailable"],
    ],
    ...[
      [500, 20500, "unknown"],
      [500, 30500, "unknown"],
      [500, 99999, "unknown"],
      [503, 20503, "unavailable"],
      [503, 99999, "unavailable"],
    ],
  ] as [number, number, string][])("takes status %i with code %i for %s", async (fault, code, kind) => {
    await faults({ fault, code });
    const error = await refusal(sms().send(aMessage(), never()));
    expect(error).toMatchObject({ kind, code: String(code), optOut: code === 21610 ? "provider" : undefined });
    expect(error.detail).not.toBe("");
    expect(outbox.all()).toEqual([]);
  });

  it("goes by the status where the answer is a gateway's page", async () => {
    await faults({ fault: 502 });
    expect(await refusal(sms().send(aMessage(), never()))).toMatchObject({ kind: "unknown", code: "http_502" });
  });

  it.each([
    ["a newer kind of error", 400, { type: "about:blank", title: "Ada", status: 400, code: 21610 }, "refused", "21610"],
    ["an error without a code", 400, { message: "Ada" }, "refused", "http_400"],
    ["an error with words for a code", 500, { code: "Ada" }, "unknown", "http_500"],
    ["a message that has failed already", 201, { sid: "SM1", status: "failed", error_code: 30005 }, "refused", "30005"],
    ["a message that has failed for no reason", 201, { sid: "SM1", status: "failed", error_code: null }, "refused", "not_sent"],
    ["a message without a name", 201, { status: "queued" }, "unknown", "unreadable_answer"],
    ["nothing", 201, null, "unknown", "unreadable_answer"],
    ["another place", 307, { message: "Ada" }, "misconfigured", "http_307"],
    ["far too much", 201, { sid: "SM1", status: "queued", body: "x".repeat(2 * 1024 * 1024) }, "unknown", "connection_lost"],
  ])("reads %s", async (_, status, answer, kind, code) => {
    let asked = 0;
    const server = createHttpServer((request, response) => {
      asked++;
      request.resume();
      response.writeHead(status, { "content-type": "application/json", location: "/elsewhere" }).end(JSON.stringify(answer));
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const error = await refusal(sms({ baseUrl, timeoutMs: 5000 }).send(aMessage(), never()));
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    expect(error).toMatchObject({ kind, code });
    expect(asked).toBe(1);
  });

  it("tells how long Twilio wants us to wait", async () => {
    await faults({ fault: 429, retryAfter: "7" });
    expect(await refusal(sms().send(aMessage(), never()))).toMatchObject({ code: "20429", retryAfterMs: 7000 });
    // Of the call's own answer, not of another's.
    await faults({ fault: 429, retryAfter: "9" });
    await faults({ fault: 503 });
    const both = await Promise.all([1, 2].map(() => refusal(sms().send(aMessage(), never()))));
    expect(both.map(({ code, retryAfterMs }) => [code, retryAfterMs]).sort()).toEqual([
      ["20429", 9000],
      ["20503", undefined],
    ]);
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
    // A text of its own: what is slow may be taken when other tests run.
    text = `Secret text for Ada, ${fault}`;
    const ours = text;
    const started = performance.now();
    expect(await refusal(sms().send(aMessage(), never()))).toMatchObject({ kind: "unknown", code });
    expect(performance.now() - started).toBeLessThan(TIMEOUT_MS + 600);
    expect(outbox.all().filter((each) => each.text === ours)).toHaveLength(taken);
  });

  it("finds a message whose answer was lost, and no other", async () => {
    text = "Secret text for Ada, found";
    expect(await sms().find?.(aMessage(), aMomentAgo(), never())).toBeUndefined();
    await fail(sandbox.settings.baseUrl, "send", "lose");
    await refusal(sms().send(aMessage(), never()));
    const [{ id } = { id: "" }] = outbox.all();
    expect(await sms().find?.(aMessage(), aMomentAgo(), never())).toEqual({ providerMessageId: id });
    expect(await sms().find?.(aMessage(), new Date(Date.now() + 60_000), never())).toBeUndefined();
    expect(await sms().find?.(aMessage({ to: { phone: "+15550108888" } }), aMomentAgo(), never())).toBeUndefined();
    expect(await sms({ from: SERVICE }).find?.(aMessage(), aMomentAgo(), never())).toBeUndefined();
    text = "Secret text for Ada, another";
    expect(await sms().find?.(aMessage(), aMomentAgo(), never())).toBeUndefined();
    const { providerMessageId } = await sms({ from: SERVICE }).send(aMessage(), never());
    expect(await sms({ from: SERVICE }).find?.(aMessage(), aMomentAgo(), never())).toEqual({ providerMessageId });
    expect(await sms().find?.(aMessage(), aMomentAgo(), never())).toBeUndefined();
  });

  it.each(["timeout", "reset", "reset-mid-body", "malformed", 500, 503, 429] as const)("cannot ask after %s", async (fault) => {
    await faults({ operation: "find", fault });
    expect(await refusal(sms().find?.(aMessage(), aMomentAgo(), never()) ?? Promise.resolve())).toMatchObject({ kind: "unavailable" });
  });

  it("knows that nothing has left when there was no connection", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    for (const baseUrl of [`http://127.0.0.1:${port}`, "http://nobody.invalid"])
      expect(await refusal(sms({ baseUrl, timeoutMs: 5000 }).send(aMessage(), never()))).toMatchObject({ kind: "unavailable" });
  });

  it("says that a wrong token or sender is ours to mend", async () => {
    const error = await refusal(sms({ authToken: "wr0ng" }).send(aMessage(), never()));
    expect(error).toMatchObject({ kind: "misconfigured", code: "20003" });
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain("wr0ng");
    expect(await refusal(sms({ from: "+15550100002" }).send(aMessage(), never()))).toMatchObject({ kind: "misconfigured", code: "21606" });
  });

  it("ends with the signal's reason before anything has left, and does not know afterwards", async () => {
    const reason = new Error("enough");
    await expect(sms().send(aMessage(), AbortSignal.abort(reason))).rejects.toBe(reason);
    await fail(sandbox.settings.baseUrl, "send", "timeout");
    expect(await refusal(sms().send(aMessage(), AbortSignal.timeout(100)))).toMatchObject({ kind: "unknown", code: "stopped" });
  });

  it("reaches whoever has a phone that Twilio sends to", async () => {
    expect(sms().reaches({ phone: "+15550107777" })).toBe(true);
    expect(sms().reaches({ email: "ada@home.example" })).toBe(false);
    const to = (phone?: string) => refusal(sms().send(aMessage({ to: { phone } }), never()));
    expect(await to()).toMatchObject({ kind: "refused", code: "no_address" });
    expect(await to("+15550100000")).toMatchObject({ kind: "refused", code: "21211", optOut: undefined });
    expect(await to("+15550110001")).toMatchObject({ kind: "refused", code: "21610", optOut: "provider" });
  });
});
