import { once } from "node:events";
import { createRequire } from "node:module";
import { fromBinary } from "@bufbuild/protobuf";
import { type ClientReadableStream, credentials, loadPackageDefinition, status } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Health, HealthCheckResponse_ServingStatus } from "../../src/gen/grpc/health/v1/health_pb.js";
import { Door } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OperationsService, RebuildProjectionResponseSchema } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { eventually } from "../support/eventually.ts";
import { callBytes, callUnary, detailsOf, failureOf, grpcClient, openStream } from "./grpc-calls.ts";
import { MAX_DEADLINE_MS, MAX_REQUEST_BYTES, type OpenDoors, openDoors } from "./open-doors.ts";

const { getTracking, listTrackings, updateStatus, initTracking } = OrderTrackingService.method;
const { rebuildProjection } = OperationsService.method;

describe("the gRPC door", () => {
  let doors: OpenDoors;
  let client: ReturnType<typeof grpcClient>;
  beforeAll(async () => {
    doors = await openDoors();
  });
  beforeEach(() => {
    client = grpcClient(doors.grpc.address);
    return () => client.close();
  });
  afterAll(() => doors[Symbol.asyncDispose]());

  it("answers a unary call and tells the handler who calls", async () => {
    const { order } = await callUnary(client, getTracking, { orderId: "order-1" }, { requestId: "trace-1" });
    expect(order).toMatchObject({ orderId: "order-1", position: 12n });
    expect(doors.asked.at(-1)?.call).toMatchObject({ traceId: "trace-1", door: Door.GRPC, caller: { subject: "ann" } });
  });

  it("answers with the caller's request id, or a new one when it may not be stored", async () => {
    const own = await callBytes(client, getTracking, new Uint8Array([10, 1, 97]), { requestId: "mine-1" });
    expect(own.headers.get("x-request-id")).toEqual(["mine-1"]);
    const replaced = await callBytes(client, getTracking, new Uint8Array([10, 1, 97]), { requestId: "no spaces, please" });
    expect(replaced.headers.get("x-request-id")[0]).toMatch(/^[0-9a-f-]{36}$/);
  });

  it.each([
    ["no token", ""],
    ["a token that does not verify", "Bearer nobody"],
    ["another scheme", "Basic operator-ann"],
  ])("refuses %s before it reads the request", async (_what, authorization) => {
    const failure = await failureOf(callBytes(client, getTracking, new Uint8Array([255]), { authorization }));
    expect(failure.code).toBe(status.UNAUTHENTICATED);
  });

  it("refuses a method that is not open to the caller's role", async () => {
    const failure = await failureOf(callUnary(client, initTracking, { orderId: "o" }, { authorization: "Bearer customer-ann" }));
    expect(failure.code).toBe(status.PERMISSION_DENIED);
  });

  it.each([
    ["bytes that are no message", [255, 255, 255]],
    ["a string that is not UTF-8", [10, 2, 0xc3, 0x28]],
    ["a message that breaks off", [10, 200, 1]],
  ])("calls %s malformed", async (_what, bytes) => {
    const failure = await failureOf(callBytes(client, getTracking, new Uint8Array(bytes)));
    expect(failure.code).toBe(status.INVALID_ARGUMENT);
    expect(detailsOf(failure)["ErrorInfo"]).toMatchObject({ reason: "MALFORMED_REQUEST" });
  });

  it("calls metadata that is nested without end malformed", async () => {
    // Struct { fields { key: "a" value: Value { struct_value: Struct { … } } } }, from the inside out.
    const field = (number: number, body: Uint8Array) => Buffer.concat([Buffer.from([number * 8 + 2]), varint(body.byteLength), body]);
    let struct = Buffer.alloc(0);
    for (let level = 0; level < 2_000; level += 1)
      struct = field(1, Buffer.concat([field(1, Buffer.from("a")), field(2, field(5, struct))]));
    const failure = await failureOf(callBytes(client, initTracking, field(7, struct)));
    expect(detailsOf(failure)["ErrorInfo"]).toMatchObject({ reason: "MALFORMED_REQUEST" });
  });

  it("refuses a message over the limit", async () => {
    const failure = await failureOf(callBytes(client, getTracking, new Uint8Array(MAX_REQUEST_BYTES + 1)));
    expect(failure.code).toBe(status.RESOURCE_EXHAUSTED);
    expect(detailsOf(failure)["ErrorInfo"]).toMatchObject({ reason: "PAYLOAD_TOO_LARGE" });
    const farOver = await failureOf(callBytes(client, getTracking, new Uint8Array(MAX_REQUEST_BYTES * 5)));
    expect(farOver.code).toBe(status.RESOURCE_EXHAUSTED);
  });

  it("answers DEADLINE_EXCEEDED when a handler heeds nothing, by its own limit", async () => {
    const startedAt = performance.now();
    const failure = await failureOf(callUnary(client, getTracking, { orderId: "deaf" }));
    expect(failure.code).toBe(status.DEADLINE_EXCEEDED);
    expect(detailsOf(failure)["ErrorInfo"]).toMatchObject({ reason: "DEADLINE_EXCEEDED" });
    expect(performance.now() - startedAt).toBeLessThan(MAX_DEADLINE_MS);
  });

  it("aborts the handler's signal at the caller's deadline", async () => {
    const failure = await failureOf(callUnary(client, getTracking, { orderId: "slow" }, { options: { deadline: Date.now() + 100 } }));
    expect(failure.code).toBe(status.DEADLINE_EXCEEDED);
    const signal = doors.asked.at(-1)?.call.signal;
    await eventually(() => expect(signal?.aborted).toBe(true));
  });

  it("aborts the handler's signal when the caller leaves", async () => {
    const failure = await failureOf(
      callUnary(
        client,
        getTracking,
        { orderId: "slow" },
        {
          requestId: "left",
          onCall: (call) => void eventually(() => expect(doors.asked.at(-1)?.call.traceId).toBe("left")).then(() => call.cancel()),
        },
      ),
    );
    expect(failure.code).toBe(status.CANCELLED);
    await eventually(() => expect(doors.logged.find((line) => line["trace_id"] === "left")).toMatchObject({ code: "CANCELLED" }));
    expect(doors.asked.at(-1)?.call.signal.aborted).toBe(true);
  });

  it("leaves the signal of an answered call alone", async () => {
    await callUnary(client, listTrackings, {});
    await callUnary(client, listTrackings, {});
    expect(doors.asked.at(-2)?.call.signal.aborted).toBe(false);
  });

  it("streams answers to their end", async () => {
    const answers = await readAll(openStream(client, rebuildProjection, { name: "order_tracking" }));
    expect(answers.map(({ position, done }) => [position, done])).toEqual([
      [1n, false],
      [2n, false],
      [3n, true],
    ]);
  });

  it("tells what a stream fails with after its first answers", async () => {
    const stream = openStream(client, rebuildProjection, { name: "broken" });
    const seen: unknown[] = [];
    const failure = await failureOf(
      (async () => {
        for await (const bytes of stream) seen.push(bytes);
      })(),
    );
    expect(seen).toHaveLength(2);
    expect(failure.code).toBe(status.INTERNAL);
    expect(detailsOf(failure)["ErrorInfo"]).toMatchObject({ reason: "INTERNAL" });
  });

  it("validates the request of a stream", async () => {
    const failure = await failureOf(readAll(openStream(client, rebuildProjection, { name: "No Name" })));
    expect(detailsOf(failure)["BadRequest"]).toMatchObject({ fieldViolations: [{ field: "name" }] });
  });

  it("makes a stream no faster than its reader, and ends it when the reader leaves", async () => {
    const stream = openStream(client, rebuildProjection, { name: "endless" });
    await once(stream, "readable");
    const { signal } = await eventually(() => {
      const last = doors.asked.at(-1);
      expect(last?.request).toMatchObject({ name: "endless" });
      return last?.call ?? expect.fail();
    });
    // Nobody reads: what lies between handler and reader fills, and then the handler waits.
    await untilSteady(doors.streamed);
    expect(signal.aborted).toBe(false);
    stream.on("error", () => undefined);
    stream.cancel();
    await eventually(() => expect(signal.aborted).toBe(true));
    const logged = () => doors.logged.filter((line) => line["method"] === "ordertrail.v1.OperationsService/RebuildProjection");
    await eventually(() => expect(logged().at(-1)).toMatchObject({ code: "CANCELLED" }));
  });

  it("describes its services by reflection, with all that they import", async () => {
    const reflectionProto = createRequire(import.meta.url).resolve("@grpc/reflection/build/proto/grpc/reflection/v1/reflection.proto");
    const { grpc } = loadPackageDefinition(loadSync(reflectionProto)) as never as {
      grpc: {
        reflection: {
          v1: { ServerReflection: new (address: string, creds: unknown) => { ServerReflectionInfo(): ReflectionCall; close(): void } };
        };
      };
    };
    const reflection = new grpc.reflection.v1.ServerReflection(doors.grpc.address, credentials.createInsecure());
    const call = reflection.ServerReflectionInfo();
    call.write({ listServices: "*" });
    const [list] = await once(call, "data");
    expect(list.listServicesResponse.service.map(({ name }: { name: string }) => name).sort()).toEqual([
      "grpc.health.v1.Health",
      "ordertrail.v1.OperationsService",
      "ordertrail.v1.OrderTrackingService",
    ]);
    for (const file of [
      "google/api/annotations.proto",
      "buf/validate/validate.proto",
      "google/protobuf/struct.proto",
      "google/rpc/error_details.proto",
    ]) {
      call.write({ fileByFilename: file });
      const [answer] = await once(call, "data");
      expect(answer.fileDescriptorResponse?.fileDescriptorProto.length, file).toBeGreaterThan(0);
    }
    call.end();
    reflection.close();
  });

  it("tells by the health service whether it is ready", async () => {
    const health = async () => (await callUnary(client, Health.method.check, { service: "ordertrail.v1.OrderTrackingService" })).status;
    expect(await health()).toBe(HealthCheckResponse_ServingStatus.SERVING);
    doors.setReady(false);
    await eventually(async () => expect(await health()).toBe(HealthCheckResponse_ServingStatus.NOT_SERVING));
    doors.setReady(true);
    await eventually(async () => expect(await health()).toBe(HealthCheckResponse_ServingStatus.SERVING));
  });
});

