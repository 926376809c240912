import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { create } from "@bufbuild/protobuf";
import {
  type Courier,
  type CourierDetails,
  CourierError,
  type CourierReport,
  type CourierStatus,
  type Delivery,
  WebhookRefused,
} from "../../src/couriers/courier.ts";
import { DeliveryProvider, MoneySchema } from "../../src/gen/ordertrail/events/v1/values_pb.js";

/** A delivery provider of the tests' own, over HTTP: what it is asked, and what it is made to answer. */
export type TestProvider = AsyncDisposable & {
  readonly url: string;
  /** Every delivery that it has made, by the key of its request. */
  readonly deliveries: Map<string, ProviderDelivery>;
  /** How often it was called, by call. */
  readonly calls: Record<string, number>;
  /** What the next calls of a kind meet; `times` of them, or all. */
  fail(call: "quote" | "create" | "get" | "cancel", how: Fault, times?: number): void;
  heal(): void;
  /** What it charges and how many minutes it takes. */
  terms: { fee: number; minutes: number };
  /** Moves a delivery, and gives the webhook that tells of it. */
  move(key: string, status: CourierStatus, more?: Partial<ProviderDelivery>): SignedWebhook;
};

/** `answer`: an error with this status and code. `hang`: no answer. `lose`: does it, and never answers. `reset`: cuts the connection. */
export type Fault = { readonly answer: number; readonly code: string } | "hang" | "lose" | "reset";

export type ProviderDelivery = {
  id: string;
  /** The order and the attempt, with a slash between. */
  key: string;
  status: CourierStatus | "gone_fishing";
  courier?: CourierDetails;
  point?: { latitude: number; longitude: number; recordedAt: string };
  endReason: string;
  tellsKey: boolean;
  /** When what a webhook tells happened. */
  at?: string;
};

export type SignedWebhook = { readonly body: string; readonly headers: Record<string, string> };

export const WEBHOOK_KEY = "the provider's own key";

/** Starts a provider; its connections are cut at the end of the `await using` block. */
export async function startProvider(name: string, port = 0): Promise<TestProvider> {
  const deliveries = new Map<string, ProviderDelivery>();
  const calls: Record<string, number> = {};
  const faults = new Map<string, { how: Fault; left: number }>();
  let reports = 0;
  const provider = { terms: { fee: 500, minutes: 30 } };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [, collection = "", id = "", action = ""] = (request.url ?? "").split("/");
    const call = collection === "quotes" ? "quote" : action === "cancel" ? "cancel" : request.method === "POST" ? "create" : "get";
    calls[call] = (calls[call] ?? 0) + 1;
    const body = await readJson(request);
    const fault = faults.get(call);
    const how = fault && fault.left-- > 0 ? fault.how : undefined;
    if (how === "hang") return;
    if (how === "reset") return void request.socket.destroy();
    if (typeof how === "object") return send(response, how.answer, { code: how.code });
    const found = call === "create" ? made(String(body["key"])) : [...deliveries.values()].find((delivery) => delivery.id === id);
    if (call === "quote") {
      const at = (minutes: number) => new Date(Date.now() + minutes * 60_000).toISOString();
      const { fee, minutes } = provider.terms;
      return send(response, 200, { id: `${name}-quote-${calls[call]}`, fee, dropoffAt: at(minutes), expiresAt: at(15) });
    }
    if (!found) return send(response, 404, { code: "delivery_not_found" });
    if (call === "cancel") {
      if (["PICKED_UP", "ON_THE_WAY", "DELIVERED"].includes(found.status)) return send(response, 400, { code: "noncancelable_delivery" });
      found.status = "CANCELLED";
      found.endReason = "cancelled";
    }
    if (how !== "lose") send(response, 200, found);
  }

  function made(key: string): ProviderDelivery {
    const known = deliveries.get(key);
    if (known) return known;
    const delivery: ProviderDelivery = { id: `${name}-${deliveries.size + 1}`, key, status: "REQUESTED", endReason: "", tellsKey: true };
    deliveries.set(key, delivery);
    return delivery;
  }

  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return Object.assign(provider, {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    deliveries,
    calls,
    fail: (call: string, how: Fault, times = Number.MAX_SAFE_INTEGER) => void faults.set(call, { how, left: times }),
    heal: () => faults.clear(),
    move(key: string, status: CourierStatus, more: Partial<ProviderDelivery> = {}): SignedWebhook {
      const delivery = Object.assign(made(key), { status }, more);
      return signed(JSON.stringify({ id: `report-${name}-${++reports}`, kind: "status", delivery }));
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  });
}

