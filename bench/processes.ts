import { startChild } from "./child.ts";
import type { Load, LoadFigures } from "./load.ts";
import { type Bench, type Measure, milliseconds, perSecond, type Row, ratioAtLeast, ratioAtMost } from "./measure.ts";
import { takeTurns } from "./rounds.ts";

/** Two processes that append to one log, against one process alone. */
export const processes: Measure = {
  name: "processes",
  about: "two processes on one log, 64 in flight each, against one process alone with 64",
  run,
};

async function run({ mongodbUrl, rounds, load }: Bench): Promise<Row[]> {
  const knowledge = { mongodbUrl, database: "bench_processes" };
  await using first = await startChild<Load, LoadFigures>("children/append.ts", knowledge);
  await using second = await startChild<Load, LoadFigures>("children/append.ts", knowledge);
  const task = { ...load, inFlight: 64 };
  const { alone, together } = await takeTurns(rounds, {
    alone: () => first.ask(task),
    together: async () => {
      const [a, b] = await Promise.all([first.ask(task), second.ask(task)]);
      return { perSecond: a.perSecond + b.perSecond, p50Ms: Math.max(a.p50Ms, b.p50Ms), p99Ms: Math.max(a.p99Ms, b.p99Ms) };
    },
  });
  return [
    {
      what: "two processes on one log, 64 in flight each: their sum",
      ours: perSecond(together.perSecond),
      against: `one process alone: ${perSecond(alone.perSecond)}`,
      ...ratioAtLeast(together.perSecond / alone.perSecond, 0.7),
    },
    {
      what: "two processes on one log, 64 in flight each: p99 of the slower one",
      ours: milliseconds(together.p99Ms),
      against: `one process alone: ${milliseconds(alone.p99Ms)}`,
      ...ratioAtMost(together.p99Ms / alone.p99Ms, 4),
    },
  ];
}
