import { join } from "node:path";
import { startNatsServer } from "../src/embedded/nats-server.ts";
import { startChild } from "./child.ts";
import type { Load, LoadFigures } from "./load.ts";
import { type Bench, type Measure, milliseconds, perSecond, type Row, ratioAtLeast, ratioAtMost } from "./measure.ts";
import { takeTurns } from "./rounds.ts";

/** Several processes that append to one log, against one process alone. */
export const processes: Measure = {
  name: "processes",
  about: "two processes on one log, 64 in flight each, and four that share a writer, 16 each, against one process alone with 64",
  run: async (bench) => [...(await measureTwo(bench)), ...(await measureFour(bench))],
};

async function measureTwo({ mongodbUrl, rounds, load }: Bench): Promise<Row[]> {
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

/** Four processes with NATS between them: one appends for all. */
async function measureFour({ mongodbUrl, rounds, load, folder }: Bench): Promise<Row[]> {
  const nats = await startNatsServer({ dataDir: join(folder, "nats-processes") });
  await using cleanUp = new AsyncDisposableStack();
  cleanUp.defer(() => nats.stop());
  const knowledge = { mongodbUrl, database: "bench_four_processes", natsUrl: nats.url };
  const four = await Promise.all(
    Array.from({ length: 4 }, async () => cleanUp.use(await startChild<Load, LoadFigures>("children/append.ts", knowledge))),
  );
  // They agree on the one that appends for all within the warm-up.
  const warm = { ...load, warmUpMs: 2 * load.warmUpMs };
  const [first] = four;
  if (!first) throw new Error("there are four");
  const { alone, together } = await takeTurns(rounds, {
    alone: () => first.ask({ ...warm, inFlight: 64 }),
    together: async () => {
      const figures = await Promise.all(four.map((child) => child.ask({ ...warm, inFlight: 16 })));
      return {
        perSecond: figures.reduce((sum, { perSecond }) => sum + perSecond, 0),
        p50Ms: Math.max(...figures.map(({ p50Ms }) => p50Ms)),
        p99Ms: Math.max(...figures.map(({ p99Ms }) => p99Ms)),
      };
    },
  });
  return [
    {
      what: "four processes on one log that share a writer, 16 in flight each: their sum",
      ours: perSecond(together.perSecond),
      against: `one process alone with 64: ${perSecond(alone.perSecond)}`,
      ...ratioAtLeast(together.perSecond / alone.perSecond, 0.8),
    },
    {
      what: "four processes on one log that share a writer, 16 in flight each: p99 of the slowest",
      ours: milliseconds(together.p99Ms),
      against: `one process alone with 64: ${milliseconds(alone.p99Ms)}`,
      ...ratioAtMost(together.p99Ms / alone.p99Ms, 3),
    },
  ];
}
