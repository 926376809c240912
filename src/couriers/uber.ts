import { createHmac, timingSafeEqual } from "node:crypto";
import { DeliveryProvider } from "../gen/ordertrail/events/v1/values_pb.js";
import {
  type Courier,
  CourierError,
  type CourierReport,
  type CourierStatus,
  type Delivery,
  type DeliveryRequest,
  type Waypoint,
  type Webhook,
  WebhookRefused,
} from "./courier.ts";
import { type CourierAnswer, createCourierHttp } from "./courier-http.ts";
import { deliveryKey, parseDeliveryKey } from "./delivery-key.ts";
import { fieldsOf, type JsonFields } from "./json-fields.ts";
import { feeOf, linkOf, pointOf, wordsOf } from "./provider-values.ts";

/** An account with Uber Direct. */
export type UberSettings = {
  readonly baseUrl: string;
  readonly authUrl: string;
  readonly customerId: string;
  readonly clientId: string;
  readonly clientSecret: string;
  /** The key by which Uber signs webhooks. */
  readonly webhookKey: string;
  readonly timeoutMs: number;
};

/** What Uber calls a status. */
const STATUSES: ReadonlyMap<string, CourierStatus> = new Map([
  ["pending", "REQUESTED"],
  ["pickup", "ASSIGNED"],
  ["pickup_complete", "PICKED_UP"],
  ["dropoff", "ON_THE_WAY"],
  ["delivered", "DELIVERED"],
  ["canceled", "CANCELLED"],
  ["returned", "RETURNED"],
]);

/** Codes that may pass, though Uber answers some of them with 400. */
const PASSING: ReadonlySet<string> = new Set([
  "request_timeout",
  "customer_limited",
  "service_unavailable",
  "couriers_busy",
  "robo_couriers_busy",
  "internal_server_error",
  "unknown_error",
]);
const OURS_TO_MEND: ReadonlySet<string> = new Set([
  "unauthorized",
  "customer_suspended",
  "customer_blocked",
  "customer_not_found",
  "missing_payment",
]);

/** A token is renewed so long before it ends. */
const RENEW_BEFORE_MS = 60_000;
/** Asking for one may take as long as so many attempts. */
const TOKEN_ATTEMPTS = 4;
const DUPLICATE = "duplicate_delivery";

