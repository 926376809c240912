import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, it } from "vitest";
import { advance, control, REQUEST, startSandboxed } from "../couriers/sandboxed.ts";
import { eventually } from "../support/eventually.ts";

const never = () => new AbortController().signal;

/** Takes webhooks, and remembers what they said. */
async function aTaker(answer: (count: number) => number = () => 200) {
  const taken: string[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      taken.push(`${request.url} ${Buffer.concat(chunks)}`);
      response.writeHead(answer(taken.length)).end();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    taken,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const statuses = (taken: readonly string[]) => taken.map((text) => /"status":"([a-z_]+)"/.exec(text)?.[1]);

describe("the sandbox", () => {
  it("moves couriers by itself, to the end, and tells of it all in order", async () => {
    await using taker = await aTaker();
    await using own = await startSandboxed({ stageMs: 60, webhooksTo: () => taker.url });
    await own.doordash.create(REQUEST, "", never());
    await eventually(() => expect(taker.taken.some((text) => text.includes("DASHER_DROPPED_OFF"))).toBe(true));
    const events = taker.taken.map((text) => /"event_name":"(\w+)"/.exec(text)?.[1]);
    const stages = events.filter((event) => event && event === event.toUpperCase());
    expect(stages).toEqual([
      "DASHER_CONFIRMED",
      "DASHER_CONFIRMED_PICKUP_ARRIVAL",
      "DASHER_PICKED_UP",
      "DASHER_CONFIRMED_DROPOFF_ARRIVAL",
      "DASHER_DROPPED_OFF",
    ]);
    expect(events.filter((event) => event === "dasher_enroute_to_dropoff").length).toBeGreaterThan(1);
    expect(taker.taken.every((text) => text.startsWith("/webhooks/doordash "))).toBe(true);
  });

  it("sends again what is not taken, and doubles, holds back, drops and forges what it is told to", async () => {
    await using taker = await aTaker((count) => (count === 1 ? 503 : 200));
    await using own = await startSandboxed({ webhooksTo: () => taker.url });
    const { baseUrl } = own.sandbox.uber.settings;
    await own.uber.create(REQUEST, "", never());
    await advance(baseUrl, "order-1.1", "assigned");
    await eventually(() => expect(statuses(taker.taken)).toEqual(["pickup", "pickup"]));
    for (const fault of ["duplicate", "reorder", "drop", "forge"]) {
      await control(baseUrl, "POST", "webhook-faults", { fault });
    }
    await control(baseUrl, "POST", "deliveries/order-1.1/advance", { to: "at_store" });
    await control(baseUrl, "POST", "deliveries/order-1.1/advance", { to: "picked_up" });
    await control(baseUrl, "POST", "deliveries/order-1.1/advance", { to: "on_the_way" });
    await control(baseUrl, "POST", "deliveries/order-1.1/advance", { to: "delivered" });
    // at_store twice; picked_up held back until on_the_way is dropped; arrived forged; delivered as usual.
    await eventually(() => expect(statuses(taker.taken).slice(2)).toEqual(["pickup", "pickup", "pickup_complete", "dropoff", "delivered"]));
  });

  it.each([
    ["no token", {}],
    ["another's token", { authorization: "Bearer somebody.elses.token" }],
  ])("lets nobody in with %s", async (_what, headers) => {
    await using own = await startSandboxed();
    const { settings: uber } = own.sandbox.uber;
    const { settings: doordash } = own.sandbox.doordash;
    const post = (url: string) => fetch(url, { method: "POST", headers: { ...headers }, body: "{}" });
    expect((await post(`${uber.baseUrl}/v1/customers/${uber.customerId}/deliveries`)).status).toBe(401);
    expect((await post(`${doordash.baseUrl}/drive/v2/deliveries`)).status).toBe(401);
  });

  it("tells what a request lacks, in the provider's own way", async () => {
    await using own = await startSandboxed();
    const nameless = { ...REQUEST, dropoff: { ...REQUEST.dropoff, phone: "" } };
    await expect(own.uber.create(nameless, "", never())).rejects.toMatchObject({ kind: "refused", code: "invalid_params" });
    await expect(own.doordash.create(nameless, "", never())).rejects.toMatchObject({ kind: "refused", code: "validation_error" });
  });
});
