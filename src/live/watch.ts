import { setTimeout as pause } from "node:timers/promises";
import type { Logger } from "pino";
import { LogDamaged } from "../domain/log-damaged.ts";
import { Unavailable } from "../domain/refusal.ts";
import type { RecordedEntry } from "../log/log-entry.ts";
import type { LogReader } from "../log/reader.ts";

export type WatchOptions = {
  readonly reader: Pick<LogReader, "head" | "follow">;
  /** How often a watcher is told that nothing has happened. */
  readonly heartbeatMs: number;
  /** Ends all watching with its reason. */
  readonly stopping: AbortSignal;
  readonly logger: Logger;
};

/** What a watcher is told: the next entry of its stream; that there were more than it keeps; or that nothing has happened. */
export type News =
  | { readonly kind: "entry"; readonly recorded: RecordedEntry }
  /** Entries up to this version are to be had from the log. `slow`: because the watcher did not ask for a while. */
  | { readonly kind: "missed"; readonly upTo: number; readonly slow: boolean }
  /** All up to this position of the log has been told. */
  | { readonly kind: "quiet"; readonly position: number };

/** One who watches a stream. */
export type Watcher = Disposable & {
  /** What comes next, once it has come. Rejects with what ends the watching. Asked by one at a time. */
  next(): Promise<News>;
};

/** Tells of what is appended to streams, by whichever process. */
export type LogWatch = {
  /**
   * Begins to watch a stream, until it is disposed of or the signal ends it with its reason. What stands in the log by then
   * is for the caller to read, after this; what is told later overlaps with that, and has a gap only if that read does.
   */
  open(stream: string, signal: AbortSignal): Promise<Watcher>;
  /** Ends all watching; resolves when the log is not followed any more. */
  stop(): Promise<void>;
};

type Told = Watcher & {
  tell(recorded: RecordedEntry): void;
  beat(): void;
  end(reason: unknown): void;
};

/** How many entries wait for a watcher that does not ask; the more there are, the more memory those take who never read. */
export const MOST_WAITING = 16;
/** Watchers get their heartbeats in so many groups one after the other, so that not all are to be written to at once. */
const GROUPS = 16;
const RETRY_MS = 200;
/** For how long the log may not be readable before watchers are sent elsewhere. */
const PATIENCE_MS = 10_000;

/**
 * Watches the log for any number of streams at the cost of one follower, which begins with the first watcher. Each entry
 * reaches a watcher by this way only, in order.
 */
export function createLogWatch({ reader, heartbeatMs, stopping, logger }: WatchOptions): LogWatch {
  const watchers = new Map<string, Set<Told>>();
  const groups = Array.from({ length: GROUPS }, () => new Set<Told>());
  const ending = new AbortController();
  let opened = 0;
  let position = 0;
  let starting: Promise<void> | undefined;
  let following: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let group = 0;

  function endAll(reason: unknown): void {
    for (const set of watchers.values()) for (const watcher of set) watcher.end(reason);
  }

  async function start(): Promise<void> {
    position = await reader.head();
    following = follow();
    timer ??= setInterval(() => {
      for (const watcher of groups[group++ % GROUPS] ?? []) watcher.beat();
    }, heartbeatMs / GROUPS);
  }

  async function follow(): Promise<void> {
    const { signal } = ending;
    let failingSince: number | undefined;
    while (!signal.aborted) {
      try {
        if (failingSince !== undefined) await reader.head();
        failingSince = undefined;
        for await (const followed of reader.follow({ after: position, signal })) {
          for (const recorded of followed.entries) {
            for (const watcher of watchers.get(recorded.entry.stream) ?? []) watcher.tell(recorded);
          }
          position = followed.position;
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof LogDamaged) {
          // Whoever watches next begins behind it.
          starting = undefined;
          endAll(error);
          return;
        }
        failingSince ??= performance.now();
        if (performance.now() - failingSince > PATIENCE_MS)
          endAll(new Unavailable("the log cannot be followed here at present: go on from the last version", { cause: error }));
        logger.warn({ err: error, position }, "following the log for those who watch failed; trying again");
        await pause(RETRY_MS, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  function add(stream: string, signal: AbortSignal): Told {
    const watcher = createWatcher(
      () => position,
      () => {
        signal.removeEventListener("abort", leave);
        beats?.delete(watcher);
        const set = watchers.get(stream);
        set?.delete(watcher);
        if (set?.size === 0) watchers.delete(stream);
      },
    );
    const leave = () => watcher.end(signal.reason);
    const set = watchers.get(stream) ?? new Set();
    watchers.set(stream, set.add(watcher));
    const beats = groups[opened++ % GROUPS];
    beats?.add(watcher);
    if (signal.aborted) leave();
    else signal.addEventListener("abort", leave, { once: true });
    return watcher;
  }

  const drain = () => endAll(stopping.reason);
  stopping.addEventListener("abort", drain, { once: true });

  return {
    async open(stream, signal) {
      stopping.throwIfAborted();
      starting ??= start().catch((error: unknown) => {
        starting = undefined;
        throw error;
      });
      await starting;
      stopping.throwIfAborted();
      return add(stream, signal);
    },
    async stop() {
      stopping.removeEventListener("abort", drain);
      ending.abort();
      clearInterval(timer);
      endAll(new Unavailable("the server is shutting down: try again"));
      await starting?.catch(() => undefined);
      clearInterval(timer);
      await following;
    },
  };
}

function createWatcher(reached: () => number, leave: () => void): Told {
  let waiting: RecordedEntry[] = [];
  let missed: { upTo: number; slow: boolean } | undefined;
  let quiet = false;
  let ended: { readonly reason: unknown } | undefined;
  let wake: (() => void) | undefined;
  /** Asking, and not yet told that there is something: all that comes at one go finds it so. */
  let asks = false;

  function found(): News | undefined {
    if (ended) throw ended.reason;
    if (missed) {
      const news = { kind: "missed", ...missed } as const;
      missed = undefined;
      return news;
    }
    const recorded = waiting.shift();
    if (recorded) return { kind: "entry", recorded };
    if (!quiet) return undefined;
    quiet = false;
    return { kind: "quiet", position: reached() };
  }

  return {
    async next() {
      for (;;) {
        const news = found();
        if (news) return news;
        asks = true;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        asks = false;
      }
    },
    tell(recorded) {
      const { version } = recorded.entry;
      if (missed || waiting.length >= MOST_WAITING) {
        missed = { upTo: version, slow: (missed?.slow ?? false) || !asks };
        waiting = [];
      } else waiting.push(recorded);
      wake?.();
    },
    beat() {
      quiet = true;
      wake?.();
    },
    end(reason) {
      ended ??= { reason };
      wake?.();
    },
    [Symbol.dispose]() {
      leave();
      waiting = [];
    },
  };
}
