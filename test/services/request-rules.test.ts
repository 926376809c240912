import { create, type JsonObject } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import {
  AssignDriverRequestSchema,
  GetTrackingRequestSchema,
  InitTrackingRequestSchema,
  ListTrackingsRequestSchema,
  MarkDeliveredRequestSchema,
  UpdateLocationRequestSchema,
  UpdateSubstitutionsRequestSchema,
} from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { checkRequest } from "../../src/services/request-rules.ts";

const NOW = new Date("2026-06-01T12:00:00Z");

const brokenBy = (request: Parameters<typeof checkRequest>[0]) => checkRequest(request, NOW).map(({ field, rule }) => `${field} ${rule}`);
const inSeconds = (seconds: number) => timestampFromMs(NOW.getTime() + seconds * 1000);

describe("the rules of requests", () => {
  it("have nothing to say about most", () => {
    expect(brokenBy(create(GetTrackingRequestSchema, { orderId: "not an id" }))).toEqual([]);
  });

  describe("on currencies", () => {
    const items = (...currencies: string[]) => currencies.map((currency) => ({ itemId: "i", unitPrice: { currency } }));

    it("know those of ISO 4217", () => {
      expect(brokenBy(create(InitTrackingRequestSchema, { items: items("EUR", "JPY", "QQQ", "USD", "XQX") }))).toEqual([
        "items[2].unit_price.currency currency.known",
        "items[4].unit_price.currency currency.known",
      ]);
    });

    it("leave what is not three letters to the schema", () => {
      expect(brokenBy(create(InitTrackingRequestSchema, { items: items("", "eur", "EURO") }))).toEqual([]);
    });

    it("look at both sides of a substitution, and at a delivery's fee", () => {
      const [bad] = items("QQQ");
      expect(
        brokenBy(
          create(UpdateSubstitutionsRequestSchema, {
            substitutions: [{ originalItem: { itemId: "i" } }, { originalItem: bad, replacementItem: bad }],
          }),
        ),
      ).toEqual([
        "substitutions[1].original_item.unit_price.currency currency.known",
        "substitutions[1].replacement_item.unit_price.currency currency.known",
      ]);
      expect(brokenBy(create(AssignDriverRequestSchema, { delivery: { fee: { currency: "QQQ" } } }))).toEqual([
        "delivery.fee.currency currency.known",
      ]);
    });
  });

  describe("on times", () => {
    it.each([
      [-3600, []],
      [60, []],
      [61, ["recorded_at time.not_ahead"]],
    ])("take a location of %i seconds from now, or not", (seconds, expected) => {
      expect(brokenBy(create(UpdateLocationRequestSchema, { recordedAt: inSeconds(seconds) }))).toEqual(expected);
    });

    it.each([
      [60, []],
      [61, ["proof_of_delivery.delivered_at time.not_ahead"]],
    ])("take a delivery of %i seconds from now, or not", (seconds, expected) => {
      expect(brokenBy(create(MarkDeliveredRequestSchema, { proofOfDelivery: { deliveredAt: inSeconds(seconds) } }))).toEqual(expected);
    });

    it.each([
      [0, 1, []],
      [0, 0, ["created_from time.before_created_before"]],
      [1, 0, ["created_from time.before_created_before"]],
    ])("take a list from %i to %i, or not", (from, before, expected) => {
      expect(brokenBy(create(ListTrackingsRequestSchema, { createdFrom: inSeconds(from), createdBefore: inSeconds(before) }))).toEqual(
        expected,
      );
    });
  });

  describe("on metadata", () => {
    const withMetadata = (metadata: JsonObject) => brokenBy(create(InitTrackingRequestSchema, { orderId: "o", metadata }));
    const nested = (levels: number): JsonObject => (levels === 1 ? { leaf: 1 } : { a: nested(levels - 1) });

    it("allow five levels, lists among them", () => {
      expect(withMetadata(nested(5))).toEqual([]);
      expect(withMetadata(nested(6))).toEqual(["metadata.a.a.a.a.a metadata.depth"]);
      expect(withMetadata({ a: [[[[]]]] })).toEqual([]);
      expect(withMetadata({ a: [[[[[]]]]] })).toEqual(["metadata.a[0][0][0][0] metadata.depth"]);
    });

    it("allow keys of letters, digits, _ and - at every level", () => {
      expect(withMetadata({ "a_B-9": { "": 1 }, list: [{ "a.b": 1 }], ["x".repeat(65)]: 1 })).toEqual([
        'metadata.a_B-9[""] metadata.key',
        'metadata.list[0]["a.b"] metadata.key',
        `metadata["${"x".repeat(64)}"] metadata.key`,
      ]);
      expect(withMetadata(JSON.parse('{"__proto__":1}'))).toEqual(['metadata["__proto__"] metadata.key']);
    });

    it("allow 8 KiB as JSON, in bytes", () => {
      const wrapping = JSON.stringify({ a: "" }).length;
      expect(withMetadata({ a: "x".repeat(8192 - wrapping) })).toEqual([]);
      expect(withMetadata({ a: "x".repeat(8193 - wrapping) })).toEqual(["metadata metadata.size"]);
      expect(withMetadata({ a: "ä".repeat(4096) })).toEqual(["metadata metadata.size"]);
    });

    it("refuse numbers that JSON cannot write", () => {
      expect(withMetadata({ a: Number.NaN, b: [Number.POSITIVE_INFINITY] })).toEqual([
        "metadata.a metadata.number",
        "metadata.b[0] metadata.number",
      ]);
    });
  });
});
