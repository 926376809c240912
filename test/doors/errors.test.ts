import { create, equals, fromBinary, toBinary } from "@bufbuild/protobuf";
import { anyIs, anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LogDamaged } from "../../src/domain/log-damaged.ts";
import { Refusal, Unavailable } from "../../src/domain/refusal.ts";
import { ERROR_SHAPES } from "../../src/doors/error-table.ts";
import { CallFailure, encodeStatus, toCallFailure } from "../../src/doors/errors.ts";
import {
  BadRequestSchema,
  type ErrorInfo,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  RetryInfoSchema,
} from "../../src/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../../src/gen/google/rpc/status_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { REASONS } from "./canned-services.ts";
import { callUnary, detailsOf, failureOf, grpcClient, OPERATOR } from "./grpc-calls.ts";
import { NOW, type OpenDoors, openDoors } from "./open-doors.ts";

const { getTracking, initTracking } = OrderTrackingService.method;

describe("errors", () => {
  let doors: OpenDoors;
  beforeAll(async () => {
    doors = await openDoors();
  });
  afterAll(() => doors[Symbol.asyncDispose]());

  it("have a shape for every reason of the protos, and for no other", () => {
    expect(Object.keys(ERROR_SHAPES).sort()).toEqual([...REASONS].sort());
  });

  describe.each(REASONS)("%s", (reason) => {
    const { code, httpStatus, retryAfterSeconds } = ERROR_SHAPES[reason];
    const orderId = `refuse-${reason}`;
    const info = create(ErrorInfoSchema, { reason, domain: "ordertrail", metadata: { current_status: "SUBMITTED" } });

    it("is told over gRPC", async () => {
      using client = grpcClient(doors.grpc.address);
      const failure = await failureOf(callUnary(client, getTracking, { orderId }));
      expect(failure.code).toBe(code);
      expect(failure.details).toContain("refused for the test");
      const details = detailsOf(failure);
      expect(equals(ErrorInfoSchema, details["ErrorInfo"] as ErrorInfo, info)).toBe(true);
      expect("RetryInfo" in details).toBe(retryAfterSeconds !== undefined);
      expect("PreconditionFailure" in details).toBe(code === Code.FailedPrecondition);
    });

    it.each([
      ["Connect", createConnectTransport],
      ["gRPC-Web", createGrpcWebTransport],
    ])("is told over %s", async (_protocol, createTransport) => {
      const client = createClient(OrderTrackingService, createTransport({ baseUrl: doors.http.url, httpVersion: "1.1" }));
      const failure = await client.getTracking({ orderId }, { headers: { authorization: OPERATOR } }).then(
        () => undefined,
        (error: unknown) => ConnectError.from(error),
      );
      expect(failure?.code).toBe(code);
      expect(failure?.findDetails(ErrorInfoSchema).map(({ reason: told, domain, metadata }) => ({ told, domain, metadata }))).toEqual([
        { told: reason, domain: "ordertrail", metadata: { current_status: "SUBMITTED" } },
      ]);
      expect(failure?.findDetails(RetryInfoSchema).map(({ retryDelay }) => retryDelay?.seconds)).toEqual(
        retryAfterSeconds === undefined ? [] : [BigInt(retryAfterSeconds)],
      );
      expect(
        failure
          ?.findDetails(PreconditionFailureSchema)
          .flatMap(({ violations }) => violations.map(({ type, subject }) => ({ type, subject }))),
      ).toEqual(code === Code.FailedPrecondition ? [{ type: reason, subject: orderId }] : []);
    });

    it("is told over REST", async () => {
      const response = await fetch(`${doors.http.url}/orders/tracking/${orderId}?min_position=0`, { headers: { authorization: OPERATOR } });
      expect(response.status).toBe(httpStatus);
      expect(response.headers.get("retry-after")).toBe(retryAfterSeconds === undefined ? null : String(retryAfterSeconds));
      expect(response.headers.has("www-authenticate")).toBe(httpStatus === 401);
      expect(await response.json()).toEqual({
        detail: `refused for the test: ${reason}`,
        code: reason,
        timestamp: NOW.toISOString(),
        path: `/orders/tracking/${orderId}`,
      });
    });
  });

  it("hide a fault, and log it once with its cause and the id that was told", async () => {
    using client = grpcClient(doors.grpc.address);
    const failure = await failureOf(callUnary(client, getTracking, { orderId: "fault" }, { requestId: "trace-of-the-fault" }));
    expect(failure.code).toBe(Code.Internal);
    expect(failure.details).not.toContain("secret");
    expect((detailsOf(failure)["ErrorInfo"] as ErrorInfo).metadata).toEqual({ trace_id: "trace-of-the-fault" });
    const lines = doors.logged.filter((line) => line["trace_id"] === "trace-of-the-fault");
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatchObject({
      level: 50,
      code: "INTERNAL",
      method: "ordertrail.v1.OrderTrackingService/GetTracking",
      err: { message: "the secret cause" },
    });
  });

  it("tell every violation in BadRequest, with its path in the names of the protos", async () => {
    const client = createClient(OrderTrackingService, createConnectTransport({ baseUrl: doors.http.url, httpVersion: "1.1" }));
    const request = {
      orderId: "o 1",
      storeId: "s",
      customerId: "c",
      items: [{ itemId: "i", name: "n", quantity: 1, unitPrice: { currency: "XQX" } }],
    };
    const failure = await client.initTracking(request, { headers: { authorization: OPERATOR } }).then(
      () => undefined,
      (error: unknown) => ConnectError.from(error),
    );
    expect(
      failure
        ?.findDetails(BadRequestSchema)
        .flatMap(({ fieldViolations }) => fieldViolations.map(({ field, reason }) => ({ field, reason }))),
    ).toEqual([
      { field: "order_id", reason: "STRING_PATTERN" },
      { field: "items[0].unit_price.currency", reason: "CURRENCY_KNOWN" },
    ]);
  });

  it("fit into the trailers of gRPC, however many violations there are", async () => {
    using client = grpcClient(doors.grpc.address);
    const items = Array.from({ length: 200 }, () => ({ itemId: "not an id", name: "", quantity: -1 }));
    const failure = await failureOf(callUnary(client, initTracking, { orderId: "o", storeId: "s", customerId: "c", items }));
    expect(failure.code).toBe(Code.InvalidArgument);
    expect(failure.details).toContain("and 599 more");
    expect(Object.keys(detailsOf(failure))).toEqual(["ErrorInfo", "BadRequest"]);
  });
});

