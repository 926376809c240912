/** Numbers by name, such as a rate and latencies. */
type Figures = Readonly<Record<string, number>>;

/**
 * Lets contenders take turns for some rounds, and returns the medians of each contender's figures. Every other round
 * goes backwards, so that none is always the first or always follows the same one.
 */
export async function takeTurns<Name extends string, Each extends Figures>(
  rounds: number,
  contenders: Readonly<Record<Name, () => Promise<Each>>>,
): Promise<Record<Name, Each>> {
  const names = Object.keys(contenders) as Name[];
  const taken = new Map<Name, Each[]>(names.map((name) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      taken.get(name)?.push(await contenders[name]());
    }
  }
  return Object.fromEntries(names.map((name) => [name, mediansOf(taken.get(name) ?? [])])) as Record<Name, Each>;
}

/** The middle one of some numbers; the mean of the two in the middle when their count is even. */
export function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
  const lower = sorted[Math.ceil(sorted.length / 2) - 1] ?? Number.NaN;
  return (lower + upper) / 2;
}

function mediansOf<Each extends Figures>(figures: readonly Each[]): Each {
  const names = Object.keys(figures[0] ?? {});
  return Object.fromEntries(names.map((name) => [name, median(figures.map((each) => each[name] ?? Number.NaN))])) as Each;
}
