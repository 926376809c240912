import { createHash, createHmac, timingSafeEqual } from "node:crypto";
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

/** An account with DoorDash Drive. */
export type DoorDashSettings = {
  readonly baseUrl: string;
  readonly developerId: string;
  readonly keyId: string;
  /** As the portal shows it, in base64. */
  readonly signingSecret: string;
  /** The Authorization header that the portal is told to send with webhooks. */
  readonly webhookAuthorization: string;
  readonly timeoutMs: number;
};

/** What DoorDash calls a status. */
const STATUSES: ReadonlyMap<string, CourierStatus> = new Map([
  ["quote", "REQUESTED"],
  ["created", "REQUESTED"],
  ["confirmed", "ASSIGNED"],
  ["enroute_to_pickup", "ASSIGNED"],
  ["arrived_at_pickup", "AT_STORE"],
  ["picked_up", "PICKED_UP"],
  ["enroute_to_dropoff", "ON_THE_WAY"],
  ["arrived_at_dropoff", "ARRIVED"],
  ["delivered", "DELIVERED"],
  ["cancelled", "CANCELLED"],
  ["enroute_to_return", "RETURNING"],
  ["arrived_at_return", "RETURNING"],
  ["returned", "RETURNED"],
]);

/** What a webhook tells of the status, which it does not itself hold. */
const EVENTS: ReadonlyMap<string, CourierStatus> = new Map([
  ["delivery_created", "REQUESTED"],
  ["dasher_confirmed", "ASSIGNED"],
  ["dasher_enroute_to_pickup", "ASSIGNED"],
  ["dasher_confirmed_pickup_arrival", "AT_STORE"],
  ["dasher_picked_up", "PICKED_UP"],
  ["dasher_enroute_to_dropoff", "ON_THE_WAY"],
  ["dasher_confirmed_dropoff_arrival", "ARRIVED"],
  ["dasher_dropped_off", "DELIVERED"],
  ["delivery_cancelled", "CANCELLED"],
  ["delivery_return_initialized", "RETURNING"],
  ["dasher_enroute_to_return", "RETURNING"],
  ["dasher_confirmed_return_arrival", "RETURNING"],
  ["delivery_returned", "RETURNED"],
]);

const TOKEN_SECONDS = 300;
const TOKEN_RENEW_MS = 240_000;
/** A quote can be accepted for five minutes. */
const QUOTE_MS = 300_000;
const DUPLICATE = "duplicate_delivery_id";
const OURS_TO_MEND: ReadonlySet<string> = new Set(["authentication_error", "authorization_error"]);

