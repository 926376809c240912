/** How far one projection has come, for those who wait for it. */
export type Position = {
  /** Tells of a position that the projection has reached. */
  reached(position: number): void;
  /** Resolves when the projection has reached a position; rejects with the signal's reason. */
  waitFor(position: number, signal: AbortSignal): Promise<void>;
  /** Resolves after a time, or as soon as somebody waits; rejects with the signal's reason. */
  untilWanted(atMostMs: number, signal: AbortSignal): Promise<void>;
};

/** How often the position is asked for while somebody waits: another process may be the one that moves it. */
const POLL_MS = 25;

/** `read` asks the database. All who wait share its answers. */
export function createPosition(read: () => Promise<number>): Position {
  type Waiting = { readonly position: number; readonly resolve: () => void; readonly reject: (error: unknown) => void };
  const waiting = new Set<Waiting>();
  /** Ends the rest of whoever rests until somebody waits. */
  const resting = new Set<() => void>();
  let polling = false;

  function reached(position: number): void {
    for (const one of waiting) if (one.position <= position) one.resolve();
  }

  async function poll(): Promise<void> {
    polling = true;
    while (waiting.size > 0) {
      try {
        reached(await read());
      } catch (error) {
        for (const one of waiting) one.reject(error);
      }
      if (waiting.size > 0) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    polling = false;
  }

  async function waitFor(position: number, signal: AbortSignal): Promise<void> {
    if (position <= 0) return;
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const mine = { position, resolve, reject };
    const giveUp = () => reject(signal.reason);
    waiting.add(mine);
    for (const end of resting) end();
    signal.addEventListener("abort", giveUp, { once: true });
    if (!polling) void poll();
    try {
      await promise;
    } finally {
      waiting.delete(mine);
      signal.removeEventListener("abort", giveUp);
    }
  }

  async function untilWanted(atMostMs: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (waiting.size > 0) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const giveUp = () => reject(signal.reason);
    const timer = setTimeout(resolve, atMostMs);
    resting.add(resolve);
    signal.addEventListener("abort", giveUp, { once: true });
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      resting.delete(resolve);
      signal.removeEventListener("abort", giveUp);
    }
  }

  return { reached, waitFor, untilWanted };
}
