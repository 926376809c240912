import type { Place } from "../domain/driver-point.ts";

const LONGITUDE_AT = 8;

/** A place as it is sealed: latitude and longitude as two 64-bit floats, big-endian. */
export function placeBytes({ latitude, longitude }: Place): Uint8Array {
  const bytes = Buffer.alloc(2 * LONGITUDE_AT);
  bytes.writeDoubleBE(latitude);
  bytes.writeDoubleBE(longitude, LONGITUDE_AT);
  return bytes;
}

/** The place that was sealed. */
export function placeOf(bytes: Uint8Array): Place {
  const buffer = Buffer.from(bytes);
  return { latitude: buffer.readDoubleBE(), longitude: buffer.readDoubleBE(LONGITUDE_AT) };
}
