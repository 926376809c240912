/** Where a driver was, as their device measured it. */
export type DriverPoint = {
  readonly latitude: number;
  readonly longitude: number;
  readonly headingDeg?: number | undefined;
  readonly speedMps?: number | undefined;
  readonly accuracyM?: number | undefined;
  readonly recordedAt: Date;
  /** True where the time is that of somebody's report, and not the device's own: a speed cannot be told by it. */
  readonly isTimeOfReport?: boolean | undefined;
};

/** A place on the map. Degrees, north and east positive. */
export type Place = { readonly latitude: number; readonly longitude: number };

/** Why a point of an order whose driver may report is not taken. */
export type PointFault = "DUPLICATE" | "OUT_OF_ORDER" | "STALE" | "FUTURE" | "IMPOSSIBLE";

/** What is known of a driver's way, as far as the next point is judged by it. Plain data that its owner keeps and `judgePoint` changes. */
export type Trail = {
  /** The newest point that was taken. */
  last: DriverPoint | undefined;
  /** The newest of those in a row that were too far from `last` but not from each other. */
  suspect: DriverPoint | undefined;
  suspects: number;
};

/** Faster than any driver: 200 km/h. */
const MAX_METERS_PER_SECOND = 200 / 3.6;
/** So many points in a row that agree with each other outweigh the one before them. */
const SUSPECTS_TO_BELIEVE = 3;
const MAX_AHEAD_MS = 60_000;
const EARTH_RADIUS_M = 6_371_008.8;
const RADIANS = Math.PI / 180;

export const newTrail = (last?: DriverPoint): Trail => ({ last, suspect: undefined, suspects: 0 });

/**
 * Judges the next point of a driver, and remembers it. Answers why it is not taken, or nothing if it is. What is too far
 * away for the time is not taken, unless the places may be the same within their accuracies; but when three such points in
 * a row agree with each other, it was the one before them that was wrong, and the third is taken.
 */
export function judgePoint(trail: Trail, point: DriverPoint, nowMs: number, staleMs: number): PointFault | undefined {
  const at = point.recordedAt.getTime();
  if (at > nowMs + MAX_AHEAD_MS) return "FUTURE";
  const { last, suspect } = trail;
  if (last) {
    const since = at - last.recordedAt.getTime();
    if (since === 0) return "DUPLICATE";
    if (since < 0) return "OUT_OF_ORDER";
  }
  if (at < nowMs - staleMs) return "STALE";
  if (last && !isWithinReach(last, point)) {
    const agrees = suspect !== undefined && suspect.recordedAt.getTime() < at && isWithinReach(suspect, point);
    trail.suspects = agrees ? trail.suspects + 1 : 1;
    trail.suspect = point;
    if (trail.suspects < SUSPECTS_TO_BELIEVE) return "IMPOSSIBLE";
  }
  trail.last = point;
  trail.suspect = undefined;
  trail.suspects = 0;
  return undefined;
}

function isWithinReach(from: DriverPoint, to: DriverPoint): boolean {
  if (!tellSpeed(from, to)) return true;
  const meters = distanceMeters(from, to);
  const seconds = (to.recordedAt.getTime() - from.recordedAt.getTime()) / 1000;
  return meters <= seconds * MAX_METERS_PER_SECOND || meters <= (from.accuracyM ?? 0) + (to.accuracyM ?? 0);
}

/** Whether a speed can be told by two points. */
export function tellSpeed(from: DriverPoint, to: DriverPoint): boolean {
  return !from.isTimeOfReport && !to.isTimeOfReport;
}

/** The distance between two places over the ground, in metres: the haversine formula, right to half a percent. */
export function distanceMeters(a: Place, b: Place): number {
  const dLatitude = Math.sin(((b.latitude - a.latitude) * RADIANS) / 2);
  const dLongitude = Math.sin(((b.longitude - a.longitude) * RADIANS) / 2);
  const h = dLatitude * dLatitude + Math.cos(a.latitude * RADIANS) * Math.cos(b.latitude * RADIANS) * dLongitude * dLongitude;
  return 2 * EARTH_RADIUS_M * Math.asin(Math.min(1, Math.sqrt(h)));
}
