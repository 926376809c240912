import { createHmac, timingSafeEqual } from "node:crypto";
import type { DeliveryEngine, News, SandboxDelivery, Stage } from "./delivery-engine.ts";
import type { Answered, Asked, SandboxApi } from "./sandbox-server.ts";
import type { OutgoingWebhook } from "./webhook-sender.ts";

/** Who may use the sandbox, and what it shows with webhooks. */
export type DoorDashAccount = {
  readonly developerId: string;
  readonly keyId: string;
  /** In base64. */
  readonly signingSecret: string;
  readonly webhookAuthorization: string;
};

/** DoorDash's words for the stages. */
const STATUSES: Readonly<Record<Stage, string>> = {
  created: "created",
  assigned: "confirmed",
  at_store: "arrived_at_pickup",
  picked_up: "picked_up",
  on_the_way: "enroute_to_dropoff",
  arrived: "arrived_at_dropoff",
  delivered: "delivered",
  cancelled: "cancelled",
  returning: "enroute_to_return",
  returned: "returned",
};

/** The webhook of each stage; DoorDash writes some of them in small letters. */
const EVENTS: Readonly<Record<Stage, string>> = {
  created: "DELIVERY_CREATED",
  assigned: "DASHER_CONFIRMED",
  at_store: "DASHER_CONFIRMED_PICKUP_ARRIVAL",
  picked_up: "DASHER_PICKED_UP",
  on_the_way: "dasher_enroute_to_dropoff",
  arrived: "DASHER_CONFIRMED_DROPOFF_ARRIVAL",
  delivered: "DASHER_DROPPED_OFF",
  cancelled: "DELIVERY_CANCELLED",
  returning: "DELIVERY_RETURN_INITIALIZED",
  returned: "DELIVERY_RETURNED",
};

const MOVING: Readonly<Partial<Record<Stage, string>>> = {
  assigned: "dasher_enroute_to_pickup",
  on_the_way: "dasher_enroute_to_dropoff",
  returning: "dasher_enroute_to_return",
};

const MAX_TOKEN_SECONDS = 1800;
const CANCELLABLE: readonly Stage[] = ["created", "assigned", "at_store"];
const REASON_AFTER: Readonly<Partial<Record<Stage, string>>> = { delivered: "delivery_completed", cancelled: "delivery_cancelled" };