/** Uber Direct. `clock` tells when a token runs out. */
export function createUber(settings: UberSettings, clock: () => Date): Courier {
  const { baseUrl, authUrl, customerId, clientId, clientSecret, webhookKey, timeoutMs } = settings;
  const http = createCourierHttp({ timeoutMs, explain });
  const base = `${baseUrl}/v1/customers/${encodeURIComponent(customerId)}`;
  let token: { readonly value: string; readonly renewAt: number } | undefined;
  let asking: Promise<string> | undefined;

  /** One request for all that need a token at the same time: Uber gives only so many an hour. */
  async function tokenOf(signal: AbortSignal): Promise<string> {
    if (token && token.renewAt > clock().getTime()) return token.value;
    asking ??= askForToken().finally(() => {
      asking = undefined;
    });
    return await Promise.race([asking, rejectAt(signal)]);
  }

  async function askForToken(): Promise<string> {
    const body = new URLSearchParams({
      client_id: clientId,
      client_secret: clientSecret,
      grant_type: "client_credentials",
      scope: "eats.deliveries",
    });
    const limit = AbortSignal.timeout(TOKEN_ATTEMPTS * timeoutMs);
    const answer = await http.call({ operation: "token", method: "POST", url: authUrl, body }, limit).catch((error: unknown) => {
      throw limit.aborted ? new CourierError("unavailable", "timeout", { cause: error }) : error;
    });
    const fields = fieldsOf(answer.body);
    const value = fields.text("access_token");
    if (value === "") throw new CourierError("misconfigured", "no_access_token");
    token = { value, renewAt: clock().getTime() + (fields.number("expires_in") ?? 0) * 1000 - RENEW_BEFORE_MS };
    return value;
  }

  /** A call with the token; once more with a new one when this one is not taken any more. */
  async function call(operation: string, method: "GET" | "POST", path: string, signal: AbortSignal, body?: object): Promise<CourierAnswer> {
    for (let renewed = false; ; renewed = true) {
      const value = await tokenOf(signal);
      try {
        return await http.call({ operation, method, url: `${base}${path}`, headers: { authorization: `Bearer ${value}` }, body }, signal);
      } catch (error) {
        if (renewed || !(error instanceof CourierError && error.code === "unauthorized")) throw error;
        if (token?.value === value) token = undefined;
      }
    }
  }

  const get = async (id: string, signal: AbortSignal) =>
    toDelivery(fieldsOf((await call("get", "GET", `/deliveries/${encodeURIComponent(id)}`, signal)).body));

  const courier: Courier = {
    provider: DeliveryProvider.UBER,
    signsWebhooks: true,
    metrics: http.metrics,
    async quote(request, signal) {
      const { body } = await call("quote", "POST", "/delivery_quotes", signal, { ...placesOf(request), ...worthOf(request) });
      const fields = fieldsOf(body);
      const fee = feeOf(fields);
      const expiresAt = fields.time("expires");
      if (fields.text("id") === "" || !fee || !expiresAt) throw new CourierError("unknown", "unreadable_answer");
      const minutes = fields.number("pickup_duration");
      return {
        quoteId: fields.text("id"),
        fee,
        expiresAt,
        pickupAt: minutes === undefined ? undefined : new Date(clock().getTime() + minutes * 60_000),
        dropoffAt: fields.time("dropoff_eta"),
      };
    },
    async create(request, quoteId, signal) {
      try {
        const { body } = await call("create", "POST", "/deliveries", signal, creationOf(request, quoteId));
        return toDelivery(fieldsOf(body));
      } catch (error) {
        const existing = error instanceof DuplicateDelivery ? error.deliveryId : "";
        if (existing !== "") return await get(existing, signal);
        if (quoteId === "" || !(error instanceof CourierError && STALE_QUOTE.has(error.code))) throw error;
        return await courier.create(request, "", signal);
      }
    },
    get,
    async cancel(id, signal) {
      try {
        await call("cancel", "POST", `/deliveries/${encodeURIComponent(id)}/cancel`, signal, {});
      } catch (error) {
        // Uber refuses what is over in any way: called off already is what was wanted.
        if (!(error instanceof CourierError && error.code === "noncancelable_delivery")) throw error;
        if ((await get(id, signal)).status !== "CANCELLED") throw error;
      }
    },
    readWebhook: (webhook) => readWebhook(webhook, webhookKey),
  };
  return courier;
}

/** Codes that say that the quote does not hold any more. */
const STALE_QUOTE: ReadonlySet<string> = new Set(["expired_quote", "used_quote", "mismatched_price_quote"]);
/** Codes that say that it was the platform that called a delivery off. */
const BY_US: ReadonlySet<string> = new Set(["cancelled_by_creator", "customer_cancelled", "merchant_cancelled"]);

/** There is a delivery of this name already. */
class DuplicateDelivery extends CourierError {
  readonly deliveryId: string;
  constructor(deliveryId: string) {
    super("refused", DUPLICATE);
    this.deliveryId = deliveryId;
  }
}

function explain({ status, body, retryAfterMs }: CourierAnswer): CourierError {
  const fields = fieldsOf(body);
  const code = /^[a-z_]{1,64}$/.test(fields.text("code")) ? fields.text("code") : `http_${status}`;
  if (code === DUPLICATE) return new DuplicateDelivery(fields.inside("metadata").text("delivery_id"));
  if (status === 401) return new CourierError("misconfigured", "unauthorized");
  if (OURS_TO_MEND.has(code) || status === 402 || status === 403) return new CourierError("misconfigured", code);
  if (PASSING.has(code) || status === 408 || status === 429 || status >= 500)
    return new CourierError("unavailable", code, { retryAfterMs });
  return new CourierError("refused", code);
}

function addressOf({ address }: Waypoint): string {
  const { lines, city, region, postalCode, country } = address;
  return JSON.stringify({ street_address: lines, city, state: region, zip_code: postalCode, country });
}

function placesOf({ pickup, dropoff, storeId, readyAt }: DeliveryRequest): object {
  return {
    pickup_address: addressOf(pickup),
    dropoff_address: addressOf(dropoff),
    ...(pickup.latitude !== undefined && { pickup_latitude: pickup.latitude, pickup_longitude: pickup.longitude }),
    ...(dropoff.latitude !== undefined && { dropoff_latitude: dropoff.latitude, dropoff_longitude: dropoff.longitude }),
    ...(readyAt && { pickup_ready_dt: readyAt.toISOString() }),
    external_store_id: storeId,
  };
}

function worthOf({ value }: DeliveryRequest): object {
  return value ? { manifest_total_value: Number(value.amountMinor) } : {};
}

