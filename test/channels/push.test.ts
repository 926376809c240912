import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createProviderCalls } from "../../src/channels/provider-calls.ts";
import { createPush } from "../../src/channels/push.ts";
import { toFcmMessage } from "../../src/channels/push-message.ts";
import { type FcmSandbox, startFcmSandbox } from "../../src/sandbox/fcm-sandbox.ts";
import { createOutbox } from "../../src/sandbox/outbox.ts";
import { control, fail } from "../couriers/sandboxed.ts";
import { aMessage, failure, never, TIMEOUT_MS } from "./messages.ts";

const outbox = createOutbox();
const rendered = { title: "On the way", body: "Secret text for Ada", data: { screen: "order" } };
let sandbox: FcmSandbox;
const made: AsyncDisposable[] = [];
function push(more: object = {}) {
  const channel = createPush(
    { ...sandbox.settings, timeoutMs: TIMEOUT_MS, ...more },
    { render: () => rendered, calls: createProviderCalls() },
  );
  made.push(channel);
  return channel;
}
const to = (...tokens: string[]) => aMessage({ to: { pushTokens: tokens.map((token) => ({ tokenId: `id-${token}`, token })) } });
const faults = (body: object) => control(sandbox.settings.baseUrl, "POST", "faults", { operation: "send", times: 1, ...body });

beforeAll(async () => {
  sandbox = await startFcmSandbox({ outbox });
});
afterAll(async () => {
  for (const channel of made) await channel[Symbol.asyncDispose]();
  await sandbox[Symbol.asyncDispose]();
});
beforeEach(async () => {
  outbox.clear();
  await control(sandbox.settings.baseUrl, "DELETE", "faults");
});

