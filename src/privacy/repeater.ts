import { setTimeout as pause } from "node:timers/promises";
import type { Logger } from "pino";

/** A task that is done again and again. */
export type Repeater = {
  start(): void;
  /** Ends it; resolves when the task is not running any more. */
  stop(): Promise<void>;
};

/** Does a task at once and then with a pause after each time, whether it fails or not; failures are logged. */
export function createRepeater(what: string, task: (signal: AbortSignal) => Promise<void>, pauseMs: number, logger: Logger): Repeater {
  const stopping = new AbortController();
  const { signal } = stopping;
  let running: Promise<void> | undefined;

  async function run(): Promise<void> {
    while (!signal.aborted) {
      try {
        await task(signal);
      } catch (error) {
        if (!signal.aborted) logger.warn({ err: error }, `${what} failed; trying again`);
      }
      await pause(pauseMs, undefined, { signal }).catch(() => undefined);
    }
  }

  return {
    start() {
      running ??= run();
    },
    async stop() {
      stopping.abort();
      await running;
    },
  };
}
