import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { startChild } from "./child.ts";
import type { Load, LoadFigures } from "./load.ts";
import { type Bench, type Measure, milliseconds, perSecond, type Row, ratioAtLeast } from "./measure.ts";
import { takeTurns } from "./rounds.ts";

/** Appends against those of emmett, an event store on MongoDB. */
export const emmett: Measure = {
  name: "emmett",
  about: "appends against @event-driven-io/emmett-mongodb, 64 in flight, each to a stream of its own",
  run,
};

async function run({ mongodbUrl, rounds, load, say }: Bench): Promise<Row[]> {
  say("installing emmett");
  await promisify(execFile)("npm", ["ci", "--no-audit", "--no-fund"], { cwd: fileURLToPath(new URL("emmett", import.meta.url)) });
  await using ours = await startChild<Load, LoadFigures>("children/append.ts", { mongodbUrl, database: "bench_beside_emmett" });
  await using theirs = await startChild<Load, LoadFigures>("emmett/append.ts", { mongodbUrl, database: "bench_emmett" });
  const task = { ...load, inFlight: 64 };
  const figures = await takeTurns(rounds, { ours: () => ours.ask(task), theirs: () => theirs.ask(task) });
  return [
    {
      what: "the same against an event store",
      ours: `${perSecond(figures.ours.perSecond)}, p99 ${milliseconds(figures.ours.p99Ms)}`,
      against: `\`emmett-mongodb\` 0.42.4: ${perSecond(figures.theirs.perSecond)}, p99 ${milliseconds(figures.theirs.p99Ms)}`,
      ...ratioAtLeast(figures.ours.perSecond / figures.theirs.perSecond, 12),
    },
  ];
}
