import { create } from "@bufbuild/protobuf";
import { type Money, MoneySchema } from "../gen/ordertrail/events/v1/values_pb.js";
import type { CourierPoint } from "./courier.ts";
import type { JsonFields } from "./json-fields.ts";

/** What a delivery costs, of `fee` in minor units and `currency`; undefined when that is no amount of money. */
export function feeOf(fields: JsonFields): Money | undefined {
  const amount = fields.number("fee");
  const currency = fields.text("currency").toUpperCase();
  if (amount === undefined || !Number.isSafeInteger(amount) || amount < 0 || !/^[A-Z]{3}$/.test(currency)) return undefined;
  return create(MoneySchema, { amountMinor: BigInt(amount), currency });
}

/** An absolute http or https address as it is shown to people; empty when it is none. */
export function linkOf(text: string): string {
  return /^https?:\/\//.test(text) && URL.canParse(text) && text.length <= 500 ? text : "";
}

/** A place of `lat` and `lng` in degrees at a time; undefined when any of them is missing, or there is no such place. */
export function pointOf(place: JsonFields, at: Date | undefined): CourierPoint | undefined {
  const [latitude, longitude] = [place.number("lat"), place.number("lng")];
  if (latitude === undefined || longitude === undefined || !at) return undefined;
  return Math.abs(latitude) <= 90 && Math.abs(longitude) <= 180 ? { latitude, longitude, recordedAt: at } : undefined;
}

const MOST_CHARACTERS = 200;

/** A provider's words for people, without what is no character to show and no longer than anybody's of that kind may be. */
export function wordsOf(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, "").slice(0, MOST_CHARACTERS);
}
