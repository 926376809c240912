import { createHmac } from "node:crypto";
import { describe, expect, it } from "vitest";
import { type CourierReport, type CourierStatus, type Webhook, WebhookRefused } from "../../src/couriers/courier.ts";
import { STAGES, type Stage } from "../../src/sandbox/delivery-engine.ts";
import { doordashWebhook } from "../../src/sandbox/doordash-sandbox.ts";
import { uberWebhook } from "../../src/sandbox/uber-sandbox.ts";
import { REQUEST, startSandboxed } from "./sandboxed.ts";

const never = () => new AbortController().signal;

/** What each stage is to Ordertrail, by provider. */
const EXPECTED: Readonly<Record<"uber" | "doordash", Readonly<Record<Stage, CourierStatus>>>> = {
  uber: {
    ...{ created: "REQUESTED", assigned: "ASSIGNED", at_store: "ASSIGNED", picked_up: "PICKED_UP", on_the_way: "ON_THE_WAY" },
    ...{ arrived: "ON_THE_WAY", delivered: "DELIVERED", cancelled: "CANCELLED", returning: "ON_THE_WAY", returned: "RETURNED" },
  },
  doordash: {
    ...{ created: "REQUESTED", assigned: "ASSIGNED", at_store: "AT_STORE", picked_up: "PICKED_UP", on_the_way: "ON_THE_WAY" },
    ...{ arrived: "ARRIVED", delivered: "DELIVERED", cancelled: "CANCELLED", returning: "RETURNING", returned: "RETURNED" },
  },
};

function asWebhook(body: string, headers: Readonly<Record<string, string>>): Webhook {
  return { body: Buffer.from(body), headers: new Map(Object.entries(headers)) };
}

async function aDelivery(name: "uber" | "doordash") {
  const own = await startSandboxed();
  const created = await own[name].create(REQUEST, "", never());
  const delivery = own.sandbox[name].engine.findByKey("order-1.1");
  if (!delivery) throw new Error("the sandbox has no delivery");
  const accounts = { uber: { ...own.sandbox.uber.settings, tokenSeconds: 60 }, doordash: own.sandbox.doordash.settings };
  const webhookOf = (what: "stage" | "place") =>
    name === "uber" ? uberWebhook(accounts.uber, { delivery, what }) : doordashWebhook(accounts.doordash, { delivery, what });
  const read = (what: "stage" | "place"): readonly CourierReport[] => {
    const { body, headers } = webhookOf(what);
    return own[name].readWebhook(asWebhook(body, headers));
  };
  return {
    own,
    courier: own[name],
    created,
    delivery,
    engine: own.sandbox[name].engine,
    webhookOf,
    read,
    [Symbol.asyncDispose]: () => own[Symbol.asyncDispose](),
  };
}

describe.each(["uber", "doordash"] as const)("webhooks of %s", (name) => {
  it.each(STAGES)("tell of %s what a look tells", async (stage) => {
    await using made = await aDelivery(name);
    made.engine.advance(made.delivery, stage, stage === "cancelled" ? "failed_to_pickup" : "");
    const [report] = made.read("stage");
    expect(report).toMatchObject({ orderId: "order-1", attempt: 1, providerDeliveryId: made.created.providerDeliveryId });
    expect(report?.delivery?.status).toBe(EXPECTED[name][stage]);
    const looked = await made.courier.get(made.created.providerDeliveryId, never());
    expect(looked.status).toBe(EXPECTED[name][stage]);
    if (stage === "created" || stage === "cancelled") expect(report?.delivery?.courier).toBeUndefined();
    else expect(report?.delivery?.courier).toEqual(looked.courier);
    if (stage === "cancelled") expect(report?.delivery?.endReason).toBe("failed_to_pickup");
  });

  it("tell where the courier is, and when", async () => {
    await using made = await aDelivery(name);
    made.engine.advance(made.delivery, "on_the_way");
    const [report] = made.read("place");
    expect(report?.delivery?.point).toEqual({
      latitude: made.delivery.place?.latitude,
      longitude: made.delivery.place?.longitude,
      recordedAt: made.delivery.movedAt,
    });
  });

  it("are the same report when they come twice, and another when something else is told", async () => {
    await using made = await aDelivery(name);
    const { body, headers } = made.webhookOf("stage");
    const once = made.courier.readWebhook(asWebhook(body, headers));
    expect(made.courier.readWebhook(asWebhook(body, headers))[0]?.reportId).toBe(once[0]?.reportId);
    made.engine.advance(made.delivery, "assigned");
    expect(made.read("stage")[0]?.reportId).not.toBe(once[0]?.reportId);
  });

  it("are not believed when they are forged, altered or unsigned", async () => {
    await using made = await aDelivery(name);
    const { body, headers, forged } = made.webhookOf("stage");
    const tries: [string, Readonly<Record<string, string>>][] = [
      [body, forged],
      [body, {}],
      [body, Object.fromEntries(Object.keys(headers).map((header) => [header, ""]))],
      ...(name === "uber" ? [[body.replace("order-1", "order-2"), headers] as [string, Readonly<Record<string, string>>]] : []),
    ];
    for (const [text, given] of tries)
      expect(() => made.courier.readWebhook(asWebhook(text, given))).toThrow(expect.objectContaining({ kind: "forged" }));
  });

  it("are refused when they are genuine and make no sense, and left alone when they are of a kind that is not known", async () => {
    await using made = await aDelivery(name);
    const signed = (body: string) => {
      if (name === "doordash") return asWebhook(body, made.webhookOf("stage").headers);
      const { headers } = uberSigned(made.own.sandbox.uber.settings.webhookKey, body);
      return asWebhook(body, headers);
    };
    for (const body of ["", "{", "[]", "null", "{}"]) {
      expect(() => made.courier.readWebhook(signed(body)), body).toThrow(WebhookRefused);
      expect(() => made.courier.readWebhook(signed(body)), body).toThrow(expect.objectContaining({ kind: "malformed" }));
    }
    expect(
      made.courier.readWebhook(signed(JSON.stringify({ kind: "event.refund_request", event_name: "DELIVERY_BATCHED", id: "evt_1" }))),
    ).toEqual([]);
  });

  it("tell nothing of a status that is not known here, and fail for it neither", async () => {
    await using made = await aDelivery(name);
    const { body } = made.webhookOf("stage");
    const changed = body
      .replaceAll('"pending"', '"on_holiday"')
      .replace('"event_name":"DELIVERY_CREATED"', '"event_name":"DASHER_ON_HOLIDAY"');
    if (name === "doordash") expect(made.courier.readWebhook(asWebhook(changed, made.webhookOf("stage").headers))).toEqual([]);
    else {
      const [report] = made.courier.readWebhook(asWebhook(changed, uberSigned(made.own.sandbox.uber.settings.webhookKey, changed).headers));
      expect(report?.delivery).toMatchObject({ status: undefined, providerStatus: "on_holiday" });
    }
  });
});

function uberSigned(key: string, body: string): { headers: Record<string, string> } {
  return { headers: { "x-uber-signature": createHmac("sha256", key).update(body).digest("hex") } };
}
