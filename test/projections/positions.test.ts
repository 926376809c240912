import { describe, expect, it } from "vitest";
import { createPosition } from "../../src/projections/positions.ts";

const FOREVER_MS = 3_600_000;
const never = new AbortController().signal;

describe("a position", () => {
  it("resolves for those who wait for no more than has been reached", async () => {
    const position = createPosition(() => Promise.resolve(0));
    const waits = [position.waitFor(0, never), position.waitFor(3, never), position.waitFor(5, never)];
    position.reached(5);
    await Promise.all(waits);
  });

  it("asks how far another process has come", async () => {
    let read = 0;
    const position = createPosition(() => Promise.resolve(read++));
    await position.waitFor(3, never);
    expect(read).toBe(4);
  });

  it("gives up with the signal's reason", async () => {
    const [position, other] = [createPosition(() => Promise.resolve(0)), createPosition(() => Promise.resolve(0))];
    const leaving = new AbortController();
    const waits = [position.waitFor(1, leaving.signal), other.untilWanted(FOREVER_MS, leaving.signal)];
    leaving.abort(new Error("left"));
    for (const wait of waits) await expect(wait).rejects.toThrow("left");
    await expect(other.untilWanted(FOREVER_MS, leaving.signal)).rejects.toThrow("left");
  });

  it("ends a rest as soon as somebody waits, and lets nobody rest meanwhile", async () => {
    const position = createPosition(() => Promise.resolve(0));
    const resting = position.untilWanted(FOREVER_MS, never);
    const waiting = position.waitFor(7, never);
    await resting;
    await position.untilWanted(FOREVER_MS, never);
    position.reached(7);
    await waiting;
    await position.untilWanted(1, never);
  });
});
