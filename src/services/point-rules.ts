import { isMessage, type Message } from "@bufbuild/protobuf";
import { type LocationPoint, StreamLocationsRequestSchema } from "../gen/ordertrail/v1/driver_location_service_pb.js";

const MOST_POINTS = 1000;
const ORDER_ID = /^[A-Za-z0-9_-]{1,64}$/;
const EARLIEST_SECONDS = 946_684_800;
const LATEST_SECONDS = 4_102_444_800;

/**
 * Whether a message of points keeps every rule of its schema. Points come at line rate, and the schema's own rules take
 * fifteen times as long to be gone through; they say what is wrong once this finds that something is.
 */
export function hasOnlyGoodPoints(message: Message): boolean {
  return isMessage(message, StreamLocationsRequestSchema) && message.points.length <= MOST_POINTS && message.points.every(isGood);
}

function isGood({ orderId, latitude, longitude, headingDeg, speedMps, accuracyM, recordedAt }: LocationPoint): boolean {
  if (latitude === undefined || longitude === undefined || !recordedAt) return false;
  const seconds = Number(recordedAt.seconds);
  return (
    ORDER_ID.test(orderId) &&
    isWithin(latitude, -90, 90) &&
    isWithin(longitude, -180, 180) &&
    (headingDeg === undefined || (headingDeg >= 0 && headingDeg < 360)) &&
    (speedMps === undefined || isWithin(speedMps, 0, 100)) &&
    (accuracyM === undefined || isWithin(accuracyM, 0, 100_000)) &&
    seconds >= EARLIEST_SECONDS &&
    seconds < LATEST_SECONDS &&
    recordedAt.nanos >= 0 &&
    recordedAt.nanos < 1e9
  );
}

/** False for what is no number, too. */
function isWithin(value: number, least: number, most: number): boolean {
  return value >= least && value <= most;
}