describe("push", () => {
  it("goes to all devices, and tells which of them exist no more", async () => {
    const accepted = await push().send(to("good-1", "dead-1", "good-2", "invalid-1"), never());
    expect(accepted.providerMessageId).toMatch(/^projects\/sandbox-project\/messages\//);
    expect(accepted.deadTokenIds).toEqual(["id-dead-1", "id-invalid-1"]);
    expect(
      outbox
        .all()
        .map((message) => message.to)
        .sort(),
    ).toEqual(["good-1", "good-2"]);
    expect(outbox.all()[0]).toMatchObject({ subject: "On the way", text: "Secret text for Ada", reference: "812.customer.test" });
    expect(outbox.all()[0]?.data).toEqual({ screen: "order", message_id: "812.customer.test", order_id: "order-1" });
  });

  it("goes to more devices than FCM takes at a time", async () => {
    const tokens = Array.from({ length: 501 }, (_, index) => `device-${index}`);
    await push({ timeoutMs: 20_000 }).send(to(...tokens), never());
    expect(outbox.all()).toHaveLength(501);
  });

  it("is refused when no device is left", async () => {
    expect(await failure(push().send(to("dead-1", "dead-2"), never()))).toMatchObject({
      ...{ kind: "refused", code: "registration-token-not-registered", deadTokenIds: ["id-dead-1", "id-dead-2"] },
    });
    expect(await failure(push().send(to(), never()))).toMatchObject({ kind: "refused", code: "no_address" });
  });

  it.each([
    [404, "UNREGISTERED", "refused", "registration-token-not-registered", true],
    [404, undefined, "refused", "registration-token-not-registered", false],
    [400, "INVALID_ARGUMENT", "refused", "invalid-argument", false],
    [403, "SENDER_ID_MISMATCH", "refused", "mismatched-credential", false],
    [403, undefined, "misconfigured", "mismatched-credential", false],
    [429, "QUOTA_EXCEEDED", "unavailable", "message-rate-exceeded", false],
    [429, undefined, "unavailable", "message-rate-exceeded", false],
    [503, "UNAVAILABLE", "unavailable", "server-unavailable", false],
    [500, "INTERNAL", "unavailable", "internal-error", false],
    [401, "THIRD_PARTY_AUTH_ERROR", "misconfigured", "third-party-auth-error", false],
    [401, undefined, "misconfigured", "third-party-auth-error", false],
    [502, undefined, "unavailable", "unknown-error", false],
  ] as const)("takes status %i with %s for %s, %s", async (fault, code, kind, named, isDead) => {
    await faults({ fault, code });
    const error = await failure(push().send(to("good-1"), never()));
    expect(error).toMatchObject({ kind, code: named });
    if (code !== undefined) expect(error.deadTokenIds).toEqual(isDead ? ["id-good-1"] : []);
    expect(outbox.all()).toEqual([]);
  });

  it("removes no token because of what is wrong with the message", async () => {
    const channel = createPush(
      { ...sandbox.settings, timeoutMs: TIMEOUT_MS },
      { render: () => ({ ...rendered, body: "x".repeat(5000) }), calls: createProviderCalls() },
    );
    made.push(channel);
    expect(await failure(channel.send(to("good-1"), never()))).toMatchObject({
      kind: "refused",
      code: "invalid-argument",
      deadTokenIds: [],
    });
  });

  it("tells how long FCM wants us to wait, and a minute when it does not say", async () => {
    await faults({ fault: 429, code: "QUOTA_EXCEEDED", retryAfter: "7" });
    expect(await failure(push().send(to("good-1"), never()))).toMatchObject({ retryAfterMs: 7000 });
    // The library would wait for that by itself, and try again.
    await faults({ fault: 503, code: "UNAVAILABLE", retryAfter: "30" });
    expect(await failure(push().send(to("good-1"), never()))).toMatchObject({ kind: "unavailable", retryAfterMs: 30_000 });
    await faults({ fault: 429, code: "QUOTA_EXCEEDED", retryAfter: "" });
    expect(await failure(push().send(to("good-1"), never()))).toMatchObject({ retryAfterMs: 60_000 });
  });

  it.each([
    ["timeout", "unknown", 0],
    ["slow", "unknown", 0],
    ["lose", "unknown", 1],
    ["reset", "unknown", 0],
    ["reset-mid-body", "unknown", 1],
    ["malformed", "unknown", 0],
  ] as const)("does not know what has become of it after %s, and asks once only", async (fault, kind, taken) => {
    const channel = push();
    await channel.send(to("dead-1", "warm"), never());
    outbox.clear();
    await fail(sandbox.settings.baseUrl, "send", fault);
    const started = performance.now();
    // A device of its own: what is slow may be taken when other tests run.
    expect(await failure(channel.send(to(`good-${fault}`), never()))).toMatchObject({ kind });
    expect(performance.now() - started).toBeLessThan(TIMEOUT_MS + 500);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(outbox.all().filter((message) => message.to === `good-${fault}`)).toHaveLength(taken);
  });

  it("is accepted when one device was reached in time", async () => {
    await fail(sandbox.settings.baseUrl, "send", "timeout");
    expect((await push().send(to("good-1", "good-2", "dead-1"), never())).providerMessageId).not.toBe("");
  });

  it("knows that nothing has left when there was no connection, or no access token", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    expect(await failure(push({ baseUrl: `http://127.0.0.1:${port}` }).send(to("good-1"), never()))).toMatchObject({ kind: "unavailable" });
    await fail(sandbox.settings.baseUrl, "token", "timeout");
    expect(await failure(push().send(to("good-1"), never()))).toMatchObject({ kind: "unavailable" });
  });

  it("says that a wrong service account is ours to mend", async () => {
    const serviceAccount = { ...sandbox.settings.serviceAccount, clientEmail: "somebody@else.example" };
    expect(await failure(push({ serviceAccount }).send(to("good-1"), never()))).toMatchObject({ kind: "misconfigured" });
  });

  it("ends with the signal's reason before anything has left", async () => {
    const reason = new Error("enough");
    await expect(push().send(to("good-1"), AbortSignal.abort(reason))).rejects.toBe(reason);
  });
});

describe("a message as FCM takes it", () => {
  it("replaces itself when it comes again, and is not delivered when it is of no use any more", () => {
    const message = toFcmMessage(aMessage(), rendered, new Date(1_760_000_000_000));
    expect(message).toMatchObject({
      android: { ttl: 600_000, notification: { tag: "812.customer.test" } },
      apns: { headers: { "apns-collapse-id": "812.customer.test", "apns-expiration": "1760000600" } },
      webpush: { headers: { TTL: "600" }, notification: { tag: "812.customer.test" } },
    });
    const long = toFcmMessage(aMessage({ messageId: "8".repeat(100) }), rendered, new Date());
    expect(long.apns?.headers?.["apns-collapse-id"]).toHaveLength(43);
  });
});