describe("toCallFailure()", () => {
  const named = (name: string, more: object = {}) => Object.assign(new Error("connection to secret-host refused"), { name, ...more });

  it.each([
    "MongoNetworkError",
    "MongoNetworkTimeoutError",
    "MongoServerSelectionError",
    "MongoNotConnectedError",
    "MongoPoolClearedError",
  ])("takes a %s to pass", (name) => {
    const failure = toCallFailure(named(name), "t");
    expect(failure.reason).toBe("UNAVAILABLE");
    expect(failure.message).not.toContain("secret");
  });

  it("takes a server's error to pass only when the member is no primary", () => {
    expect(toCallFailure(named("MongoServerError", { code: 10107 }), "t").reason).toBe("UNAVAILABLE");
    expect(toCallFailure(named("MongoServerError", { code: 11000 }), "t").reason).toBe("INTERNAL");
  });

  it("shows what an Unavailable says, but not its cause", () => {
    const failure = toCallFailure(new Unavailable("the log has no primary", { cause: new Error("secret") }), "t");
    expect(failure).toMatchObject({ reason: "UNAVAILABLE", message: "the log has no primary" });
  });

  it("says that the log is damaged, and where", () => {
    expect(toCallFailure(new LogDamaged(7, "there is no entry"), "trace-1")).toMatchObject({
      reason: "LOG_DAMAGED",
      message: "the log is damaged at position 7: there is no entry",
      shape: { code: Code.DataLoss, httpStatus: 500 },
      metadata: { position: "7", trace_id: "trace-1" },
    });
  });

  it("tells a Refusal as it is", () => {
    const failure = toCallFailure(new Refusal("CONFLICT", "try again", { version: "3" }), "t", "order-1");
    expect(failure).toMatchObject({ reason: "CONFLICT", message: "try again", metadata: { version: "3" }, subject: "order-1" });
  });

  it.each([undefined, null, "text", 7, {}, new TypeError("x is not a function")])("takes %o for a fault", (thrown) => {
    expect(toCallFailure(thrown, "trace-1")).toMatchObject({ reason: "INTERNAL", metadata: { trace_id: "trace-1" } });
  });
});

describe("encodeStatus()", () => {
  it("stays within the headers that HTTP/2 peers take, and keeps the first violations", () => {
    const violations = Array.from({ length: 100 }, (_, index) => ({
      field: `items[${index}].item_id`,
      rule: "string.pattern",
      detail: "x".repeat(80),
    }));
    const status = fromBinary(StatusSchema, encodeStatus(new CallFailure("VALIDATION_FAILED", "many", { violations })));
    expect(toBinary(StatusSchema, status).byteLength).toBeLessThan(5_000);
    const [badRequest] = status.details.flatMap((any) => (anyIs(any, BadRequestSchema) ? [anyUnpack(any, BadRequestSchema)] : []));
    expect(badRequest?.fieldViolations[0]?.field).toBe("items[0].item_id");
    expect(badRequest?.fieldViolations.length).toBeGreaterThan(20);
  });

  it("can write a message with half a surrogate pair", () => {
    expect(() => encodeURI(new CallFailure("INTERNAL", "\ud800").message)).not.toThrow();
    expect(encodeStatus(new CallFailure("INTERNAL", "\ud800")).byteLength).toBeGreaterThan(0);
  });
});
