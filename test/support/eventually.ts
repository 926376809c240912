import { setTimeout as pause } from "node:timers/promises";

const POLL_MS = 20;

/**
 * Runs an assertion again and again until it passes, and gives its result; after the deadline (by default 10
 * seconds) it fails with the assertion's own last error.
 */
export async function eventually<T>(assertion: () => T | Promise<T>, timeoutMs = 10_000): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    try {
      return await assertion();
    } catch (error) {
      if (Date.now() > deadline) {
        throw error;
      }
    }
    await pause(POLL_MS);
  }
}
