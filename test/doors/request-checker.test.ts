import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { Refusal } from "../../src/domain/refusal.ts";
import { createRequestChecker } from "../../src/doors/request-checker.ts";
import {
  AcknowledgeOrderRequestSchema,
  ListTrackingsRequestSchema,
  MarkDeliveredRequestSchema,
  OrderTrackingService,
} from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";

const { check } = createRequestChecker([OrderTrackingService], () => new Date("2026-06-01T12:00:00Z"));
const SECONDS = 1_780_000_000n;

function brokenBy(...request: Parameters<typeof check>): string[] {
  try {
    check(...request);
    return [];
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return error.violations.map(({ field, rule }) => `${field} ${rule}`);
  }
}

describe("a time in protobuf", () => {
  const { acknowledgeOrder, markDelivered, listTrackings } = OrderTrackingService.method;

  it.each([
    [0, []],
    [999_999_999, []],
    [1_000_000_000, ["ready_at timestamp.nanos"]],
    [-1, ["ready_at timestamp.nanos"]],
  ])("with %i nanoseconds beyond its second", (nanos, expected) => {
    const message = create(AcknowledgeOrderRequestSchema, { orderId: "o", readyAt: { seconds: SECONDS, nanos } });
    expect(brokenBy(acknowledgeOrder, { message })).toEqual(expected);
  });

  it("is looked at wherever it stands", () => {
    const time = { seconds: SECONDS, nanos: 2_000_000_000 };
    const delivered = create(MarkDeliveredRequestSchema, { orderId: "o", proofOfDelivery: { deliveredAt: time } });
    expect(brokenBy(markDelivered, { message: delivered })).toEqual(["proof_of_delivery.delivered_at timestamp.nanos"]);
    const list = create(ListTrackingsRequestSchema, { createdFrom: time, createdBefore: { ...time, seconds: SECONDS + 9n } });
    expect(brokenBy(listTrackings, { message: list })).toEqual(["created_from timestamp.nanos", "created_before timestamp.nanos"]);
  });
});
