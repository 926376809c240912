import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Refusal } from "../../src/domain/refusal.ts";
import { createRequestChecker } from "../../src/doors/request-checker.ts";
import {
  DriverLocationService,
  type StreamLocationsRequest,
  StreamLocationsRequestSchema,
} from "../../src/gen/ordertrail/v1/driver_location_service_pb.js";
import { hasOnlyGoodPoints } from "../../src/services/point-rules.ts";

/** Numbers in and about a range, and what is no number. */
const about = (least: number, most: number) =>
  fc.oneof(
    { weight: 8, arbitrary: fc.double({ min: least, max: most, noNaN: true }) },
    fc.constantFrom(least, most, least - 1e-9, most + 1e-9, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0),
  );
const maybe = <Value>(value: fc.Arbitrary<Value>) => fc.option(value, { nil: undefined, freq: 12 });
const seconds = fc.oneof(
  { weight: 8, arbitrary: fc.bigInt({ min: 946_684_800n, max: 4_102_444_799n }) },
  fc.constantFrom(946_684_799n, 4_102_444_800n, -1n, 2n ** 62n),
);
const nanos = fc.oneof({ weight: 8, arbitrary: fc.nat({ max: 999_999_999 }) }, fc.constantFrom(-1, 1_000_000_000));
const point = fc.record({
  orderId: fc.oneof(
    { weight: 8, arbitrary: fc.stringMatching(/^[A-Za-z0-9_-]{1,64}$/) },
    fc.string({ maxLength: 70 }),
    fc.constant("a".repeat(65)),
  ),
  latitude: maybe(about(-90, 90)),
  longitude: maybe(about(-180, 180)),
  headingDeg: maybe(about(0, 360)),
  speedMps: maybe(about(0, 100)),
  accuracyM: maybe(about(0, 100_000)),
  recordedAt: maybe(fc.record({ seconds, nanos })),
});

describe("the quick look at points", () => {
  const { check } = createRequestChecker([DriverLocationService], () => new Date());

  /** By the schema's rules alone. */
  function keepsRules(message: StreamLocationsRequest): boolean {
    try {
      check(DriverLocationService.method.streamLocations, { message });
      return true;
    } catch (error) {
      if (error instanceof Refusal && error.reason === "VALIDATION_FAILED") return false;
      throw error;
    }
  }

  it("finds good what the schema's rules find good, and nothing else", () => {
    let good = 0;
    fc.assert(
      fc.property(fc.array(point, { maxLength: 2 }), (points) => {
        const defined = points.map((each) => Object.fromEntries(Object.entries(each).filter(([, value]) => value !== undefined)));
        const message = create(StreamLocationsRequestSchema, { points: defined });
        const isGood = keepsRules(message);
        expect(hasOnlyGoodPoints(message)).toBe(isGood);
        if (isGood && points.length > 0) good++;
      }),
      { numRuns: 3000 },
    );
    expect(good).toBeGreaterThan(300);
  });
});
