import { create, type DescMessage, type JsonObject } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { readMessage } from "../../src/doors/json-reader.ts";
import { writeMessage } from "../../src/doors/json-writer.ts";
import { ErrorInfoSchema, RetryInfoSchema } from "../../src/gen/google/rpc/error_details_pb.js";
import { LogEntrySchema } from "../../src/gen/ordertrail/events/v1/log_entry_pb.js";
import { DeliveryProvider, MoneySchema, OrderStatus, SealedSchema } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { DriverLocationSchema, OrderTrackingSchema } from "../../src/gen/ordertrail/v1/order_tracking_pb.js";
import { HistoryEventSchema } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";

const brokenBy = (desc: DescMessage, json: JsonObject) => readMessage(desc, json).violations.map(({ field, rule }) => `${field} ${rule}`);

describe("readMessage()", () => {
  it.each<[unknown, bigint | undefined]>([
    [12, 12n],
    ["12", 12n],
    ["-9223372036854775808", -9223372036854775808n],
    ["9223372036854775808", undefined],
    [2 ** 53, undefined],
    [1.5, undefined],
    ["1.5", undefined],
    ["", undefined],
    [" 1", undefined],
    [true, undefined],
  ])("reads %j as a 64-bit integer, or not", (value, expected) => {
    const { message, violations } = readMessage(MoneySchema, { amount_minor: value as number });
    if (expected === undefined) expect(violations).toMatchObject([{ field: "amount_minor", rule: "type" }]);
    else expect(message).toMatchObject({ amountMinor: expected });
  });

  it.each<[unknown, number | undefined]>([
    [1.5, 1.5],
    ["1.5e2", 150],
    ["-0", -0],
    ["NaN", undefined],
    ["Infinity", undefined],
    ["0x10", undefined],
    ["", undefined],
    [Number.POSITIVE_INFINITY, undefined],
  ])("reads %j as a double, or not", (value, expected) => {
    const { message, violations } = readMessage(DriverLocationSchema, { latitude: value as number });
    if (expected === undefined) expect(violations).toMatchObject([{ field: "latitude", rule: "type" }]);
    else expect(message).toMatchObject({ latitude: expected });
  });

  it("reads bytes in base64, maps, durations, booleans and unsigned numbers", () => {
    expect(readMessage(SealedSchema, { key_id: "AQI=" }).message).toMatchObject({ keyId: new Uint8Array([1, 2]) });
    expect(brokenBy(SealedSchema, { key_id: "no base64!", nonce: 7 })).toEqual(["key_id type", "nonce type"]);
    expect(readMessage(ErrorInfoSchema, { metadata: { a: "1", b: "2" } }).message).toMatchObject({ metadata: { a: "1", b: "2" } });
    expect(brokenBy(ErrorInfoSchema, { metadata: { a: "1", b: 2 } })).toEqual(['metadata["b"] type']);
    expect(brokenBy(ErrorInfoSchema, { metadata: [] })).toEqual(["metadata type"]);
    expect(readMessage(RetryInfoSchema, { retry_delay: "1.5s" }).message).toMatchObject({
      retryDelay: { seconds: 1n, nanos: 500_000_000 },
    });
    expect(brokenBy(RetryInfoSchema, { retry_delay: "soon" })).toEqual(["retry_delay type"]);
    expect(readMessage(HistoryEventSchema, { inferred: true, version: 4294967295 }).message).toMatchObject({
      inferred: true,
      version: 4294967295,
    });
    expect(brokenBy(HistoryEventSchema, { inferred: "true", version: 4294967296 })).toEqual(["inferred type", "version type"]);
  });

  it.each<[string, string | undefined]>([
    ["2024-02-29T23:59:59.123Z", "2024-02-29T23:59:59.123Z"],
    ["2026-06-30T12:00:00+02:00", "2026-06-30T10:00:00.000Z"],
    ["2026-02-29T00:00:00Z", undefined],
    ["2026-04-31T00:00:00Z", undefined],
    ["2026-00-01T00:00:00Z", undefined],
    ["2026-01-00T00:00:00Z", undefined],
    ["2026-11-30T24:00:00Z", undefined],
    ["2026-11-30T23:59:60Z", undefined],
    ["2026-11-30T00:00:00", undefined],
  ])("reads %s as a time, or not", (text, expected) => {
    const { message, violations } = readMessage(HistoryEventSchema, { recorded_at: text });
    if (expected === undefined) expect(violations).toMatchObject([{ field: "recorded_at", rule: "type" }]);
    else expect(message).toMatchObject({ recordedAt: timestampFromDate(new Date(expected)) });
  });

  it("keeps the places of list elements that do not fit, so that later paths are right", () => {
    const { message, violations } = readMessage(OrderTrackingSchema, { items: [{ item_id: "a" }, 7, { item_id: "c" }] });
    expect(violations).toMatchObject([{ field: "items[1]", rule: "type" }]);
    expect(message).toMatchObject({ items: [{ itemId: "a" }, { itemId: "" }, { itemId: "c" }] });
  });

  it("calls what no single rule forbids malformed, such as two fields of a oneof", () => {
    expect(() => readMessage(LogEntrySchema, { events: [{ store_notified: {}, picking_started: {} }] })).toThrow("does not fit its schema");
  });

  it("tells of a hundred violations at most", () => {
    const json = Object.fromEntries(Array.from({ length: 1_000 }, (_, index) => [`x${index}`, 1]));
    expect(readMessage(MoneySchema, json).violations).toHaveLength(100);
  });
});

describe("writeMessage()", () => {
  it("leaves out empty strings and unspecified enums, and keeps lists, numbers and booleans", () => {
    expect(writeMessage(HistoryEventSchema, create(HistoryEventSchema))).toEqual({ position: "0", version: 0, inferred: false });
    expect(writeMessage(OrderTrackingSchema, create(OrderTrackingSchema, { orderId: "o" }))).toEqual({
      order_id: "o",
      status_history: [],
      milestones: [],
      substitutions: [],
      items: [],
      version: 0,
      position: "0",
    });
  });

  it("writes enums by their bare names, and values that it does not know as numbers", () => {
    expect(
      writeMessage(
        OrderTrackingSchema,
        create(OrderTrackingSchema, { currentStatus: OrderStatus.IN_TRANSIT, deliveryProvider: DeliveryProvider.IN_HOUSE }),
      ),
    ).toMatchObject({ current_status: "IN_TRANSIT", delivery_provider: "IN_HOUSE" });
    expect(writeMessage(OrderTrackingSchema, create(OrderTrackingSchema, { currentStatus: 99 as OrderStatus }))).toMatchObject({
      current_status: 99,
    });
  });

  it("keeps optional fields that are set to nothing, and leaves out those that are not set", () => {
    expect(writeMessage(DriverLocationSchema, create(DriverLocationSchema, { speedMps: 0 }))).toEqual({
      latitude: 0,
      longitude: 0,
      speed_mps: 0,
    });
  });

  it("leaves free data and maps as they are", () => {
    const metadata = { status: "", ORDER_STATUS: "ORDER_STATUS_IN_TRANSIT", list: [], nothing: null };
    expect(writeMessage(OrderTrackingSchema, create(OrderTrackingSchema, { metadata }))).toMatchObject({ metadata });
    expect(writeMessage(ErrorInfoSchema, create(ErrorInfoSchema, { metadata: { a: "" } }))).toEqual({ metadata: { a: "" } });
  });
});