/** DoorDash Drive. `clock` dates the tokens that it is shown. */
export function createDoorDash(settings: DoorDashSettings, clock: () => Date): Courier {
  const { baseUrl, developerId, keyId, signingSecret, webhookAuthorization, timeoutMs } = settings;
  const http = createCourierHttp({ timeoutMs, explain });
  let token: { readonly value: string; readonly madeAt: number } | undefined;

  /** A JWT of DoorDash's own kind (DD-JWT-V1): the key's name stands among the claims. */
  function tokenNow(): string {
    const now = clock().getTime();
    if (token && now >= token.madeAt && now < token.madeAt + TOKEN_RENEW_MS) return token.value;
    const iat = Math.floor(now / 1000);
    const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString("base64url");
    const signed = `${encode({ alg: "HS256", typ: "JWT", "dd-ver": "DD-JWT-V1" })}.${encode({
      ...{ aud: "doordash", iss: developerId, kid: keyId, iat, exp: iat + TOKEN_SECONDS },
    })}`;
    const signature = createHmac("sha256", Buffer.from(signingSecret, "base64")).update(signed).digest("base64url");
    token = { value: `${signed}.${signature}`, madeAt: now };
    return token.value;
  }

  async function call(
    operation: string,
    method: "GET" | "POST" | "PUT",
    path: string,
    signal: AbortSignal,
    body?: object,
  ): Promise<JsonFields> {
    const headers = { authorization: `Bearer ${tokenNow()}` };
    return fieldsOf((await http.call({ operation, method, url: `${baseUrl}/drive/v2${path}`, headers, body }, signal)).body);
  }

  const pathOf = (id: string) => `/deliveries/${encodeURIComponent(id)}`;
  const get = async (id: string, signal: AbortSignal) => toDelivery(await call("get", "GET", pathOf(id), signal), undefined);

  return {
    provider: DeliveryProvider.DOORDASH,
    signsWebhooks: false,
    metrics: http.metrics,
    async quote(request, signal) {
      const fields = await call("quote", "POST", "/quotes", signal, creationOf(request));
      const fee = feeOf(fields);
      if (fields.text("external_delivery_id") === "" || !fee) throw new CourierError("unknown", "unreadable_answer");
      return {
        quoteId: fields.text("external_delivery_id"),
        fee,
        pickupAt: fields.time("pickup_time_estimated"),
        dropoffAt: fields.time("dropoff_time_estimated"),
        expiresAt: new Date(clock().getTime() + QUOTE_MS),
      };
    },
    async create(request, quoteId, signal) {
      const id = deliveryKey(request.orderId, request.attempt);
      try {
        // A quote stands for the delivery of its own name, and only while it is fresh.
        if (quoteId === id) {
          try {
            return toDelivery(await call("accept", "POST", `/quotes/${encodeURIComponent(quoteId)}/accept`, signal, {}), undefined);
          } catch (error) {
            if (!(error instanceof CourierError && error.kind === "refused") || error.code === DUPLICATE) throw error;
          }
        }
        return toDelivery(await call("create", "POST", "/deliveries", signal, creationOf(request)), undefined);
      } catch (error) {
        if (!(error instanceof CourierError && error.code === DUPLICATE)) throw error;
        return await get(id, signal);
      }
    },
    get,
    async cancel(id, signal) {
      try {
        await call("cancel", "PUT", `${pathOf(id)}/cancel`, signal, {});
      } catch (error) {
        if (!(error instanceof CourierError && (error.code === "delivery_cancelled" || error.code === "cancel_not_allowed"))) throw error;
        if ((await get(id, signal)).status !== "CANCELLED") throw error;
      }
    },
    readWebhook: (webhook) => readWebhook(webhook, webhookAuthorization),
  };
}

function explain({ status, body, retryAfterMs }: CourierAnswer): CourierError {
  const fields = fieldsOf(body);
  const word = (text: string) => (/^[a-z_]{1,64}$/.test(text) ? text : "");
  // The reason is the finer word, where there is one.
  const code = word(fields.text("reason")) || word(fields.text("code")) || `http_${status}`;
  if (OURS_TO_MEND.has(fields.text("code")) || status === 401 || status === 403) return new CourierError("misconfigured", code);
  // No header tells how long to wait: DoorDash asks for a second at least.
  if (status === 429) return new CourierError("unavailable", code, { retryAfterMs: retryAfterMs ?? 1000 });
  if (status >= 500 || fields.text("code") === "service_fault") return new CourierError("unavailable", code, { retryAfterMs });
  return new CourierError("refused", fields.text("code") === DUPLICATE ? DUPLICATE : code);
}

function addressOf({ address }: Waypoint): string {
  const { lines, city, region, postalCode, country } = address;
  return [...lines, city, [region, postalCode].filter((part) => part !== "").join(" "), country].filter((part) => part !== "").join(", ");
}

