import { Validator } from "@seriousme/openapi-schema-validator";
import { describe, expect, it } from "vitest";
import { createOpenApi } from "../../src/doors/openapi.ts";
import { AuditService } from "../../src/gen/ordertrail/v1/audit_service_pb.js";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";

const document = createOpenApi([OrderTrackingService, OperationsService, AuditService]);
/** The document as any reader of it sees it. */
const read = JSON.parse(JSON.stringify(document));

describe("the OpenAPI document", () => {
  it("is valid, and all its references lead somewhere", async () => {
    const validator = new Validator();
    expect(await validator.validate(structuredClone(document))).toEqual({ valid: true });
    expect(validator.version).toBe("3.1");
    const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/([^"]+)"/g)].map(([, path = ""]) => path);
    expect(references.length).toBeGreaterThan(50);
    for (const path of new Set(references))
      expect(
        path.split("/").reduce((node, key) => node?.[key], read),
        path,
      ).toBeDefined();
  });

  it("has exactly the paths that are served", () => {
    const operations = Object.entries<object>(read.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    expect(operations.sort()).toEqual(
      [
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /audit/checkpoint",
        "GET /audit/tile/{level}/{index}",
        "GET /audit/tile/entries/{index}",
        "GET /audit/orders/{order_id}/explanation",
        "GET /orders/tracking",
        "GET /orders/tracking/{order_id}",
        "GET /orders/tracking/{order_id}/events",
        "GET /orders/tracking/{order_id}/history",
        "POST /orders/tracking/init",
        "POST /orders/tracking/{order_id}/acknowledge",
        "POST /orders/tracking/{order_id}/cancel",
        "PUT /orders/tracking/{order_id}/delivered",
        "PUT /orders/tracking/{order_id}/driver",
        "PUT /orders/tracking/{order_id}/location",
        "PUT /orders/tracking/{order_id}/status",
        "PUT /orders/tracking/{order_id}/substitutions",
        "GET /stores/{store_id}",
        "PUT /stores/{store_id}",
        "GET /privacy/customers/{customer_id}/export",
        "POST /privacy/customers/{customer_id}/erase",
      ].sort(),
    );
  });

  it("says the rules of fields where JSON Schema can", () => {
    const { Item, Money, Address } = read.components.schemas;
    expect(Item.required).toEqual(["item_id", "name", "quantity"]);
    expect(Item.properties.item_id).toEqual({ type: "string", pattern: "^[A-Za-z0-9_-]{1,64}$" });
    expect(Item.properties.name).toEqual({ type: "string", minLength: 1, maxLength: 200 });
    expect(Item.properties.quantity).toMatchObject({ exclusiveMinimum: 0, maximum: 1_000_000 });
    expect(Money.properties.amount_minor).toMatchObject({ minimum: 0, maximum: 1e12 });
    expect(Address.properties.lines).toMatchObject({ maxItems: 5, items: { minLength: 1, maxLength: 200 } });
    expect(Address.properties.latitude).toMatchObject({ minimum: -90, maximum: 90 });
  });

  it("names enum values as REST does", () => {
    expect(read.components.schemas.OrderStatus.enum).toContain("STORE_NOTIFIED");
    expect(JSON.stringify(document)).not.toMatch(/ORDER_STATUS_|UNSPECIFIED/);
  });

  it("takes the path's fields out of the body, and puts the rest of a GET into the query", () => {
    const { parameters, requestBody } = read.paths["/orders/tracking/{order_id}/status"].put;
    expect(parameters[0]).toMatchObject({ name: "order_id", in: "path", required: true });
    const body = requestBody.content["application/json"].schema;
    expect(Object.keys(body.properties)).toEqual(["status", "note", "request_id"]);
    expect(body.required).toEqual(["status"]);
    const query = read.paths["/orders/tracking"].get.parameters.filter((parameter: { in?: string }) => parameter.in === "query");
    expect(query.map(({ name }: { name: string }) => name)).toEqual([
      "store_id",
      "customer_id",
      "statuses",
      "delivery_provider",
      "created_from",
      "created_before",
      "page_size",
      "page_token",
      "min_position",
    ]);
  });

  it("describes a stream as server-sent events, to be gone on with", () => {
    const { parameters, responses } = read.paths["/orders/tracking/{order_id}/events"].get;
    expect(Object.keys(responses)).toEqual(["200", "204", "default"]);
    expect(responses["200"].content).toEqual({ "text/event-stream": { schema: { type: "string" } } });
    expect(responses["200"].description).toContain("Server-sent events");
    expect(parameters).toContainEqual(expect.objectContaining({ name: "Last-Event-ID", in: "header" }));
    expect(parameters).toContainEqual(expect.objectContaining({ name: "from_version", in: "query" }));
  });

  it("shows the order itself as the answer to GET, and in a field as that to commands", () => {
    const answerOf = (operation: { responses: { "200": { content: { "application/json": { schema: object } } } } }) =>
      operation.responses["200"].content["application/json"].schema;
    expect(answerOf(read.paths["/orders/tracking/{order_id}"].get)).toEqual({ $ref: "#/components/schemas/OrderTracking" });
    expect(answerOf(read.paths["/orders/tracking/{order_id}/cancel"].post)).toEqual({ $ref: "#/components/schemas/CancelOrderResponse" });
  });
});
