import { brotliCompressSync, gzipSync } from "node:zlib";
import type { JsonValue } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { errorFromJson } from "@connectrpc/connect/protocol-connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BadRequestSchema, ErrorInfoSchema } from "../../src/gen/google/rpc/error_details_pb.js";
import { Door } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { eventually } from "../support/eventually.ts";
import { OPERATOR } from "./grpc-calls.ts";
import { enveloped, packedCall } from "./malformed-requests.ts";
import { MAX_REQUEST_BYTES, type OpenDoors, openDoors } from "./open-doors.ts";

const headers = { authorization: OPERATOR };
const GET_TRACKING = "/ordertrail.v1.OrderTrackingService/GetTracking";
const REBUILD = "/ordertrail.v1.OperationsService/RebuildProjection";

describe("the Connect door", () => {
  let doors: OpenDoors;
  beforeAll(async () => {
    doors = await openDoors();
  });
  afterAll(() => doors[Symbol.asyncDispose]());

  const post = (path: string, body: string | Uint8Array<ArrayBuffer>, more: Record<string, string> = {}) =>
    fetch(`${doors.http.url}${path}`, { method: "POST", headers: { ...headers, "content-type": "application/json", ...more }, body });

  it.each([
    ["POST", "/ordertrail.v1.OrderTrackingService/UpdateStatus", Uint8Array.of(0x0d, 0xb6, 0xf9)],
    ["GET", "/ordertrail.v1.OrderTrackingService/GetTracking?connect=v1&encoding=proto&base64=1&message=Dbb5", undefined],
  ])("calls bytes that are no message the caller's mistake: %s %s", async (method, path, body) => {
    const response = await fetch(`${doors.http.url}${path}`, {
      method,
      headers: { ...headers, ...(body && { "content-type": "application/proto" }) },
      ...(body && { body }),
    });
    expect([response.status, await response.json()]).toMatchObject([
      400,
      { code: "invalid_argument", details: [{ debug: { reason: "MALFORMED_REQUEST" } }] },
    ]);
  });

  describe.each<[string, (baseUrl: string) => Transport]>([
    ["Connect, JSON", (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1" })],
    ["Connect, binary", (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: true })],
    ["Connect, GET", (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1", useHttpGet: true })],
    ["gRPC-Web", (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" })],
  ])("by %s", (_protocol, transportTo) => {
    it("answers a unary call", async () => {
      const client = createClient(OrderTrackingService, transportTo(doors.http.url));
      const { order } = await client.getTracking({ orderId: "order-1" }, { headers: { ...headers, "x-request-id": "trace-1" } });
      expect(order).toMatchObject({ orderId: "order-1", position: 12n, metadata: { channel: "app" } });
      expect(doors.asked.at(-1)?.call).toMatchObject({ door: Door.CONNECT, traceId: "trace-1", caller: { subject: "ann" } });
    });

    it("streams answers to their end", async () => {
      const client = createClient(OperationsService, transportTo(doors.http.url));
      const positions = [];
      for await (const { position } of client.rebuildProjection({ name: "order_tracking" }, { headers })) positions.push(position);
      expect(positions).toEqual([1n, 2n, 3n]);
    });

    it("tells what a stream fails with after its first answers", async () => {
      const client = createClient(OperationsService, transportTo(doors.http.url));
      const positions: bigint[] = [];
      const failure = await rejection(
        (async () => {
          for await (const { position } of client.rebuildProjection({ name: "broken" }, { headers })) positions.push(position);
        })(),
      );
      expect(positions).toEqual([1n, 2n]);
      expect(failure.code).toBe(Code.Internal);
      expect(failure.rawMessage).not.toContain("secret");
    });

    it("ends a stream when its reader leaves", async () => {
      const client = createClient(OperationsService, transportTo(doors.http.url));
      const leaving = new AbortController();
      await rejection(
        (async () => {
          for await (const _answer of client.rebuildProjection({ name: "endless" }, { headers, signal: leaving.signal })) leaving.abort();
        })(),
      );
      await eventually(() =>
        expect(doors.asked.at(-1)).toMatchObject({ request: { name: "endless" }, call: { signal: { aborted: true } } }),
      );
    });

    it("keeps to the caller's deadline", async () => {
      const client = createClient(OrderTrackingService, transportTo(doors.http.url));
      const failure = await rejection(client.getTracking({ orderId: "slow" }, { headers, timeoutMs: 100 }));
      expect(failure.code).toBe(Code.DeadlineExceeded);
    });

    it("refuses who brings no token", async () => {
      const client = createClient(OrderTrackingService, transportTo(doors.http.url));
      expect((await rejection(client.getTracking({ orderId: "order-1" }))).code).toBe(Code.Unauthenticated);
    });
  });

  it("echoes the request id", async () => {
    const response = await post(GET_TRACKING, '{"orderId":"order-1"}', { "x-request-id": "mine" });
    expect(response.headers.get("x-request-id")).toBe("mine");
  });

  it.each([
    ["an unknown field", '{"orderId":"order-1","surprise":1}'],
    ["a value of the wrong type", '{"orderId":7}'],
    ["what is no JSON", '{"orderId":'],
    ["JSON that is no object", "[]"],
    ["metadata nested without end", `{"orderId":${"[".repeat(20_000)}${"]".repeat(20_000)}}`],
  ])("calls %s an invalid argument", async (_what, body) => {
    const response = await post(GET_TRACKING, body);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ code: "invalid_argument" });
  });

  it("refuses a message over the limit", async () => {
    const response = await post(GET_TRACKING, JSON.stringify({ orderId: "o".repeat(MAX_REQUEST_BYTES) }));
    expect(await failureIn(response)).toMatchObject({ code: Code.ResourceExhausted, reason: "PAYLOAD_TOO_LARGE" });
    const compressed = gzipSync(JSON.stringify({ orderId: "o".repeat(MAX_REQUEST_BYTES) }));
    const bomb = await post(GET_TRACKING, compressed, { "content-encoding": "gzip" });
    expect(await failureIn(bomb)).toMatchObject({ code: Code.ResourceExhausted, reason: "PAYLOAD_TOO_LARGE" });
  });

  it("tells all that is wrong with a request in JSON, and quotes none of it", async () => {
    const body = { orderId: "x y", latitude: "abc", longitude: 999, bogus: 1 };
    const response = await post("/ordertrail.v1.OrderTrackingService/UpdateLocation", JSON.stringify(body));
    const { message, reason, fields } = await failureIn(response);
    expect(reason).toBe("VALIDATION_FAILED");
    expect(fields).toEqual(["bogus", "latitude", "longitude", "order_id"]);
    expect(message).not.toContain("abc");
  });

  it.each(["{bad", "", "[]", "null", "7"])("calls the body %j malformed, or says what it lacks", async (body) => {
    const failure = await failureIn(await post(GET_TRACKING, body));
    expect(failure).toMatchObject({ code: Code.InvalidArgument, reason: body === "" ? "VALIDATION_FAILED" : "MALFORMED_REQUEST" });
  });

  it.each<[string, RequestInit & { readonly query?: string }, number, string]>([
    ["a time-out that is no number", { headers: { "connect-timeout-ms": "abc" } }, 400, "MALFORMED_REQUEST"],
    ["a time-out of too many digits", { headers: { "connect-timeout-ms": "99999999999" } }, 400, "MALFORMED_REQUEST"],
    ["a coding that is not known", { headers: { "content-encoding": "nope" } }, 415, "UNSUPPORTED_MEDIA_TYPE"],
    ["packed JSON that is none", { headers: { "content-encoding": "gzip" }, body: gzipSync("{secret") }, 400, "MALFORMED_REQUEST"],
    [
      "a type of gRPC-Web's that is not spoken",
      { headers: { "content-type": "application/grpc-web-text" } },
      415,
      "UNSUPPORTED_MEDIA_TYPE",
    ],
    ["a GET without a message", { method: "GET" }, 415, "UNSUPPORTED_MEDIA_TYPE"],
    ["a GET with a message that is none", { method: "GET", query: "?encoding=json&message=%7Bsecret" }, 400, "MALFORMED_REQUEST"],
  ])("gives a reason for refusing %s", async (_what, { query = "", headers, method = "POST", ...init }, status, reason) => {
    const response = await fetch(`${doors.http.url}${GET_TRACKING}${query}`, {
      method,
      headers: { authorization: OPERATOR, ...(method === "POST" && { "content-type": "application/json" }), ...headers },
      ...(method === "POST" && { body: "{}" }),
      ...init,
    });
    expect(response.status).toBe(status);
    const { message, ...failure } = await failureIn(response);
    expect(failure.reason).toBe(reason);
    expect(message).not.toContain("secret");
  });

  it("takes a compressed request", async () => {
    const response = await post(GET_TRACKING, gzipSync('{"orderId":"order-1"}'), { "content-encoding": "gzip" });
    expect(await response.json()).toMatchObject({ order: { orderId: "order-1" } });
  });

  it.each(["gzip", "br"])("calls what does not unpack by %s the caller's mistake", async (coding) => {
    const pack = coding === "gzip" ? gzipSync : brotliCompressSync;
    const whole = Uint8Array.from(pack('{"orderId":"order-1"}'));
    const failures = [];
    for (const body of ["0", whole.subarray(0, -9), whole.subarray(0, 3)])
      failures.push(await failureIn(await post(GET_TRACKING, body, { "content-encoding": coding })));
    expect(failures).toEqual([malformed, malformed, malformed]);
    const streamed = await post(REBUILD, Uint8Array.from(enveloped(whole.subarray(0, -9), 1)), {
      "content-type": "application/connect+json",
      "connect-content-encoding": coding,
    });
    expect(await endOf(streamed)).toMatchObject({
      error: { code: "invalid_argument", details: [{ debug: { reason: "MALFORMED_REQUEST" } }] },
    });
  });

  it.each([
    ["application/connect+proto", Uint8Array.of(0x0d, 0xb6, 0xf9)],
    ["application/connect+json", Buffer.from('{"name": "Ada Example"')],
  ])("calls a stream's request that is no message the caller's mistake: %s", async (type, body) => {
    const { error } = await endOf(await post(REBUILD, Uint8Array.from(enveloped(body)), { "content-type": type }));
    expect(error).toMatchObject({ code: "invalid_argument", details: [{ debug: { reason: "MALFORMED_REQUEST" } }] });
    expect(JSON.stringify(error)).not.toContain("Ada");
  });

  it.each(["application/grpc-web+proto", "application/grpc-web+json"])(
    "calls a request that is no message the caller's mistake: %s",
    async (type) => {
      for (const path of [GET_TRACKING, REBUILD]) {
        const response = await post(path, Uint8Array.from(enveloped(Uint8Array.of(0x0d, 0xb6, 0xf9))), { "content-type": type });
        const trailers = Buffer.from(await response.arrayBuffer())
          .subarray(5)
          .toString();
        expect(trailers.split("\r\n")).toEqual(
          expect.arrayContaining(["grpc-status: 3", expect.stringMatching(/^grpc-status-details-bin: /)]),
        );
      }
    },
  );

  it("never has a fault, however a body is packed", async () => {
    const before = doors.logged.length;
    const methods = [OrderTrackingService, OperationsService].flatMap((service) => service.methods);
    await fc.assert(
      fc.asyncProperty(packedCall(methods), async ({ path, type, body, headers: packing }) => {
        const response = await post(path, Uint8Array.from(body), { "content-type": type, ...packing });
        expect([response.status, await response.text()]).toEqual([
          expect.toBeOneOf([200, 400, 404, 415, 429]),
          expect.not.stringContaining("decompress"),
        ]);
      }),
      { numRuns: 400 },
    );
    expect(doors.logged.slice(before).filter(({ level }) => level >= 50)).toEqual([]);
  });

  it("answers a wrong HTTP method and a wrong content type with the error body of REST", async () => {
    const method = await fetch(`${doors.http.url}${GET_TRACKING}`, { method: "PUT", headers });
    expect(method.status).toBe(405);
    expect(method.headers.get("allow")).toBe("POST, GET");
    expect(await method.json()).toMatchObject({ code: "METHOD_NOT_ALLOWED", path: GET_TRACKING });
    const type = await post(GET_TRACKING, "x", { "content-type": "text/plain" });
    expect(type.status).toBe(415);
    expect(await type.json()).toMatchObject({ code: "UNSUPPORTED_MEDIA_TYPE", path: GET_TRACKING });
  });

  it("does not let a command be sent by GET", async () => {
    const response = await fetch(`${doors.http.url}/ordertrail.v1.OrderTrackingService/CancelOrder?encoding=json&message={}`, { headers });
    expect(response.status).toBe(405);
  });

  it("lets scripts of the configured origins call, and of no others", async () => {
    const preflight = (origin: string) =>
      fetch(`${doors.http.url}${GET_TRACKING}`, {
        method: "OPTIONS",
        headers: {
          origin,
          "access-control-request-method": "POST",
          "access-control-request-headers": "authorization,content-type,x-grpc-web,connect-timeout-ms",
        },
      });
    const own = await preflight("https://shop.example");
    expect(own.status).toBe(204);
    expect(own.headers.get("access-control-allow-origin")).toBe("https://shop.example");
    const allowed = own.headers.get("access-control-allow-headers")?.toLowerCase() ?? "";
    for (const header of ["authorization", "content-type", "x-grpc-web", "connect-timeout-ms", "x-request-id"])
      expect(allowed.split(",")).toContain(header);
    expect((await preflight("https://elsewhere.example")).headers.has("access-control-allow-origin")).toBe(false);
    const answer = await post(GET_TRACKING, '{"orderId":"order-1"}', { origin: "https://shop.example" });
    expect(answer.headers.get("access-control-expose-headers")?.toLowerCase()).toContain("grpc-status-details-bin");
  });
});

describe.each<[string, (baseUrl: string) => Transport]>([
  ["Connect", (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1" })],
  ["gRPC-Web", (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" })],
])("the Connect door by %s, stopping", (_protocol, transportTo) => {
  it.each(["endless", "careless"])("ends a stream whose handler is %s as unavailable, never as if it were complete", async (name) => {
    await using doors = await openDoors();
    const client = createClient(OperationsService, transportTo(doors.http.url));
    const streamed = rejection(
      (async () => {
        for await (const _answer of client.rebuildProjection({ name }, { headers }));
      })(),
    );
    await eventually(() => expect(doors.asked).toHaveLength(1));
    await doors.http.stop();
    expect((await streamed).code).toBe(Code.Unavailable);
  });
});

const malformed = { code: Code.InvalidArgument, message: expect.any(String), reason: "MALFORMED_REQUEST", fields: [] };

/** What the last message of a stream in Connect says, if it is the first as well. */
async function endOf(response: Response) {
  const bytes = Buffer.from(await response.arrayBuffer());
  return JSON.parse(bytes.subarray(5).toString());
}

/** What an error body of Connect tells. */
async function failureIn(response: Response) {
  const body: unknown = await response.json();
  const failure = errorFromJson(body as JsonValue, undefined, new ConnectError("no error body"));
  const [info] = failure.findDetails(ErrorInfoSchema);
  const violations = failure.findDetails(BadRequestSchema).flatMap(({ fieldViolations }) => fieldViolations);
  return { code: failure.code, message: failure.message, reason: info?.reason, fields: violations.map(({ field }) => field).toSorted() };
}

/** What a call is rejected with; throws if it is not. */
async function rejection(call: Promise<unknown>): Promise<ConnectError> {
  try {
    await call;
  } catch (error) {
    return ConnectError.from(error);
  }
  throw new Error("the call succeeded");
}
