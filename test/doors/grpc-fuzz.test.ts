import { create, toBinary } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { InitTrackingRequestSchema, OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { callBytes, grpcClient } from "./grpc-calls.ts";
import { type OpenDoors, openDoors } from "./open-doors.ts";

const RUNS = 400;
const { initTracking } = OrderTrackingService.method;

const valid = toBinary(
  InitTrackingRequestSchema,
  create(InitTrackingRequestSchema, {
    orderId: "o",
    storeId: "s",
    customerId: "c",
    items: [{ itemId: "i", name: "n", quantity: 2, unitPrice: { amountMinor: 5n, currency: "EUR" } }],
    recipient: { name: "n", address: { lines: ["a"], latitude: 1 } },
    metadata: { a: { b: [1, null, "c"] } },
  }),
);

/** A valid message, some of whose bytes are others, or are missing. */
const mangled = fc
  .tuple(fc.array(fc.tuple(fc.nat(valid.byteLength - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }), fc.nat(valid.byteLength))
  .map(([changes, end]) => {
    const bytes = Uint8Array.from(valid);
    for (const [index, byte] of changes) bytes[index] = byte;
    return bytes.slice(0, end % 3 === 0 ? end : undefined);
  });

describe("the gRPC door, whatever it is sent", () => {
  let doors: OpenDoors;
  let client: ReturnType<typeof grpcClient>;
  beforeAll(async () => {
    doors = await openDoors();
    client = grpcClient(doors.grpc.address);
  });
  afterAll(async () => {
    client.close();
    await doors[Symbol.asyncDispose]();
  });

  it("answers, or says what is wrong with the request", async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(mangled, fc.uint8Array({ maxLength: 100 })), async (bytes) => {
        const code = await callBytes(client, initTracking, bytes).then(
          () => status.OK,
          (error: { code: number }) => error.code,
        );
        expect([status.OK, status.INVALID_ARGUMENT]).toContain(code);
      }),
      { numRuns: RUNS },
    );
    expect(doors.logged.filter(({ level }) => level >= 50)).toEqual([]);
  });
});
