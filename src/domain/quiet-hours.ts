import type { QuietHours } from "../gen/ordertrail/events/v1/customer_events_pb.js";

const MINUTE_MS = 60_000;
const DAY_MINUTES = 24 * 60;
const FORMATS = new Map<string, Intl.DateTimeFormat>();

/** Whether a time zone has this name. */
export function isTimeZone(name: string): boolean {
  try {
    format(name);
    return true;
  } catch {
    return false;
  }
}

/**
 * When quiet hours that a time falls into end; undefined when it falls into none. By the clock on the wall of the time zone: where clocks are
 * put forward or back in that night, the end is what they show then.
 */
export function quietUntil({ fromMinute, untilMinute }: QuietHours, timeZone: string, at: Date): Date | undefined {
  if (fromMinute === untilMinute) return undefined;
  const minute = minuteOfDay(timeZone, at);
  const isQuiet = fromMinute < untilMinute ? minute >= fromMinute && minute < untilMinute : minute >= fromMinute || minute < untilMinute;
  if (!isQuiet) return undefined;
  const start = Math.floor(at.getTime() / MINUTE_MS) * MINUTE_MS;
  let left = (untilMinute - minute + DAY_MINUTES) % DAY_MINUTES;
  let end = new Date(start + left * MINUTE_MS);
  // Clocks may have been changed in between: then what they show at that time is early or late, and is put right once.
  const shown = minuteOfDay(timeZone, end);
  const off = ((untilMinute - shown + DAY_MINUTES + DAY_MINUTES / 2) % DAY_MINUTES) - DAY_MINUTES / 2;
  left += off;
  end = new Date(start + left * MINUTE_MS);
  return end > at ? end : new Date(start + MINUTE_MS);
}

function minuteOfDay(timeZone: string, at: Date): number {
  let hour = 0;
  let minute = 0;
  for (const { type, value } of format(timeZone).formatToParts(at)) {
    if (type === "hour") hour = Number(value);
    if (type === "minute") minute = Number(value);
  }
  return hour * 60 + minute;
}

function format(timeZone: string): Intl.DateTimeFormat {
  const known = FORMATS.get(timeZone);
  if (known) return known;
  const made = new Intl.DateTimeFormat("en-GB", { timeZone, hourCycle: "h23", hour: "2-digit", minute: "2-digit" });
  FORMATS.set(timeZone, made);
  return made;
}