/** DoorDash Drive's API, as far as Ordertrail uses it. */
export function createDoorDashSandbox(account: DoorDashAccount, engine: DeliveryEngine): SandboxApi {
  const quotes = new Map<string, Readonly<Record<string, unknown>>>();

  /** The JWT that DoorDash wants: its own version in the header, the key's name among the claims, half an hour at most. */
  function isAuthorized({ authorization }: Asked): boolean {
    const [, header = "", payload = "", signature = ""] = /^Bearer ([\w-]+)\.([\w-]+)\.([\w-]+)$/.exec(authorization) ?? [];
    const expected = createHmac("sha256", Buffer.from(account.signingSecret, "base64")).update(`${header}.${payload}`).digest();
    const given = Buffer.from(signature, "base64url");
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return false;
    const read = (part: string) => JSON.parse(Buffer.from(part, "base64url").toString()) as Record<string, unknown>;
    const { alg, "dd-ver": version } = read(header);
    const { aud, iss, kid, iat, exp } = read(payload);
    const now = Date.now() / 1000;
    const lasts = Number(exp) - Number(iat);
    const names = alg === "HS256" && version === "DD-JWT-V1" && aud === "doordash" && iss === account.developerId && kid === account.keyId;
    return names && Number(iat) <= now + 5 && Number(exp) > now && lasts > 0 && lasts <= MAX_TOKEN_SECONDS;
  }

  function create(body: Readonly<Record<string, unknown>>): Answered {
    const key = String(body["external_delivery_id"]);
    const existing = engine.findByKey(key);
    if (existing && JSON.stringify(existing.request) !== JSON.stringify(body)) {
      return { status: 409, body: { code: "duplicate_delivery_id", message: "This is the sandbox.", external_delivery_id: key } };
    }
    return { status: 200, body: deliveryBody(engine.create(key, body, "USD").delivery) };
  }

  function quote(body: Readonly<Record<string, unknown>>): Answered {
    const key = String(body["external_delivery_id"]);
    if (engine.findByKey(key)) return error(409, "duplicate_delivery_id");
    quotes.set(key, body);
    const { feeMinor, minutes } = engine.quote();
    const at = (share: number) => new Date(Date.now() + minutes * share * 60_000);
    return {
      status: 200,
      body: {
        ...{ external_delivery_id: key, delivery_status: "quote", fee: feeMinor, currency: "USD" },
        ...{ pickup_time_estimated: at(0.5), dropoff_time_estimated: at(1) },
      },
    };
  }

  function cancel(delivery: SandboxDelivery): Answered {
    if (!CANCELLABLE.includes(delivery.stage))
      return error(409, "cancel_not_allowed", REASON_AFTER[delivery.stage] ?? "delivery_picked_up");
    engine.advance(delivery, "cancelled", "cancelled_by_creator");
    return { status: 200, body: deliveryBody(delivery) };
  }

  return {
    operationOf({ method, path }) {
      if (path === "/drive/v2/quotes") return "quote";
      if (path.endsWith("/accept")) return "accept";
      if (path.endsWith("/cancel")) return "cancel";
      if (path === "/drive/v2/deliveries" && method === "POST") return "create";
      return path.startsWith("/drive/v2/deliveries/") ? "get" : undefined;
    },
    answer(asked) {
      const { method, path, body } = asked;
      if (!isAuthorized(asked)) return error(401, "authentication_error");
      if (method === "POST" && (path === "/drive/v2/quotes" || path === "/drive/v2/deliveries")) {
        const problem = problemWith(body);
        if (problem) return { status: 400, body: { code: "validation_error", message: "This is the sandbox.", field_errors: [problem] } };
        return path.endsWith("/quotes") ? quote(body ?? {}) : create(body ?? {});
      }
      const [, collection, id = "", action] = /^\/drive\/v2\/(quotes|deliveries)\/([^/]+)(?:\/([a-z]+))?$/.exec(path) ?? [];
      const key = decodeURIComponent(id);
      if (method === "POST" && collection === "quotes" && action === "accept") {
        const quoted = quotes.get(key);
        return quoted ? create(quoted) : error(404, "unknown_delivery_id");
      }
      const delivery = engine.findByKey(key);
      if (!delivery || collection !== "deliveries") return error(404, "unknown_delivery_id");
      if (method === "GET" && action === undefined) return { status: 200, body: deliveryBody(delivery) };
      return method === "PUT" && action === "cancel" ? cancel(delivery) : error(404, "unknown_delivery_id");
    },
    fault: (status) =>
      error(status, status >= 500 ? "service_fault" : status === 422 ? "invalid_delivery_parameters" : "request_rate_limited").body,
  };
}

/** The webhook by which DoorDash tells of something; it does not tell the status. */
export function doordashWebhook({ webhookAuthorization }: DoorDashAccount, { delivery, what }: News): OutgoingWebhook {
  const { delivery_status: _, ...rest } = deliveryBody(delivery) as Record<string, unknown>;
  const event_name = what === "stage" ? EVENTS[delivery.stage] : MOVING[delivery.stage];
  const body = JSON.stringify({ event_name, ...rest });
  return { body, headers: { authorization: webhookAuthorization }, forged: { authorization: "Basic c29tZWJvZHk6ZWxzZQ==" } };
}

function deliveryBody(delivery: SandboxDelivery): object {
  const { key, stage, place, feeMinor, currency, createdAt, movedAt, endReason } = delivery;
  const hasCourier = stage !== "created" && stage !== "cancelled";
  return {
    ...{ external_delivery_id: key, delivery_status: STATUSES[stage], fee: feeMinor, currency, created_at: createdAt, updated_at: movedAt },
    ...{ tracking_url: `https://sandbox.doordash.example/track/${encodeURIComponent(key)}`, support_reference: "1" },
    ...(hasCourier && { dasher_id: 4711, dasher_name: "Dana D.", dasher_phone_number: "+15555550102", dasher_vehicle_type: "car" }),
    ...(hasCourier && place && { dasher_location: { lat: place.latitude, lng: place.longitude } }),
    ...(endReason !== "" && { cancellation_reason: endReason }),
  };
}

function problemWith(body: Readonly<Record<string, unknown>> | undefined): { field: string; error: string } | undefined {
  if (!body) return { field: "", error: "must be JSON" };
  if (!/^[A-Za-z0-9._~-]{1,128}$/.test(String(body["external_delivery_id"] ?? "")))
    return { field: "external_delivery_id", error: "must be letters, digits, - . _ ~" };
  const missing = ["dropoff_address", "dropoff_phone_number", "pickup_address", "pickup_phone_number"].find(
    (field) => typeof body[field] !== "string" || body[field] === "",
  );
  return missing ? { field: missing, error: "is required" } : undefined;
}

function error(status: number, code: string, reason?: string): Answered {
  return { status, body: { code, message: "This is the sandbox.", ...(reason && { reason }) } };
}
