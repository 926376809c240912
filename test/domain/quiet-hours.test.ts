import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isTimeZone, quietUntil } from "../../src/domain/quiet-hours.ts";
import { QuietHoursSchema } from "../../src/gen/ordertrail/events/v1/customer_events_pb.js";

const hours = (from: string, until: string) => create(QuietHoursSchema, { fromMinute: minutes(from), untilMinute: minutes(until) });
const minutes = (clock: string) => Number(clock.slice(0, 2)) * 60 + Number(clock.slice(3));
const NIGHT = hours("22:00", "07:00");

describe("quiet hours", () => {
  it.each([
    ["UTC", "2026-03-01T21:59:59Z", undefined],
    ["UTC", "2026-03-01T22:00:00Z", "2026-03-02T07:00:00Z"],
    ["UTC", "2026-03-02T06:59:59Z", "2026-03-02T07:00:00Z"],
    ["UTC", "2026-03-02T07:00:00Z", undefined],
    ["America/New_York", "2026-01-15T03:00:00Z", "2026-01-15T12:00:00Z"],
    ["Asia/Kolkata", "2026-01-15T17:00:00Z", "2026-01-16T01:30:00Z"],
    // The night in which clocks go forward is an hour shorter, that in which they go back an hour longer.
    ["Europe/Berlin", "2026-03-28T22:00:00Z", "2026-03-29T05:00:00Z"],
    ["Europe/Berlin", "2026-10-24T21:00:00Z", "2026-10-25T06:00:00Z"],
  ])("in %s at %s end at %s", (zone, at, end) => {
    expect(quietUntil(NIGHT, zone, new Date(at))?.toISOString()).toBe(end && new Date(end).toISOString());
  });

  it("within one day do not span midnight", () => {
    const noon = hours("12:00", "14:00");
    expect(quietUntil(noon, "UTC", new Date("2026-03-01T13:00:00Z"))?.toISOString()).toBe("2026-03-01T14:00:00.000Z");
    expect(quietUntil(noon, "UTC", new Date("2026-03-01T23:00:00Z"))).toBeUndefined();
  });

  it("end after the time, within a day, and are over when they end", () => {
    const zones = ["UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns", "Europe/Berlin"];
    const minute = fc.integer({ min: 0, max: 1439 });
    const time = fc.date({ min: new Date("2025-01-01"), max: new Date("2027-12-31"), noInvalidDate: true });
    fc.assert(
      fc.property(fc.constantFrom(...zones), minute, minute, time, (zone, fromMinute, untilMinute, at) => {
        const end = quietUntil(create(QuietHoursSchema, { fromMinute, untilMinute }), zone, at);
        if (!end) return;
        expect(end.getTime()).toBeGreaterThan(at.getTime());
        expect(end.getTime() - at.getTime()).toBeLessThanOrEqual(25 * 3_600_000);
      }),
      { numRuns: 2000 },
    );
  });

  it("know time zones by their names", () => {
    expect(isTimeZone("Europe/Berlin")).toBe(true);
    expect(isTimeZone("Mars/Olympus")).toBe(false);
  });
});