function creationOf(request: DeliveryRequest, quoteId: string): object {
  const { orderId, attempt, pickup, dropoff, items } = request;
  const key = deliveryKey(orderId, attempt);
  return {
    ...placesOf(request),
    ...worthOf(request),
    pickup_name: pickup.name,
    pickup_phone_number: pickup.phone,
    dropoff_name: dropoff.name,
    dropoff_phone_number: dropoff.phone,
    ...(pickup.instructions !== "" && { pickup_notes: pickup.instructions }),
    ...(dropoff.instructions !== "" && { dropoff_notes: dropoff.instructions }),
    manifest_items: items.map(({ name, quantity }) => ({ name, quantity: Math.max(1, Math.ceil(quantity)), size: "small" })),
    ...(quoteId !== "" && { quote_id: quoteId }),
    external_id: key,
    manifest_reference: key,
    idempotency_key: key,
    undeliverable_action: "return",
  };
}

function toDelivery(fields: JsonFields): Delivery {
  const providerDeliveryId = fields.text("id");
  if (providerDeliveryId === "") throw new CourierError("unknown", "unreadable_answer");
  const providerStatus = fields.text("status");
  const courier = fields.inside("courier");
  return {
    providerDeliveryId,
    status: STATUSES.get(providerStatus),
    providerStatus,
    fee: feeOf(fields),
    trackingUrl: linkOf(fields.text("tracking_url")),
    courier: courier.text("name") === "" ? undefined : courierOf(providerDeliveryId, courier),
    point: pointOf(courier.inside("location"), fields.time("updated")),
    pickupAt: fields.time("pickup_eta"),
    dropoffAt: fields.time("dropoff_eta"),
    endReason: fields.text("undeliverable_reason"),
    isEndedByUs: BY_US.has(fields.text("undeliverable_reason")),
  };
}

/** Uber names no courier by an identifier of its own: one is made of the delivery's. */
function courierOf(deliveryId: string, courier: JsonFields): Delivery["courier"] {
  return {
    driverId: `uber-${deliveryId.replaceAll(/[^A-Za-z0-9_-]/g, "-")}`.slice(0, 64),
    name: wordsOf(courier.text("name")),
    phone: wordsOf(courier.text("phone_number")),
    vehicleType: wordsOf(courier.text("vehicle_type")),
    photoUrl: linkOf(courier.text("img_href")),
  };
}

/** Header and algorithm: developer.uber.com, webhooks of Direct. */
function readWebhook({ headers, body }: Webhook, key: string): readonly CourierReport[] {
  const expected = createHmac("sha256", key).update(body).digest();
  const given = Buffer.from(headers.get("x-uber-signature") ?? "", "hex");
  if (given.length !== expected.length || !timingSafeEqual(given, expected))
    throw new WebhookRefused("forged", "the signature is wrong or missing");
  let event: JsonFields;
  try {
    event = fieldsOf(JSON.parse(Buffer.from(body).toString()));
  } catch {
    throw new WebhookRefused("malformed", "the body is no JSON");
  }
  const [kind, reportId, providerDeliveryId] = [event.text("kind"), event.text("id"), event.text("delivery_id")];
  if (kind === "") throw new WebhookRefused("malformed", "kind is missing");
  if (kind !== "event.delivery_status" && kind !== "event.courier_update") return [];
  if (reportId === "" || providerDeliveryId === "") throw new WebhookRefused("malformed", "id or delivery_id is missing");
  return [
    {
      reportId,
      kind,
      providerDeliveryId,
      happenedAt: event.time("created"),
      delivery: reportedDelivery(event),
      ...parseDeliveryKey(event.inside("data").text("external_id")),
    },
  ];
}

function reportedDelivery(event: JsonFields): Delivery {
  const data = event.inside("data");
  const at = event.time("created");
  const id = event.text("delivery_id");
  const providerStatus = event.text("status") || data.text("status");
  const told = data.has("id") ? toDelivery(data) : undefined;
  return {
    ...(told ?? {
      fee: undefined,
      trackingUrl: "",
      courier: undefined,
      pickupAt: undefined,
      dropoffAt: undefined,
      endReason: "",
      isEndedByUs: false,
    }),
    providerDeliveryId: id,
    providerStatus,
    status: STATUSES.get(providerStatus),
    point: pointOf(event.inside("location"), at) ?? pointOf(data.inside("courier").inside("location"), at),
  };
}

function rejectAt(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
