import { LRUCache } from "lru-cache";

export type AllowanceOptions = {
  /** How much may be taken at once. */
  readonly burst: number;
  /** How much comes back in a minute. */
  readonly perMinute: number;
  readonly clock: () => Date;
};

/** How often something may happen, by whom it happens to. In this process's memory, which is bounded: who was quiet longest is forgotten. */
export type Allowances = {
  /** Takes one from a key's allowance. 0 if there was one left, else in how many whole seconds there will be; then nothing is taken. */
  take(key: string): number;
  /** Gives back what `take` took. */
  giveBack(key: string): void;
};

type Allowance = { readonly left: number; readonly atMs: number };

const KEYS = 10_000;
const MINUTE_MS = 60_000;

/** An allowance for each key, full at first. */
export function createAllowances({ burst, perMinute, clock }: AllowanceOptions): Allowances {
  const allowances = new LRUCache<string, Allowance>({ max: KEYS });

  function leftOf(key: string, nowMs: number): number {
    const known = allowances.get(key);
    if (!known) return burst;
    return Math.min(burst, known.left + (Math.max(0, nowMs - known.atMs) * perMinute) / MINUTE_MS);
  }

  return {
    take(key) {
      const nowMs = clock().getTime();
      const left = leftOf(key, nowMs);
      if (left < 1) return Math.max(1, Math.ceil(((1 - left) * MINUTE_MS) / perMinute / 1000));
      allowances.set(key, { left: left - 1, atMs: nowMs });
      return 0;
    },
    giveBack(key) {
      const nowMs = clock().getTime();
      allowances.set(key, { left: Math.min(burst, leftOf(key, nowMs) + 1), atMs: nowMs });
    },
  };
}
