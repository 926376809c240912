import type { DescField, DescService, JsonObject } from "@bufbuild/protobuf";
import { AuditService } from "../gen/ordertrail/v1/audit_service_pb.js";
import { ErrorReasonSchema } from "../gen/ordertrail/v1/error_reason_pb.js";
import { bareNames } from "./enum-names.ts";
import { eventMappingOf } from "./event-stream.ts";
import { createSchemas, type Schemas } from "./openapi-schemas.ts";
import { createRestRoutes, type RestRoute } from "./rest-routes.ts";

/** The OpenAPI 3.1 document of the REST paths of these services. */
export function createOpenApi(services: readonly DescService[]): JsonObject {
  const schemas = createSchemas();
  const paths: { [path: string]: JsonObject } = {
    "/healthz": {
      get: open("healthz", "Whether the server lives", {
        "200": json("It lives", { type: "object", properties: { status: { const: "ok" } } }),
      }),
    },
    "/readyz": {
      get: open("readyz", "Whether the server can do its work", {
        "200": json("It can", READINESS),
        "503": json("It cannot at present", READINESS),
      }),
    },
    "/metrics": published("metrics", "What this process counts, for Prometheus", "text/plain"),
  };
  const { routes } = createRestRoutes(services);
  if (services.some(({ typeName }) => typeName === AuditService.typeName)) Object.assign(paths, AUDIT_PATHS);
  for (const route of routes) {
    paths[route.template] = { ...paths[route.template], [route.httpMethod.toLowerCase()]: operationOf(route, schemas) };
  }
  return {
    openapi: "3.1.1",
    info: { title: "Ordertrail", version: "v1", description: "Follows grocery orders from checkout to doorstep." },
    servers: [{ url: "/" }],
    security: [{ token: [] }],
    tags: [...new Set(routes.map(({ method }) => method.parent.name))].map((name) => ({ name })),
    paths,
    components: {
      schemas: { ...schemas.components, Error: ERROR },
      parameters: { RequestId: REQUEST_ID, Timeout: TIMEOUT },
      responses: {
        Error: {
          description: "A refusal or a fault; `code` says which.",
          headers: ERROR_HEADERS,
          content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
        },
      },
      securitySchemes: { token: { type: "http", scheme: "bearer", bearerFormat: "JWT" } },
    },
  };
}

function operationOf(route: RestRoute, schemas: Schemas): JsonObject {
  const { method, body, responseBody } = route;
  const streams = method.methodKind === "server_streaming";
  const pathFields = route.segments.flatMap((part) => ("field" in part ? [part.field] : []));
  const others = method.input.fields.filter((field) => !pathFields.includes(field));
  const parameters = [
    ...pathFields.map((field) => ({ name: field.name, in: "path", required: true, schema: schemas.schemaOf(field) })),
    ...(body === "all" ? [] : others.filter((field) => field !== body).flatMap((field) => queryParameters(field, schemas))),
    ...(streams ? [LAST_EVENT_ID] : []),
    { $ref: "#/components/parameters/RequestId" },
    { $ref: "#/components/parameters/Timeout" },
  ];
  const requestBody = body === "all" ? schemas.objectOf(others) : body === "none" ? undefined : schemas.schemaOf(body);
  return {
    operationId: method.name,
    tags: [method.parent.name],
    parameters,
    ...(requestBody && { requestBody: { required: "required" in requestBody, content: { "application/json": { schema: requestBody } } } }),
    responses: {
      ...(streams && { "204": { description: "There is nothing more to come after Last-Event-ID." } }),
      "200": streams
        ? events(eventMappingOf(method).about)
        : json("The answer", responseBody ? schemas.schemaOf(responseBody) : schemas.refTo(method.output)),
      default: { $ref: "#/components/responses/Error" },
    },
  };
}

function events(description: string): JsonObject {
  return { description, content: { "text/event-stream": { schema: { type: "string" } } } };
}