describe("the gRPC door, stopping", () => {
  it("lets a call under way finish, ends streams with UNAVAILABLE, and takes no new call", async () => {
    await using doors = await openDoors({ drainTimeoutMs: 5_000 });
    using client = grpcClient(doors.grpc.address);
    const stream = openStream(client, rebuildProjection, { name: "endless" });
    const streamEnd = failureOf(readAll(stream));
    const slow = failureOf(callUnary(client, updateStatus, { orderId: "slow", status: 2 }, { requestId: "under-way" }));
    await eventually(() => expect(doors.asked.some(({ call }) => call.traceId === "under-way")).toBe(true));
    const stopped = doors.grpc.stop();
    expect((await streamEnd).code).toBe(status.UNAVAILABLE);
    // It ends by its own deadline, and not by the stop.
    expect((await slow).code).toBe(status.DEADLINE_EXCEEDED);
    await stopped;
    using late = grpcClient(doors.grpc.address);
    expect((await failureOf(callUnary(late, getTracking, { orderId: "o" }))).code).toBe(status.UNAVAILABLE);
  });

  it("cuts off what does not end within the drain timeout", async () => {
    await using doors = await openDoors({ drainTimeoutMs: 50 });
    using client = grpcClient(doors.grpc.address);
    const slow = failureOf(callUnary(client, getTracking, { orderId: "deaf" }, { options: { deadline: Date.now() + MAX_DEADLINE_MS } }));
    await eventually(() => expect(doors.asked).toHaveLength(1));
    await doors.grpc.stop();
    await slow;
    expect(doors.logged.some(({ msg }) => msg.includes("cut off"))).toBe(true);
  });

  it("says which address cannot be had", async () => {
    await using doors = await openDoors();
    const port = Number(doors.grpc.address.split(":")[1]);
    await expect(openDoors({ grpcPort: port })).rejects.toThrow("EADDRINUSE");
  });
});

type ReflectionCall = NodeJS.EventEmitter & { write(request: object): void; end(): void };

async function readAll(stream: ClientReadableStream<Buffer>) {
  const answers = [];
  for await (const bytes of stream) answers.push(fromBinary(RebuildProjectionResponseSchema, bytes));
  return answers;
}

/** Waits until a figure has been the same for several looks. */
async function untilSteady(figure: () => number): Promise<void> {
  const looks: number[] = [];
  await eventually(() => {
    looks.push(figure());
    expect(looks.slice(-5)).toEqual(new Array(5).fill(looks.at(-1)));
  });
}

function varint(value: number): Buffer {
  const bytes = [];
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest & 127) | 128);
  }
}
