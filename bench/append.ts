import { startChild } from "./child.ts";
import type { Load, LoadFigures } from "./load.ts";
import { type Bench, type Measure, milliseconds, perSecond, type Row, ratioAtLeast, ratioAtMost } from "./measure.ts";
import { takeTurns } from "./rounds.ts";

/** Appends against single inserts: many at a time, and one alone. */
export const append: Measure = {
  name: "append",
  about: "appends against insertOne each, 64 in flight and one alone",
  run,
};

async function run({ mongodbUrl, rounds, load }: Bench): Promise<Row[]> {
  const knowledge = { mongodbUrl, database: "bench_append" };
  await using ours = await startChild<Load, LoadFigures>("children/append.ts", knowledge);
  await using theirs = await startChild<Load, LoadFigures>("children/insert-one.ts", knowledge);
  const many = { ...load, inFlight: 64 };
  const alone = { ...load, inFlight: 1 };
  const figures = await takeTurns(rounds, {
    ours: () => ours.ask(many),
    theirs: () => theirs.ask(many),
    oursAlone: () => ours.ask(alone),
    theirsAlone: () => theirs.ask(alone),
  });
  return [
    {
      what: "appends, 64 in flight, `w: majority, j: true`",
      ours: `${perSecond(figures.ours.perSecond)}, p99 ${milliseconds(figures.ours.p99Ms)}`,
      against: `\`insertOne\` each: ${perSecond(figures.theirs.perSecond)}, p99 ${milliseconds(figures.theirs.p99Ms)}`,
      ...ratioAtLeast(figures.ours.perSecond / figures.theirs.perSecond, 5),
    },
    {
      what: "p50 of one append alone",
      ours: milliseconds(figures.oursAlone.p50Ms),
      against: `\`insertOne\` alone: ${milliseconds(figures.theirsAlone.p50Ms)}`,
      ...ratioAtMost(figures.oursAlone.p50Ms / figures.theirsAlone.p50Ms, 1.2),
    },
  ];
}
