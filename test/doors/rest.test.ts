import { fromJson } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DeliveryProvider, Door, OrderStatus } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { InitTrackingRequestSchema, ListTrackingsRequestSchema } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { OPERATOR } from "./grpc-calls.ts";
import { MAX_REQUEST_BYTES, NOW, type OpenDoors, openDoors } from "./open-doors.ts";

const INIT = { order_id: "order-1", store_id: "store-1", customer_id: "customer-1" };

describe("the REST door", () => {
  let doors: OpenDoors;
  beforeAll(async () => {
    doors = await openDoors();
  });
  afterAll(() => doors[Symbol.asyncDispose]());

  async function call(method: string, path: string, body?: unknown, more: Record<string, string> = {}) {
    const response = await fetch(`${doors.http.url}${path}`, {
      method,
      headers: { authorization: OPERATOR, ...(body !== undefined && { "content-type": "application/json" }), ...more },
      ...(body !== undefined && { body: typeof body === "string" || body instanceof Blob ? body : JSON.stringify(body) }),
    });
    const text = await response.text();
    return { status: response.status, headers: response.headers, body: text === "" ? undefined : JSON.parse(text) };
  }

  const fieldsOf = ({ body }: { body: { violations?: { field: string; rule: string }[] } }) =>
    body.violations?.map(({ field, rule }) => `${field} ${rule}`);
  const lastRequest = () => doors.asked.at(-1)?.request;

  describe("answers", () => {
    it("GET with the order itself, in snake case and bare names", async () => {
      const { status, body } = await call("GET", "/orders/tracking/order-1");
      expect(status).toBe(200);
      expect(body).toEqual({
        order_id: "order-1",
        store_id: "store-1",
        customer_id: "customer-1",
        current_status: "STORE_NOTIFIED",
        status_history: [
          { status: "SUBMITTED", timestamp: "2027-01-15T08:00:00Z", actor: { role: "SERVICE", subject: "checkout" }, inferred: false },
          {
            status: "STORE_NOTIFIED",
            previous_status: "SUBMITTED",
            timestamp: "2027-01-15T08:00:01Z",
            actor: { role: "SERVICE", subject: "checkout" },
            inferred: true,
          },
        ],
        substitutions: [],
        items: [],
        milestones: [],
        metadata: { channel: "app" },
        version: 2,
        position: "12",
        created_at: "2027-01-15T08:00:00Z",
      });
    });

    it.each([
      ["POST", "/orders/tracking/init", INIT],
      ["PUT", "/orders/tracking/order-1/status", { status: "STORE_NOTIFIED" }],
      ["POST", "/orders/tracking/order-1/acknowledge", {}],
      ["PUT", "/orders/tracking/order-1/substitutions", { resolutions: [{ substitution_id: "s", approved: false }] }],
      ["PUT", "/orders/tracking/order-1/driver", { driver_details: { driver_id: "d" } }],
      ["PUT", "/orders/tracking/order-1/location", { latitude: 52.5, longitude: 13.4 }],
      ["PUT", "/orders/tracking/order-1/delivered", {}],
      ["POST", "/orders/tracking/order-1/cancel", { reason: "changed their mind" }],
    ])("%s %s with the order in a field", async (method, path, body) => {
      const answer = await call(method, path, body);
      expect(answer.status).toBe(200);
      expect(answer.body.order).toMatchObject({ order_id: "order-1", version: 2, position: "12" });
      expect(doors.asked.at(-1)?.call.door).toBe(Door.REST);
    });

    it("a list", async () => {
      const { body } = await call("GET", "/orders/tracking");
      expect(body.orders).toHaveLength(2);
      expect(body).not.toHaveProperty("next_page_token");
    });

    it("a history, with the path's field", async () => {
      const { body } = await call("GET", "/orders/tracking/order-1/history?page_size=2");
      expect(body.events[0]).toMatchObject({ position: "7", status: "SUBMITTED", inferred: false });
      expect(lastRequest()).toMatchObject({ orderId: "order-1", pageSize: 2 });
    });

    it("HEAD like GET, without the body", async () => {
      const { status, headers, body } = await call("HEAD", "/orders/tracking/order-1");
      expect(status).toBe(200);
      expect(Number(headers.get("content-length"))).toBeGreaterThan(100);
      expect(body).toBeUndefined();
    });

    it("OPTIONS with the methods of the path", async () => {
      const { status, headers } = await call("OPTIONS", "/orders/tracking/order-1");
      expect(status).toBe(204);
      expect(headers.get("allow")).toBe("GET, HEAD, OPTIONS");
    });

    it("a command without a body like one with an empty object", async () => {
      expect((await call("POST", "/orders/tracking/order-1/acknowledge")).status).toBe(200);
    });

    it("with headers that keep it out of caches, and with the request id", async () => {
      const { headers } = await call("GET", "/orders/tracking/order-1", undefined, { "x-request-id": "mine" });
      expect(headers.get("cache-control")).toBe("no-store");
      expect(headers.get("x-content-type-options")).toBe("nosniff");
      expect(headers.get("x-request-id")).toBe("mine");
      expect(doors.asked.at(-1)?.call.traceId).toBe("mine");
    });
  });

  describe("reads", () => {
    it("a request in snake case as proto3 JSON does in camel case", async () => {
      await call("POST", "/orders/tracking/init", {
        ...INIT,
        delivery_provider: "UBER",
        items: [{ item_id: "milk", name: "Milk", quantity: 1.5, unit_price: { amount_minor: 199, currency: "EUR" } }],
        recipient: { name: "Kim", address: { lines: ["Main St 1"], latitude: 52.5 } },
        metadata: { channel: "app", nested: { list: [1, "two", null, true] } },
      });
      const expected = fromJson(InitTrackingRequestSchema, {
        orderId: "order-1",
        storeId: "store-1",
        customerId: "customer-1",
        deliveryProvider: "DELIVERY_PROVIDER_UBER",
        items: [{ itemId: "milk", name: "Milk", quantity: 1.5, unitPrice: { amountMinor: "199", currency: "EUR" } }],
        recipient: { name: "Kim", address: { lines: ["Main St 1"], latitude: 52.5 } },
        metadata: { channel: "app", nested: { list: [1, "two", null, true] } },
      });
      expect(lastRequest()).toEqual(expected);
    });

    it("camel case and full enum names, too", async () => {
      await call("POST", "/orders/tracking/init", {
        orderId: "order-1",
        storeId: "s",
        customerId: "c",
        deliveryProvider: "DELIVERY_PROVIDER_IN_HOUSE",
      });
      expect(lastRequest()).toMatchObject({ orderId: "order-1", deliveryProvider: DeliveryProvider.IN_HOUSE });
    });

    it("null as absent", async () => {
      expect((await call("POST", "/orders/tracking/init", { ...INIT, recipient: null, items: null, request_id: null })).status).toBe(200);
    });

    it("query parameters: lists, enums, times, numbers", async () => {
      await call(
        "GET",
        "/orders/tracking?statuses=STORE_NOTIFIED&statuses=ORDER_STATUS_DELIVERED&delivery_provider=UBER&created_from=2026-01-01T00:00:00%2B01:00&page_size=7&min_position=12&store_id=store-1",
      );
      expect(lastRequest()).toEqual(
        fromJson(ListTrackingsRequestSchema, {
          statuses: ["ORDER_STATUS_STORE_NOTIFIED", "ORDER_STATUS_DELIVERED"],
          deliveryProvider: "DELIVERY_PROVIDER_UBER",
          createdFrom: "2025-12-31T23:00:00Z",
          pageSize: 7,
          minPosition: "12",
          storeId: "store-1",
        }),
      );
    });

    it("percent-encoding in the path", async () => {
      await call("GET", "/orders/tracking/order%2D1");
      expect(lastRequest()).toMatchObject({ orderId: "order-1" });
    });

    it("the path's field in the body, if it is the same", async () => {
      expect((await call("PUT", "/orders/tracking/order-1/status", { order_id: "order-1", status: "IN_TRANSIT" })).status).toBe(200);
      expect(lastRequest()).toMatchObject({ orderId: "order-1", status: OrderStatus.IN_TRANSIT });
    });

    it("a JSON content type with its charset", async () => {
      expect(
        (
          await call(
            "PUT",
            "/orders/tracking/order-1/status",
            { status: "IN_TRANSIT" },
            { "content-type": 'Application/JSON; charset="UTF-8"' },
          )
        ).status,
      ).toBe(200);
    });

    it("the deadline from Connect's header", async () => {
      const { status, body } = await call("GET", "/orders/tracking/slow", undefined, { "connect-timeout-ms": "50" });
      expect(status).toBe(504);
      expect(body.code).toBe("DEADLINE_EXCEEDED");
    });
  });

  describe("refuses", () => {
    it("a body with every violation at once, of shape and of rule", async () => {
      const answer = await call("POST", "/orders/tracking/init", {
        order_id: "not an id",
        store_id: 7,
        surprise: true,
        delivery_provider: "PIGEON",
        items: [
          { item_id: "a", name: "A", quantity: "many" },
          { item_id: "b", name: "", quantity: 1, unit_price: { amount_minor: 1.5, currency: "XQX" }, "more things": 1 },
        ],
        metadata: { "not a key": 1 },
      });
      expect(answer.status).toBe(400);
      expect(answer.body).toMatchObject({ code: "VALIDATION_FAILED", timestamp: NOW.toISOString(), path: "/orders/tracking/init" });
      expect(fieldsOf(answer)?.sort()).toEqual(
        [
          "order_id string.pattern",
          "store_id type",
          "customer_id string.pattern",
          "surprise unknown_field",
          "delivery_provider enum",
          "items[0].quantity type",
          "items[1].name string.min_len",
          "items[1].unit_price.amount_minor type",
          "items[1].unit_price.currency currency.known",
          "items[1].more things unknown_field",
          'metadata["not a key"] metadata.key',
        ].sort(),
      );
    });

    it("unknown enum values with the names of the known", async () => {
      const { body } = await call("PUT", "/orders/tracking/order-1/status", { status: "LOST" });
      expect(body.violations[0].detail).toContain("SUBMITTED, STORE_NOTIFIED");
      expect(body.violations[0].detail).not.toContain("UNSPECIFIED");
    });

    it.each([
      ["of another order", { order_id: "order-2", status: "IN_TRANSIT" }, ["order_id same_as_path"]],
      ["with a field given by both its names", { requestId: "r", request_id: "r", status: "IN_TRANSIT" }, ["request_id duplicate"]],
      ["with half a surrogate pair", { note: "\ud800", status: "IN_TRANSIT" }, ["note well_formed"]],
      ["with a rule of the whole message broken", { status: "CANCELLED", note: "x".repeat(201) }, ["note reason"]],
      ["without the reason of a cancellation", { status: "CANCELLED", note: " " }, ["note reason"]],
    ])("a body %s", async (_what, body, expected) => {
      const answer = await call("PUT", "/orders/tracking/order-1/status", body);
      expect(answer.status).toBe(400);
      expect(fieldsOf(answer)).toEqual(expected);
    });

    it.each([
      ["?page_size=many", ["page_size type"]],
      ["?page_size=2147483648", ["page_size type"]],
      ["?page_size=1&page_size=2", ["page_size duplicate"]],
      ["?statuses=LOST&surprise=1", ["statuses[0] enum", "surprise unknown_field"]],
      ["?created_from=yesterday", ["created_from type"]],
      ["?created_from=2026-02-30T00:00:00Z&created_before=2026-04-31T00:00:00Z", ["created_before type", "created_from type"]],
      ["?created_from=2026-02-01T00:00:00Z&created_before=2026-01-01T00:00:00Z", ["created_from time.before_created_before"]],
      ["?store_id.x=1", ["store_id.x unknown_field"]],
      ["?created_from.seconds=1", ["created_from.seconds unknown_field"]],
    ])("a list with %s", async (query, expected) => {
      const answer = await call("GET", `/orders/tracking${query}`);
      expect(answer.status).toBe(400);
      expect(fieldsOf(answer)?.sort()).toEqual(expected);
    });

    it("query parameters where the body says it all", async () => {
      const answer = await call("POST", "/orders/tracking/order-1/cancel?reason=x", { reason: "x" });
      expect(fieldsOf(answer)).toEqual(["reason unknown_field"]);
    });

    it("a path with an identifier that is none", async () => {
      expect(fieldsOf(await call("GET", "/orders/tracking/not%20an%20id"))).toEqual(["order_id string.pattern"]);
    });

    it.each([
      ["{", "MALFORMED_REQUEST", 400],
      ["[]", "MALFORMED_REQUEST", 400],
      ["null", "MALFORMED_REQUEST", 400],
      [new Blob([new Uint8Array([0x22, 0xff, 0x22])]), "MALFORMED_REQUEST", 400],
      ["[".repeat(50_000), "MALFORMED_REQUEST", 400],
      [`{"metadata":${'{"a":'.repeat(9_000)}1${"}".repeat(9_000)}}`, "VALIDATION_FAILED", 400],
      ['{"metadata":{"__proto__":{"polluted":true}}}', "VALIDATION_FAILED", 400],
      ['{"__proto__":{"order_id":"order-1"}}', "VALIDATION_FAILED", 400],
      ['{"items":[{"quantity":1e999}]}', "VALIDATION_FAILED", 400],
      ['{"order_id":"a","order_id":"b"}', "MALFORMED_REQUEST", 400],
      ['{"metadata":{"a":1,"b":{"\\u0061":1,"a":2}}}', "MALFORMED_REQUEST", 400],
      ['{"metadata":["a",":","a\\":", "\\\\"]}', "VALIDATION_FAILED", 400],
    ])("the body %#", async (body, code, status) => {
      const answer = await call("POST", "/orders/tracking/init", body);
      expect(answer).toMatchObject({ status, body: { code } });
      expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
    });

    it("tens of thousands of violations with the first hundred", async () => {
      const { body } = await call("POST", "/orders/tracking/init", `{"items":[${"{},".repeat(5_000)}{}]}`);
      expect(body.violations).toHaveLength(100);
      expect(body.detail).toMatch(/and \d{5} more/);
    });

    it("does not quote a body that does not parse", async () => {
      const { body } = await call("POST", "/orders/tracking/init", '{"recipient": {"name": "Kim Secret" oops');
      expect(body.detail).toMatch(/^the body is not JSON.*at position \d+$/);
    });

    it("a body over the limit, told its length or not", async () => {
      const big = "x".repeat(MAX_REQUEST_BYTES + 1);
      const told = await call("POST", "/orders/tracking/init", { note: big });
      expect(told).toMatchObject({ status: 413, body: { code: "PAYLOAD_TOO_LARGE" } });
      const untold = await fetch(`${doors.http.url}/orders/tracking/init`, {
        method: "POST",
        headers: { authorization: OPERATOR, "content-type": "application/json" },
        body: new Blob([big]).stream(),
        duplex: "half",
      } as RequestInit);
      expect(untold.status).toBe(413);
    });

    it.each(["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "application/jsonx", ""])(
      "the content type %j",
      async (type) => {
        const answer = await call("POST", "/orders/tracking/init", "{}", { "content-type": type });
        expect(answer).toMatchObject({ status: 415, body: { code: "UNSUPPORTED_MEDIA_TYPE" } });
      },
    );

    it("a compressed body", async () => {
      expect(await call("POST", "/orders/tracking/init", "{}", { "content-encoding": "gzip" })).toMatchObject({ status: 415 });
    });

    it("a deadline that is no number", async () => {
      expect(await call("GET", "/orders/tracking/order-1", undefined, { "connect-timeout-ms": "soon" })).toMatchObject({
        status: 400,
        body: { code: "MALFORMED_REQUEST" },
      });
    });

    it.each([
      ["GET", "/"],
      ["GET", "/orders"],
      ["GET", "/orders/tracking/"],
      ["GET", "/orders/tracking/a/b/c"],
      ["GET", "//orders/tracking"],
      ["PUT", "/ordertrail.v1.OrderTrackingService/Nothing"],
      ["OPTIONS", "/nowhere"],
    ])("%s %s, which leads nowhere", async (method, path) => {
      expect(await call(method, path)).toMatchObject({ status: 404, body: { code: "ROUTE_NOT_FOUND", path } });
    });

    it.each([
      ["DELETE", "/orders/tracking/order-1", "GET, HEAD"],
      ["PATCH", "/orders/tracking/order-1/status", "PUT"],
      ["GET", "/orders/tracking/order-1/cancel", "POST"],
      ["POST", "/healthz", "GET, HEAD"],
    ])("%s %s, and says what is allowed", async (method, path, allow) => {
      const answer = await call(method, path);
      expect(answer).toMatchObject({ status: 405, body: { code: "METHOD_NOT_ALLOWED" } });
      expect(answer.headers.get("allow")).toBe(allow);
    });

    it("percent-encoding that does not decode, in path and query", async () => {
      expect(await call("GET", "/orders/tracking/%ff")).toMatchObject({ status: 400, body: { code: "MALFORMED_REQUEST" } });
      expect(await call("GET", "/orders/tracking?store_id=%ff")).toMatchObject({ status: 400, body: { code: "MALFORMED_REQUEST" } });
    });

    it("a caller without a token before it looks at what they send", async () => {
      const answer = await call("POST", "/orders/tracking/init", "{", { authorization: "", "content-type": "text/plain" });
      expect(answer).toMatchObject({ status: 401, body: { code: "UNAUTHENTICATED" } });
      expect(answer.headers.get("www-authenticate")).toContain("Bearer");
    });
  });
});
