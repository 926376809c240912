/** Lets what comes one at a time go in batches of about the same size. */
export type Gathering = {
  /** To be told of each arrival: how many wait now. */
  arrived(waiting: number): void;
  /** Resolves when as many wait as usual, or after a time; `waiting` tells how many do. One call at a time. */
  untilUsual(waiting: () => number, atMostMs: number): Promise<void>;
};

/** How much the last batch counts in what is usual. */
const WEIGHT = 0.3;

/**
 * Callers that wait for their answers come back in two groups at best, each under way while the other is answered. A batch
 * of the first few to come back would split them into a small group and a large one, and the small one takes as long. So a
 * batch waits a moment to become as large as the last ones; a caller alone never waits.
 */
export function createGathering(): Gathering {
  let usual = 1;
  let enough: (() => void) | undefined;
  const isUsual = (waiting: number) => waiting >= Math.floor(usual);

  return {
    arrived(waiting) {
      if (isUsual(waiting)) enough?.();
    },
    async untilUsual(waiting, atMostMs) {
      if (!isUsual(waiting())) {
        const { promise, resolve } = Promise.withResolvers<void>();
        enough = resolve;
        const timer = setTimeout(resolve, atMostMs);
        await promise;
        clearTimeout(timer);
        enough = undefined;
      }
      usual += WEIGHT * (waiting() - usual);
    },
  };
}
