import { hash } from "node:crypto";
import type { Logger } from "pino";
import { RateLimiterMemory, RateLimiterRes, RateLimiterValkey } from "rate-limiter-flexible";
import { connectToValkey } from "./valkey.ts";

/** How much may be taken within a time. */
export type Limit = {
  /** Part of the keys in Valkey: there, limits of one name are one. */
  readonly name: string;
  readonly points: number;
  /** How long the points last, in whole seconds: the time begins with the first that is taken. */
  readonly seconds: number;
};

/** Whether what was asked for may be done. */
export type Taken = {
  readonly allowed: boolean;
  /** When not: in how many milliseconds there are points again. */
  readonly retryAfterMs: number;
};

/** One limit, which each key has to itself. */
export type Limiter = {
  /**
   * Takes points, by default one, from what the key has left. What is refused uses up what was left. Never rejects, and
   * takes a fifth of a second at most.
   */
  take(key: string, points?: number): Promise<Taken>;
};

/**
 * Limits that all processes with the same Valkey share. While it is away, and where there is none, each process keeps
 * them by itself: who has used up a limit stays refused, all others begin anew.
 */
export type Limiters = {
  /** To be made once and kept. Throws for a limit that makes no sense. */
  limiter(limit: Limit): Limiter;
  /** Rejects when there is a Valkey to be used and it does not answer, or takes nothing. */
  check(): Promise<void>;
  /** Lets go of Valkey. Limits are kept in memory from then on. */
  stop(): Promise<void>;
};

export type LimitersOptions = {
  /** Undefined: each process keeps limits by itself. */
  readonly redisUrl: string | undefined;
  /** What is said before the name of every limit: who shares a Valkey, but no limits, has another. */
  readonly prefix: string;
  readonly logger: Logger;
};

/** A timer in memory cannot be set for longer. */
const MAX_SECONDS = 2_000_000;

/** Limits by `rate-limiter-flexible`. */
export function createLimiters({ redisUrl, prefix, logger }: LimitersOptions): Limiters {
  const valkey = redisUrl === undefined ? undefined : connectToValkey(redisUrl, logger);

  function limiterOf({ name, points, seconds }: Limit): Pick<RateLimiterMemory, "consume"> {
    const limit = { keyPrefix: `ordertrail:${prefix}:limit:${name}`, points, duration: seconds };
    const inMemory = new RateLimiterMemory(limit);
    if (!valkey) return inMemory;
    return new RateLimiterValkey({
      ...limit,
      storeClient: valkey.client,
      rejectIfValkeyNotReady: true,
      // Who has used up the limit is refused without asking again.
      inMemoryBlockOnConsumed: points,
      insuranceLimiter: inMemory,
    });
  }

  return {
    limiter(limit) {
      assertSensible(limit);
      const limiter = limiterOf(limit);
      return {
        async take(key, points = 1) {
          try {
            await limiter.consume(pseudonym(key), points);
            return { allowed: true, retryAfterMs: 0 };
          } catch (refused) {
            if (!(refused instanceof RateLimiterRes)) throw refused;
            return { allowed: false, retryAfterMs: Math.max(1, refused.msBeforeNext) };
          }
        },
      };
    },
    async check() {
      await valkey?.check();
    },
    async stop() {
      valkey?.stop();
    },
  };
}

function assertSensible({ name, points, seconds }: Limit): void {
  const isSensible = Number.isSafeInteger(points) && points > 0 && Number.isSafeInteger(seconds) && seconds > 0 && seconds <= MAX_SECONDS;
  if (!isSensible) throw new RangeError(`the limit ${name} must have 1 point or more, and 1 to ${MAX_SECONDS} whole seconds`);
}

/** Keys may name people: Valkey, and whoever reads it, sees none. */
function pseudonym(key: string): string {
  return hash("sha256", key, "base64url");
}
