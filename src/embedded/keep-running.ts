import { setTimeout as pause } from "node:timers/promises";
import type { Logger } from "pino";
import type { ServerProcess } from "./server-process.ts";

const FIRST_DELAY_MS = 100;
const MAX_DELAY_MS = 10_000;
/** After this long without trouble, the next failure counts as the first. */
const STABLE_MS = 60_000;

/** A server that is started again whenever it ends by itself. */
export type KeptServer<T extends ServerProcess> = {
  /** The server as first started; the port and address remain those. */
  readonly first: T;
  /** Stops the server, and does not start it again. */
  stop(): Promise<void>;
};

/**
 * Starts a server, and starts it again on the same port whenever it ends without being asked to: at once, then with
 * growing pauses while that goes on. Rejects when it cannot be started the first time.
 */
export async function keepRunning<T extends ServerProcess>(
  name: string,
  start: (port?: number) => Promise<T>,
  logger: Logger,
): Promise<KeptServer<T>> {
  const first = await start();
  const stopping = new AbortController();
  let running: ServerProcess | undefined = first;

  async function supervise(): Promise<void> {
    for (let failures = 0; ; failures++) {
      const since = performance.now();
      const exit = await running?.exited;
      if (stopping.signal.aborted) return;
      if (performance.now() - since > STABLE_MS) failures = 0;
      const delayMs = failures === 0 ? 0 : Math.min(FIRST_DELAY_MS * 2 ** failures, MAX_DELAY_MS);
      logger.warn({ server: name, ...exit, delayMs }, "a server ended unexpectedly; it is started again");
      await pause(delayMs, undefined, { signal: stopping.signal }).catch(() => undefined);
      if (stopping.signal.aborted) return;
      running = await start(first.port).catch((err: unknown) => {
        logger.warn({ server: name, err }, "a server could not be started again");
        return undefined;
      });
    }
  }

  const supervised = supervise();
  return {
    first,
    async stop() {
      stopping.abort();
      await running?.stop();
      await supervised;
      await running?.stop();
    },
  };
}
