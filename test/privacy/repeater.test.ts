import { describe, expect, it } from "vitest";
import { createLogger } from "../../src/logger.ts";
import { createRepeater } from "../../src/privacy/repeater.ts";
import { eventually } from "../support/eventually.ts";

describe("a task that is repeated", () => {
  it("goes on after failures, which are logged, and is not running any more once it is stopped", async () => {
    const said: string[] = [];
    let times = 0;
    let running = 0;
    const task = async () => {
      running++;
      await new Promise(setImmediate);
      running--;
      if (++times === 2) throw new Error("the database is away");
    };
    const repeater = createRepeater("the work", task, 1, createLogger("debug", { write: (line) => said.push(line) }));
    repeater.start();
    repeater.start();
    await eventually(() => expect(times).toBeGreaterThan(3));
    await repeater.stop();
    expect(running).toBe(0);
    const ended = times;
    await new Promise(setImmediate);
    expect(times).toBe(ended);
    expect(said).toHaveLength(1);
    expect(said[0]).toContain("the work failed; trying again");
  });

  it("is told by its signal that it is to end", async () => {
    const { promise: begun, resolve } = Promise.withResolvers<void>();
    const task = (signal: AbortSignal) => {
      resolve();
      return new Promise<void>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
    };
    const said: string[] = [];
    const repeater = createRepeater("the work", task, 1000, createLogger("debug", { write: (line) => said.push(line) }));
    repeater.start();
    await begun;
    await repeater.stop();
    expect(said).toEqual([]);
  });
});
