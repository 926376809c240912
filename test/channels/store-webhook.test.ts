import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createProviderCalls } from "../../src/channels/provider-calls.ts";
import { isPublic, lookupPublic } from "../../src/channels/public-addresses.ts";
import { createStoreWebhook } from "../../src/channels/store-webhook.ts";
import { aMessage, failure, never, TIMEOUT_MS } from "./messages.ts";

const KEY = Buffer.from("a key of thirty-two bytes, or so");
const SECRET = `whsec_${KEY.toString("base64")}`;
type Call = { readonly headers: IncomingMessage["headers"]; readonly body: string };
const taken: Call[] = [];
let respond: (response: ServerResponse) => void = (response) => response.end();
const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    taken.push({ headers: request.headers, body: Buffer.concat(chunks).toString() });
    respond(response);
  });
});
let port = 0;
beforeAll(async () => {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  port = (server.address() as AddressInfo).port;
});
afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

const clock = () => new Date(1_760_000_000_500);
const webhooks = (allowPrivate = true) =>
  createStoreWebhook({ timeoutMs: TIMEOUT_MS, allowPrivate }, { render: () => "Secret text", calls: createProviderCalls(), clock });
const to = (url: string, secret = SECRET) => aMessage({ template: "store-new-order", to: { webhook: { url, secret } } });
const here = () => to(`http://127.0.0.1:${port}/hook?store=1`);
const status = (code: number, headers: Record<string, string> = {}) => {
  respond = (response) => void response.writeHead(code, headers).end();
};

describe("a store's webhook", () => {
  it("is told what has happened, under a signature that others can check", async () => {
    status(204);
    taken.length = 0;
    expect(await webhooks().send(here(), never())).toEqual({ providerMessageId: "" });
    await webhooks().send(here(), never());
    const [call, again] = taken;
    const { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature } = call?.headers ?? {};
    expect([id, timestamp]).toEqual(["812.customer.test", "1760000000"]);
    expect(signature).toBe(`v1,${createHmac("sha256", KEY).update(`812.customer.test.1760000000.${call?.body}`).digest("base64")}`);
    expect(again?.headers["webhook-id"]).toBe(id);
    expect(JSON.parse(call?.body ?? "")).toMatchObject({
      ...{ message_id: id, type: "store-new-order", order_id: "order-1", status: "IN_TRANSIT", text: "Secret text" },
      items: [{ name: "Milk", quantity: "2" }],
    });
    expect(call?.body).not.toContain("Ada");
  });

  it.each([
    ...[400, 401, 404, 422].map((code) => [code, "refused", undefined] as const),
    [410, "refused", "provider"],
    ...[408, 425, 429, 500, 502, 503, 504].map((code) => [code, "unavailable", undefined] as const),
    ...[301, 302, 307].map((code) => [code, "refused", undefined] as const),
  ] as const)("that answers %i is %s", async (code, kind, optOut) => {
    status(code, { "retry-after": "9", location: `http://127.0.0.1:${port}/elsewhere` });
    taken.length = 0;
    const error = await failure(webhooks().send(here(), never()));
    expect(error).toMatchObject({ kind, optOut, code: `http_${code}`, retryAfterMs: kind === "unavailable" ? 9000 : undefined });
    expect(taken).toHaveLength(1);
  });

  it("may be called again when it is silent, cuts us off or is not there", async () => {
    respond = () => undefined;
    expect(await failure(webhooks().send(here(), never()))).toMatchObject({ kind: "unavailable", code: "timeout" });
    respond = (response) => response.destroy();
    expect(await failure(webhooks().send(here(), never()))).toMatchObject({ kind: "unavailable", code: "no_connection" });
    expect(await failure(webhooks().send(to("http://nobody.invalid/"), never()))).toMatchObject({ kind: "unavailable" });
  });

  it("has taken it once its head says so, whatever follows", async () => {
    respond = (response) => {
      response.writeHead(200, { "content-length": "1000000000" });
      response.write("x".repeat(100_000));
    };
    await webhooks().send(here(), never());
  });

  it.each([
    "https://127.0.0.1/",
    "https://localhost/",
    "https://2130706433/",
    "https://0x7f.1/",
    "https://10.1.2.3/",
    "https://172.31.0.1/",
    "https://192.168.0.1/",
    "https://169.254.169.254/latest/meta-data",
    "https://100.64.0.1/",
    "https://224.0.0.1/",
    "https://0.0.0.0/",
    "https://255.255.255.255/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:a01:203]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[fe80::1]/",
    "https://[fc00::1]/",
    "https://[ff02::1]/",
  ])("is not called at %s", async (url) => {
    expect(await failure(webhooks(false).send(to(url), never()))).toMatchObject({ kind: "refused", code: "address_not_public" });
  });

  it("is called by https only, at an address of the web, with a secret that is one", async () => {
    expect(await failure(webhooks(false).send(to("http://store.example/"), never()))).toMatchObject({ kind: "refused", code: "not_https" });
    for (const url of ["ftp://store.example/", "store", "https://user:word@store.example/"])
      expect(await failure(webhooks().send(to(url), never()))).toMatchObject({ kind: "refused", code: "bad_address" });
    for (const secret of ["", "whsec_", "plain", "whsec_???"])
      expect(await failure(webhooks().send(to("http://store.example/", secret), never()))).toMatchObject({
        kind: "refused",
        code: "bad_secret",
      });
  });

  it("ends with the signal's reason before anything has left", async () => {
    const reason = new Error("enough");
    await expect(webhooks().send(here(), AbortSignal.abort(reason))).rejects.toBe(reason);
  });
});

describe("addresses", () => {
  it("are public where they are somebody's on the internet", () => {
    for (const address of ["8.8.8.8", "93.184.216.34", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::1"])
      expect(isPublic(address)).toBe(true);
    for (const address of ["", "name", "::ffff:8.8.8.8", "2001:db8::1", "2001::1", "fe80::1%eth0", "198.18.0.1"])
      expect(isPublic(address)).toBe(false);
  });

  it("are not given for a name that stands for one that is not", async () => {
    for (const all of [true, false]) {
      const error = await new Promise((resolve) => lookupPublic("localhost", { all }, resolve));
      expect(error).toMatchObject({ name: "AddressNotPublic" });
    }
  });
});
