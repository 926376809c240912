import { describe, expect, it } from "vitest";
import { createAllowances } from "../../src/access/allowances.ts";

describe("an allowance", () => {
  let nowMs = 1_800_000_000_000;
  const make = (burst = 3, perMinute = 6) => createAllowances({ burst, perMinute, clock: () => new Date(nowMs) });

  it("is used up by its own key only, and says how long to wait", () => {
    const { take } = make();
    expect([take("a"), take("a"), take("a"), take("a"), take("a"), take("b")]).toEqual([0, 0, 0, 10, 10, 0]);
  });

  it("comes back with time, up to what it was", () => {
    const { take } = make();
    for (let time = 0; time < 4; time++) take("a");
    nowMs += 9_999;
    expect(take("a")).toBe(1);
    nowMs += 1;
    expect([take("a"), take("a")]).toEqual([0, 10]);
    nowMs += 3_600_000;
    expect([take("a"), take("a"), take("a"), take("a")]).toEqual([0, 0, 0, 10]);
  });

  it("can be given back", () => {
    const { take, giveBack } = make();
    for (let time = 0; time < 100; time++) {
      expect(take("a")).toBe(0);
      giveBack("a");
    }
    giveBack("a");
    expect([take("a"), take("a"), take("a"), take("a")]).toEqual([0, 0, 0, 10]);
  });

  it("does not grow when the clock goes back", () => {
    const { take } = make();
    for (let time = 0; time < 3; time++) take("a");
    nowMs -= 60_000;
    expect(take("a")).toBe(10);
  });
});
