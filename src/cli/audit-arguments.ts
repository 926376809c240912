import { type Timestamp, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { InvalidArgumentError } from "commander";

/** A place in the log or in an order's life: a number, or a time. */
export type Place = { readonly number: number } | { readonly time: Timestamp };

const TIME = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2}))?$/;

/** Reads "1234", "2026-06-01" (its beginning, in UTC) or "2026-06-01T12:00:00Z". */
export function parsePlace(text: string): Place {
  if (/^\d{1,15}$/.test(text) && Number(text) > 0) return { number: Number(text) };
  const time = TIME.test(text) ? new Date(text) : undefined;
  if (!time || Number.isNaN(time.getTime()))
    throw new InvalidArgumentError("It must be a number from 1, or a time such as 2026-06-01T12:00:00Z.");
  return { time: timestampFromDate(time) };
}

/** Reads the identifier of an order, client or the like. */
export function parseIdentifier(text: string): string {
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(text)) throw new InvalidArgumentError("It must be 1 to 64 letters, digits, _ and -.");
  return text;
}
