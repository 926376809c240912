import { status } from "@grpc/grpc-js";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { callBytes, grpcClient } from "./grpc-calls.ts";
import { messageBytes } from "./malformed-requests.ts";
import { type OpenDoors, openDoors } from "./open-doors.ts";

const RUNS = 400;
const { initTracking } = OrderTrackingService.method;

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
      fc.asyncProperty(messageBytes, async (bytes) => {
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
