import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Courier, CourierError } from "../../src/couriers/courier.ts";
import { createDoorDash } from "../../src/couriers/doordash.ts";
import { createUber } from "../../src/couriers/uber.ts";
import { advance, control, fail, REQUEST, startSandboxed, TIMEOUT_MS } from "./sandboxed.ts";

const never = () => new AbortController().signal;
let count = 0;
/** A request of an order that no other test has. */
const anOrder = () => ({ ...REQUEST, orderId: `order-${++count}` });

async function failure(call: Promise<unknown>): Promise<CourierError> {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof CourierError) return error;
  throw new Error(`it was not refused: ${error}`);
}

type Sandboxed = Awaited<ReturnType<typeof startSandboxed>>;
let sandboxed: Sandboxed;
beforeAll(async () => {
  sandboxed = await startSandboxed();
});
afterAll(() => sandboxed[Symbol.asyncDispose]());

describe.each(["uber", "doordash", "inHouse"] as const)("a courier, %s", (name) => {
  const courier = (): Courier => sandboxed[name];

  it("quotes, delivers what was asked for, and is the same when asked again", async () => {
    const request = anOrder();
    const quote = await courier().quote(request, never());
    expect(quote.fee.currency).toMatch(/^[A-Z]{3}$/);
    expect(quote.expiresAt.getTime()).toBeGreaterThan(Date.now());
    const created = await courier().create(request, quote.quoteId, never());
    expect(created).toMatchObject({ status: "REQUESTED", fee: quote.fee });
    const again = await courier().create(request, quote.quoteId, never());
    expect(again.providerDeliveryId).toBe(created.providerDeliveryId);
    expect((await courier().get(created.providerDeliveryId, never())).providerDeliveryId).toBe(created.providerDeliveryId);
    expect((await courier().create({ ...request, attempt: 2 }, "", never())).providerDeliveryId).not.toBe(created.providerDeliveryId);
  });

  it("calls a delivery off, and again without complaint", async () => {
    const { providerDeliveryId } = await courier().create(anOrder(), "", never());
    await courier().cancel(providerDeliveryId, never());
    await courier().cancel(providerDeliveryId, never());
  });

  it("knows no delivery that was never made", async () => {
    expect(await failure(courier().get("nothing", never()))).toMatchObject({ kind: "refused" });
  });

  it("ends with the signal's reason", async () => {
    const reason = new Error("enough");
    if (name === "inHouse") return;
    await expect(courier().quote(anOrder(), AbortSignal.abort(reason))).rejects.toBe(reason);
  });
});

describe.each(["uber", "doordash"] as const)("a provider, %s,", (name) => {
  /** A courier of its own, whose circuit no other test has opened. */
  function fresh(more: object = {}): { courier: Courier; url: string } {
    const { settings } = sandboxed.sandbox[name];
    const courier =
      name === "uber"
        ? createUber({ ...sandboxed.sandbox.uber.settings, timeoutMs: TIMEOUT_MS, ...more }, () => new Date())
        : createDoorDash({ ...sandboxed.sandbox.doordash.settings, timeoutMs: TIMEOUT_MS, ...more }, () => new Date());
    return { courier, url: settings.baseUrl };
  }

  it.each([500, 503, 429, "reset", "timeout", "malformed", "lose"] as const)(
    "that fails once (%s) is asked again, and makes one delivery",
    async (fault) => {
      const { courier, url } = fresh();
      const request = anOrder();
      await courier.quote(request, never());
      await fail(url, "create", fault);
      const created = await courier.create(request, "", never());
      const all = sandboxed.sandbox[name].engine.all().filter(({ key }) => key === `${request.orderId}.1`);
      expect(all).toHaveLength(1);
      expect(created.status).toBe("REQUESTED");
    },
  );

  it.each([
    [500, "unavailable"],
    [429, "unavailable"],
    ["reset", "unknown"],
    ["timeout", "unknown"],
    ["malformed", "unknown"],
  ] as const)("that goes on failing (%s) is %s, and is left alone after a while", async (fault, kind) => {
    const { courier, url } = fresh();
    await fail(url, "any", fault, 100);
    expect(await failure(courier.quote(anOrder(), never()))).toMatchObject({ kind });
    await failure(courier.quote(anOrder(), never()));
    expect(await failure(courier.quote(anOrder(), never()))).toMatchObject({ kind: "unavailable", code: "circuit_open" });
    await control(url, "DELETE", "faults");
  });

  it("that refuses is not asked again", async () => {
    const { courier, url } = fresh();
    await courier.quote(anOrder(), never());
    await fail(url, "create", 422, 1);
    expect(await failure(courier.create(anOrder(), "", never()))).toMatchObject({ kind: "refused" });
  });

  it("tells whose fault it is when credentials are wrong, and shows none of them", async () => {
    const { courier } = fresh({ clientSecret: "wr0ng", signingSecret: "d3JvbmcK" });
    const error = await failure(courier.quote(anOrder(), never()));
    expect(error).toMatchObject({ kind: "misconfigured" });
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toMatch(/wr0ng|d3JvbmcK|Bearer/);
  });

  it("adopts the delivery that exists under the name", async () => {
    const { courier } = fresh();
    const request = anOrder();
    const { providerDeliveryId } = await courier.create(request, "", never());
    const other = { ...request, items: [{ name: "Bread", quantity: 1 }] };
    expect((await courier.create(other, "", never())).providerDeliveryId).toBe(providerDeliveryId);
  });

  it("does not call off what has been picked up", async () => {
    const { courier, url } = fresh();
    const request = anOrder();
    const { providerDeliveryId } = await courier.create(request, "", never());
    await advance(url, `${request.orderId}.1`, "picked_up");
    expect(await failure(courier.cancel(providerDeliveryId, never()))).toMatchObject({ kind: "refused" });
  });

  it("is told of in metrics, which hold nothing of an order", async () => {
    const { courier, url } = fresh();
    const request = anOrder();
    await fail(url, "quote", 500, 1);
    await courier.quote(request, never());
    const metrics = courier.metrics();
    expect(metrics.find(({ operation }) => operation === "quote")).toMatchObject({
      calls: 2,
      failures: { [name === "uber" ? "internal_server_error" : "service_fault"]: 1 },
    });
    expect(JSON.stringify(metrics)).not.toContain(request.orderId);
  });
});

describe("Uber's token", () => {
  it("is asked for once by many calls at once, and anew when it has run out", async () => {
    let ahead = 0;
    await using own = await startSandboxed({ tokenSeconds: 120 }, () => new Date(Date.now() + ahead));
    await Promise.all(Array.from({ length: 10 }, () => own.uber.quote(anOrder(), never())));
    const tokens = () => own.uber.metrics().find(({ operation }) => operation === "token")?.calls;
    expect(tokens()).toBe(1);
    ahead = 61_000;
    await own.uber.quote(anOrder(), never());
    expect(tokens()).toBe(2);
  });

  it("is asked for anew, once, when it is not taken any more", async () => {
    await using own = await startSandboxed();
    await own.uber.quote(anOrder(), never());
    await fail(own.sandbox.uber.settings.baseUrl, "quote", 401, 1);
    await own.uber.quote(anOrder(), never());
    await fail(own.sandbox.uber.settings.baseUrl, "quote", 401, 2);
    expect(await failure(own.uber.quote(anOrder(), never()))).toMatchObject({ kind: "misconfigured", code: "unauthorized" });
  });
});