function creationOf({ orderId, attempt, pickup, dropoff, items, value, readyAt }: DeliveryRequest): object {
  return {
    external_delivery_id: deliveryKey(orderId, attempt),
    pickup_address: addressOf(pickup),
    pickup_business_name: pickup.name,
    pickup_phone_number: pickup.phone,
    ...(pickup.instructions !== "" && { pickup_instructions: pickup.instructions }),
    dropoff_address: addressOf(dropoff),
    dropoff_contact_given_name: dropoff.name,
    dropoff_phone_number: dropoff.phone,
    ...(dropoff.instructions !== "" && { dropoff_instructions: dropoff.instructions }),
    ...(value && { order_value: Number(value.amountMinor), currency: value.currency }),
    ...(readyAt && { pickup_time: readyAt.toISOString() }),
    items: items.map(({ name, quantity }) => ({ name, quantity: Math.max(1, Math.ceil(quantity)) })),
  };
}

/** DoorDash knows a delivery by the name that it was given. */
function toDelivery(fields: JsonFields, told: CourierStatus | undefined): Delivery {
  const providerDeliveryId = fields.text("external_delivery_id");
  if (providerDeliveryId === "") throw new CourierError("unknown", "unreadable_answer");
  const providerStatus = fields.text("delivery_status");
  return {
    providerDeliveryId,
    status: told ?? STATUSES.get(providerStatus),
    providerStatus,
    fee: feeOf(fields),
    trackingUrl: linkOf(fields.text("tracking_url")),
    courier: courierOf(providerDeliveryId, fields),
    point: pointOf(fields.inside("dasher_location"), fields.time("updated_at") ?? fields.time("created_at")),
    pickupAt: fields.time("pickup_time_estimated"),
    dropoffAt: fields.time("dropoff_time_estimated"),
    endReason: fields.text("cancellation_reason"),
    isEndedByUs: fields.text("cancellation_reason") === "cancelled_by_creator",
  };
}

function courierOf(deliveryId: string, fields: JsonFields): Delivery["courier"] {
  const name = wordsOf(fields.text("dasher_name"));
  if (name === "") return undefined;
  const id = fields.number("dasher_id") ?? fields.text("dasher_id");
  return {
    driverId: `doordash-${id === "" ? deliveryId.replaceAll(/[^A-Za-z0-9_-]/g, "-") : id}`.slice(0, 64),
    name,
    phone: wordsOf(fields.text("dasher_phone_number") || fields.text("dasher_dropoff_phone_number")),
    vehicleType: wordsOf(fields.text("dasher_vehicle_type") || fields.text("dasher_vehicle_make")),
    photoUrl: "",
  };
}

/** Nothing signs the body; the header is a shared secret. Compared by digests, so that its length is not told either. */
function readWebhook({ headers, body }: Webhook, authorization: string): readonly CourierReport[] {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  if (!timingSafeEqual(digest(headers.get("authorization") ?? ""), digest(authorization)))
    throw new WebhookRefused("forged", "the authorization is wrong or missing");
  let event: JsonFields;
  try {
    event = fieldsOf(JSON.parse(Buffer.from(body).toString()));
  } catch {
    throw new WebhookRefused("malformed", "the body is no JSON");
  }
  const kind = event.text("event_name");
  if (kind === "") throw new WebhookRefused("malformed", "event_name is missing");
  // DoorDash writes its names in capitals and in small letters.
  const told = EVENTS.get(kind.toLowerCase());
  if (!told) return [];
  const providerDeliveryId = event.text("external_delivery_id");
  if (providerDeliveryId === "") throw new WebhookRefused("malformed", "external_delivery_id is missing");
  // Its events have no identifier: the delivery, the event and its own time make one.
  const at = event.text("updated_at") || event.text("created_at");
  const delivery = toDelivery(event, told);
  const place = delivery.point ? `${delivery.point.latitude},${delivery.point.longitude}` : "";
  const reportId = `${providerDeliveryId}/${kind.toLowerCase()}/${at}${at === "" ? createHash("sha256").update(body).digest("hex") : ""}/${place}`;
  const happenedAt = event.time("updated_at") ?? event.time("created_at");
  return [{ reportId, kind, providerDeliveryId, happenedAt, delivery, ...parseDeliveryKey(providerDeliveryId) }];
}