/** A field as query parameters: those of a nested message one by one, as `a.b`. */
function queryParameters(field: DescField, schemas: Schemas, prefix = ""): JsonObject[] {
  const name = `${prefix}${field.name}`;
  if (field.fieldKind === "message" && !field.message.typeName.startsWith("google.protobuf.")) {
    return field.message.fields.flatMap((inner) => queryParameters(inner, schemas, `${name}.`));
  }
  return [{ name, in: "query", schema: schemas.schemaOf(field) }];
}

function open(operationId: string, summary: string, responses: JsonObject): JsonObject {
  return { operationId, summary, security: [], responses };
}

function json(description: string, schema: JsonObject): JsonObject {
  return { description, content: { "application/json": { schema } } };
}

function published(operationId: string, summary: string, type: "text/plain" | "application/octet-stream", ...names: string[]): JsonObject {
  const parameters = names.map((name) => ({ name, in: "path", required: true, schema: { type: "string" } }));
  const schema: JsonObject = type === "text/plain" ? { type: "string" } : {};
  const responses = { "200": { description: summary, content: { [type]: { schema } } }, default: { $ref: "#/components/responses/Error" } };
  return { get: { operationId, summary, ...(names.length > 0 && { parameters }), responses } };
}

const AUDIT_PATHS: { readonly [path: string]: JsonObject } = {
  "/audit/checkpoint": published("auditCheckpoint", "The newest signed checkpoint of the log (C2SP tlog-checkpoint)", "text/plain"),
  "/audit/tile/{level}/{index}": published(
    "auditTile",
    "A tile of the log's Merkle tree (C2SP tlog-tiles); the index may have several path elements and end with .p/ and a width",
    "application/octet-stream",
    "level",
    "index",
  ),
  "/audit/tile/entries/{index}": published(
    "auditEntries",
    "A bundle of the log's entries (C2SP tlog-tiles); the index likewise",
    "application/octet-stream",
    "index",
  ),
};

const READINESS: JsonObject = {
  type: "object",
  required: ["ready", "checks"],
  properties: { ready: { type: "boolean" }, checks: { type: "object", additionalProperties: { enum: ["ok", "failed", "no answer"] } } },
};

const ERROR: JsonObject = {
  type: "object",
  required: ["detail", "code", "timestamp", "path"],
  properties: {
    detail: { type: "string", description: "What is wrong, for people." },
    code: { type: "string", description: "What is wrong, for programs; new ones may be added.", enum: bareNames(ErrorReasonSchema) },
    timestamp: { type: "string", format: "date-time" },
    path: { type: "string" },
    violations: {
      type: "array",
      description: "With VALIDATION_FAILED: every rule that the request breaks.",
      items: {
        type: "object",
        required: ["field", "rule", "detail"],
        properties: {
          field: { type: "string", examples: ["items[0].unit_price.currency"] },
          rule: { type: "string" },
          detail: { type: "string" },
        },
      },
    },
  },
};

const ERROR_HEADERS: JsonObject = {
  "Retry-After": { description: "With 429 and 503: after how many seconds to try again.", schema: { type: "integer" } },
};

const REQUEST_ID: JsonObject = {
  name: "X-Request-Id",
  in: "header",
  description: "Identifies the call in the answer and in the server's log; made if absent.",
  schema: { type: "string", pattern: "^[A-Za-z0-9_-]{1,64}$" },
};

const LAST_EVENT_ID: JsonObject = {
  name: "Last-Event-ID",
  in: "header",
  description: "The id of the last event received: the stream goes on after it, whatever the query says.",
  schema: { type: "string", pattern: "^\\d{1,10}$" },
};

const TIMEOUT: JsonObject = {
  name: "Connect-Timeout-Ms",
  in: "header",
  description: "By how many milliseconds the answer is wanted; later it is DEADLINE_EXCEEDED.",
  schema: { type: "integer", minimum: 0, maximum: 9_999_999_999 },
};
