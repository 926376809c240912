import { createHmac, randomBytes } from "node:crypto";
import type { DeliveryEngine, News, SandboxDelivery, Stage } from "./delivery-engine.ts";
import type { Answered, Asked, SandboxApi } from "./sandbox-server.ts";
import type { OutgoingWebhook } from "./webhook-sender.ts";

/** Who may use the sandbox, and how it signs. */
export type UberAccount = {
  readonly customerId: string;
  readonly clientId: string;
  readonly clientSecret: string;
  readonly webhookKey: string;
  /** For how long a token is good. */
  readonly tokenSeconds: number;
};

/** Uber's words for the stages. */
const STATUSES: Readonly<Record<Stage, string>> = {
  created: "pending",
  assigned: "pickup",
  at_store: "pickup",
  picked_up: "pickup_complete",
  on_the_way: "dropoff",
  arrived: "dropoff",
  delivered: "delivered",
  cancelled: "canceled",
  returning: "dropoff",
  returned: "returned",
};

/** Its words for failures, by status. */
const FAULTS: ReadonlyMap<number, string> = new Map([
  [400, "invalid_params"],
  [401, "unauthorized"],
  [422, "address_undeliverable"],
  [429, "customer_limited"],
  [503, "service_unavailable"],
]);

const QUOTE_MS = 15 * 60_000;
const CANCELLABLE: readonly Stage[] = ["created", "assigned", "at_store"];
const REQUIRED = [
  "pickup_name",
  "pickup_address",
  "pickup_phone_number",
  "dropoff_name",
  "dropoff_address",
  "dropoff_phone_number",
  "manifest_items",
];

/** Uber Direct's API, as far as Ordertrail uses it. */
export function createUberSandbox(account: UberAccount, engine: DeliveryEngine): SandboxApi {
  const tokens = new Map<string, number>();
  const base = `/v1/customers/${account.customerId}`;

  function issue({ body = {} }: Asked): Answered {
    const { client_id, client_secret, grant_type, scope } = body;
    if (client_id !== account.clientId || client_secret !== account.clientSecret) return { status: 401, body: { error: "invalid_client" } };
    if (grant_type !== "client_credentials" || scope !== "eats.deliveries") return { status: 400, body: { error: "invalid_scope" } };
    const token = randomBytes(24).toString("base64url");
    tokens.set(token, Date.now() + account.tokenSeconds * 1000);
    return { status: 200, body: { access_token: token, expires_in: account.tokenSeconds, token_type: "Bearer", scope } };
  }

  function isAuthorized({ authorization }: Asked): boolean {
    const [, token = ""] = /^Bearer (.+)$/.exec(authorization) ?? [];
    return (tokens.get(token) ?? 0) > Date.now();
  }

  function quote({ body = {} }: Asked): Answered {
    const wrong = ["pickup_address", "dropoff_address"].find((name) => !isAddress(body[name]));
    if (wrong) return error(400, "invalid_params", { [wrong]: "must be an address as a JSON string" });
    const { feeMinor, minutes } = engine.quote();
    const now = Date.now();
    return {
      status: 200,
      body: {
        ...{
          kind: "delivery_quote",
          id: `dqt_${randomBytes(12).toString("hex")}`,
          created: new Date(now),
          expires: new Date(now + QUOTE_MS),
        },
        ...{ fee: feeMinor, currency: "usd", currency_type: "USD", dropoff_eta: new Date(now + minutes * 60_000) },
        ...{ duration: minutes, pickup_duration: Math.ceil(minutes / 2), dropoff_deadline: new Date(now + 2 * minutes * 60_000) },
      },
    };
  }

  function create({ body = {} }: Asked): Answered {
    const missing = REQUIRED.find((name) => body[name] === undefined || body[name] === "");
    if (missing) return error(400, "invalid_params", { [missing]: "is required" });
    if (!isAddress(body["pickup_address"]) || !isAddress(body["dropoff_address"])) return error(400, "invalid_params");
    if (!Array.isArray(body["manifest_items"]) || body["manifest_items"].length === 0) return error(400, "invalid_params");
    const key = String(body["idempotency_key"] ?? body["external_id"] ?? randomBytes(12).toString("hex"));
    const existing = engine.findByKey(key);
    // The same key within the hour is the same request; another body under the same external_id is not.
    if (existing && JSON.stringify(existing.request) !== JSON.stringify(body))
      return error(409, "duplicate_delivery", { delivery_id: existing.id });
    return { status: 200, body: deliveryBody(engine.create(key, body, "USD").delivery) };
  }

  function cancel(delivery: SandboxDelivery): Answered {
    if (!CANCELLABLE.includes(delivery.stage)) return error(400, "noncancelable_delivery");
    engine.advance(delivery, "cancelled", "cancelled_by_merchant");
    return { status: 200, body: deliveryBody(delivery) };
  }

  return {
    operationOf({ method, path }) {
      if (path === "/oauth/v2/token") return "token";
      if (path === `${base}/delivery_quotes`) return "quote";
      if (path === `${base}/deliveries` && method === "POST") return "create";
      if (path.endsWith("/cancel")) return "cancel";
      return path.startsWith(`${base}/deliveries/`) ? "get" : undefined;
    },
    answer(asked) {
      const { method, path } = asked;
      if (method === "POST" && path === "/oauth/v2/token") return issue(asked);
      if (!isAuthorized(asked)) return error(401, "unauthorized");
      if (!path.startsWith(`${base}/`)) return error(404, "customer_not_found");
      if (asked.body === undefined) return error(400, "invalid_params");
      if (method === "POST" && path === `${base}/delivery_quotes`) return quote(asked);
      if (method === "POST" && path === `${base}/deliveries`) return create(asked);
      const [, id = "", action] = /\/deliveries\/([^/]+)(?:\/([a-z-]+))?$/.exec(path) ?? [];
      const delivery = engine.find(decodeURIComponent(id));
      if (!delivery) return error(404, "delivery_not_found");
      if (method === "GET" && action === undefined) return { status: 200, body: deliveryBody(delivery) };
      return method === "POST" && action === "cancel" ? cancel(delivery) : error(404, "delivery_not_found");
    },
    fault: (status) => error(status, FAULTS.get(status) ?? "internal_server_error").body,
  };
}

