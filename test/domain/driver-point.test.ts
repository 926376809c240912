import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type DriverPoint, distanceMeters, judgePoint, newTrail, type PointFault } from "../../src/domain/driver-point.ts";

const NOW = Date.parse("2026-06-01T12:00:00Z");
const STALE_MS = 300_000;
/** One degree of latitude. */
const DEGREE_M = 111_195;

/** A point some metres north of the equator, measured some seconds from now. */
const at = (seconds: number, meters = 0, accuracyM?: number): DriverPoint => ({
  latitude: meters / DEGREE_M,
  longitude: 0,
  accuracyM,
  recordedAt: new Date(NOW + seconds * 1000),
});

function judge(...points: DriverPoint[]): (PointFault | "taken")[] {
  const trail = newTrail();
  return points.map((point) => judgePoint(trail, point, NOW, STALE_MS) ?? "taken");
}

describe("a driver's point", () => {
  it.each<[string, DriverPoint[], (PointFault | "taken")[]]>([
    ["the first is taken", [at(0)], ["taken"]],
    ["of the same time is a duplicate", [at(-2), at(-2, 5)], ["taken", "DUPLICATE"]],
    ["from before the newest is out of order", [at(-2), at(-3)], ["taken", "OUT_OF_ORDER"]],
    ["measured 300 s ago is taken, before that it is stale", [at(-301), at(-300)], ["STALE", "taken"]],
    ["measured 60 s ahead is taken, beyond that it is in the future", [at(61), at(60)], ["FUTURE", "taken"]],
    ["at 199 km/h is taken", [at(-10), at(0, 552)], ["taken", "taken"]],
    ["at 201 km/h is impossible", [at(-10), at(0, 559)], ["taken", "IMPOSSIBLE"]],
    ["within the accuracies may be the same place", [at(-0.1, 0, 8), at(0, 15, 8)], ["taken", "taken"]],
    ["beyond the accuracies may not", [at(-0.1, 0, 8), at(0, 17, 8)], ["taken", "IMPOSSIBLE"]],
    ["after an impossible one is judged by the one before", [at(-3), at(-2, 9000), at(-1, 20)], ["taken", "IMPOSSIBLE", "taken"]],
  ])("%s", (_, points, expected) => {
    expect(judge(...points)).toEqual(expected);
  });

  it("is not judged by its speed where a time is that of a report", () => {
    const reported = (seconds: number, meters: number) => ({ ...at(seconds, meters), isTimeOfReport: true });
    expect(judge(reported(-5, 0), reported(-4, 9000), at(-3), reported(-4, 0))).toEqual(["taken", "taken", "taken", "OUT_OF_ORDER"]);
  });

  it("is taken when it is the third in a row that agree against the one before them", () => {
    expect(judge(at(-9, 90_000), at(-8), at(-7, 10), at(-6, 20), at(-5, 30))).toEqual([
      "taken",
      "IMPOSSIBLE",
      "IMPOSSIBLE",
      "taken",
      "taken",
    ]);
  });

  it("is not taken when every one is too far from the one before", () => {
    expect(judge(...[0, 1, 2, 3, 4, 5].map((n) => at(n - 6, n * 1000))).slice(1)).not.toContain("taken");
  });

  it("leaves a trail in which time only goes forward, and nobody is faster than 200 km/h unless three agree", () => {
    const point = fc.record({ seconds: fc.integer({ min: -400, max: 100 }), meters: fc.integer({ min: 0, max: 2000 }) });
    fc.assert(
      fc.property(fc.array(point, { maxLength: 40 }), (points) => {
        const trail = newTrail();
        let suspects = 0;
        for (const { seconds, meters } of points) {
          const { last } = trail;
          const next = at(seconds, meters);
          const fault = judgePoint(trail, next, NOW, STALE_MS);
          suspects = fault === "IMPOSSIBLE" ? suspects + 1 : suspects;
          if (fault) expect(trail.last).toBe(last);
          else {
            expect(trail.last).toBe(next);
            if (last) {
              const elapsed = (next.recordedAt.getTime() - last.recordedAt.getTime()) / 1000;
              expect(elapsed).toBeGreaterThan(0);
              if (distanceMeters(last, next) > (elapsed * 200) / 3.6) expect(suspects).toBeGreaterThanOrEqual(2);
            }
            suspects = 0;
          }
        }
      }),
    );
  });
});

describe("the distance between two places", () => {
  it.each([
    ["Berlin and Munich", [52.52, 13.405], [48.137, 11.575], 504_400],
    ["two sides of the date line", [0, 179.999], [0, -179.999], 222],
    ["the poles", [90, 0], [-90, 0], 20_015_100],
    ["a place and itself", [52.52, 13.405], [52.52, 13.405], 0],
  ] as const)("of %s", (_, [aLatitude, aLongitude], [bLatitude, bLongitude], meters) => {
    const found = distanceMeters({ latitude: aLatitude, longitude: aLongitude }, { latitude: bLatitude, longitude: bLongitude });
    expect(Math.abs(found - meters)).toBeLessThanOrEqual(Math.max(1, meters * 0.005));
  });
});