/** A webhook as the provider signs it. */
export function signed(body: string, key = WEBHOOK_KEY): SignedWebhook {
  return { body, headers: { "content-type": "application/json", "x-signature": createHmac("sha256", key).update(body).digest("hex") } };
}

/** The courier that speaks to such a provider. */
export function courierOf(provider: DeliveryProvider, url: string): Courier {
  async function call(method: string, path: string, signal: AbortSignal, body?: unknown): Promise<Record<string, unknown>> {
    let response: Response;
    try {
      response = await fetch(`${url}${path}`, { method, signal, ...(body !== undefined && { body: JSON.stringify(body) }) });
    } catch (error) {
      signal.throwIfAborted();
      throw new CourierError("unknown", "connection_lost", { cause: error });
    }
    const read = (await response.json()) as Record<string, unknown>;
    if (response.ok) return read;
    const kind = response.status === 401 ? "misconfigured" : response.status >= 500 ? "unavailable" : "refused";
    throw new CourierError(kind, String(read["code"]));
  }
  const money = (cents: number) => create(MoneySchema, { amountMinor: BigInt(cents), currency: "EUR" });
  function toDelivery(read: unknown): Delivery {
    const { id, status, courier, point, endReason } = read as ProviderDelivery;
    return {
      providerDeliveryId: id,
      status: status === "gone_fishing" ? undefined : status,
      providerStatus: status.toLowerCase(),
      fee: money(520),
      trackingUrl: `https://track.example/${id}`,
      courier,
      point: point && { ...point, recordedAt: new Date(point.recordedAt) },
      endReason,
      isEndedByUs: endReason === "cancelled_by_creator",
    };
  }
  return {
    provider,
    signsWebhooks: provider !== DeliveryProvider.DOORDASH,
    async quote({ orderId }, signal) {
      const { id, fee, dropoffAt, expiresAt } = await call("POST", "/quotes", signal, { orderId });
      const time = (text: unknown) => new Date(String(text));
      return { quoteId: String(id), fee: money(Number(fee)), dropoffAt: time(dropoffAt), expiresAt: time(expiresAt) };
    },
    async create({ orderId, attempt, pickup, dropoff }, quoteId, signal) {
      return toDelivery(await call("POST", "/deliveries", signal, { key: `${orderId}/${attempt}`, pickup, dropoff, quoteId }));
    },
    async get(id, signal) {
      return toDelivery(await call("GET", `/deliveries/${id}`, signal));
    },
    async cancel(id, signal) {
      await call("POST", `/deliveries/${id}/cancel`, signal, {});
    },
    metrics: () => [],
    readWebhook({ headers, body }): readonly CourierReport[] {
      const expected = createHmac("sha256", WEBHOOK_KEY).update(body).digest();
      const given = Buffer.from(headers.get("x-signature") ?? "", "hex");
      if (given.length !== expected.length || !timingSafeEqual(given, expected))
        throw new WebhookRefused("forged", "the signature is wrong");
      let read: { id: string; kind: string; delivery?: ProviderDelivery };
      try {
        read = JSON.parse(Buffer.from(body).toString());
      } catch {
        throw new WebhookRefused("malformed", "this is not JSON");
      }
      const { id: reportId, kind, delivery } = read;
      if (!delivery) return [];
      const [orderId = "", attempt = ""] = delivery.key.split("/");
      const told = delivery.tellsKey ? { orderId, attempt: Number(attempt) } : {};
      const happenedAt = delivery.at === undefined ? undefined : new Date(delivery.at);
      return [{ reportId, kind, providerDeliveryId: delivery.id, happenedAt, delivery: toDelivery(delivery), ...told }];
    },
  };
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

async function readJson(request: IncomingMessage): Promise<Record<string, unknown>> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  return text === "" ? {} : JSON.parse(text);
}