/** The webhook by which Uber tells of something. */
export function uberWebhook({ webhookKey, customerId }: UberAccount, { delivery, what }: News): OutgoingWebhook {
  const body = JSON.stringify({
    kind: what === "stage" ? "event.delivery_status" : "event.courier_update",
    id: `evt_${randomBytes(12).toString("hex")}`,
    ...{ created: delivery.movedAt, status: STATUSES[delivery.stage], delivery_id: delivery.id, customer_id: customerId, live_mode: false },
    ...(delivery.place && { location: { lat: delivery.place.latitude, lng: delivery.place.longitude } }),
    data: deliveryBody(delivery),
  });
  const sign = (key: string) => ({ "x-uber-signature": createHmac("sha256", key).update(body).digest("hex") });
  return { body, headers: sign(webhookKey), forged: sign("somebody else's key") };
}

function deliveryBody(delivery: SandboxDelivery): object {
  const { id, request, stage, place, feeMinor, currency, createdAt, movedAt, endReason } = delivery;
  const hasCourier = stage !== "created" && stage !== "cancelled";
  return {
    ...{ kind: "delivery", id, uuid: id.slice(4), status: STATUSES[stage], complete: stage === "delivered" || stage === "cancelled" },
    ...{ created: createdAt, updated: movedAt, fee: feeMinor, currency: currency.toLowerCase(), live_mode: false },
    ...{ external_id: request["external_id"] ?? "", manifest_reference: request["manifest_reference"] ?? "" },
    ...{ tracking_url: `https://sandbox.uber.example/track/${id}`, courier_imminent: stage === "at_store" || stage === "arrived" },
    ...(hasCourier && {
      courier: {
        ...{ name: "Robin R.", vehicle_type: "bicycle", phone_number: "+15555550101", img_href: "https://sandbox.uber.example/robin.png" },
        ...(place && { location: { lat: place.latitude, lng: place.longitude } }),
      },
    }),
    ...(endReason !== "" && { undeliverable_reason: endReason }),
  };
}

function error(status: number, code: string, metadata?: object): Answered {
  return { status, body: { code, message: "This is the sandbox.", kind: "error", ...(metadata && { metadata }) } };
}

function isAddress(value: unknown): boolean {
  if (typeof value !== "string") return false;
  try {
    const read = JSON.parse(value) as { street_address?: unknown; city?: unknown };
    return Array.isArray(read.street_address) && read.street_address.length > 0 && typeof read.city === "string";
  } catch {
    return false;
  }
}
