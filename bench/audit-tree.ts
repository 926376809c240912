import { join } from "node:path";
import { type Child, startChild } from "./child.ts";
import type { Load, LoadFigures } from "./load.ts";
import { type Bench, type Measure, perSecond, type Row, ratioAtLeast } from "./measure.ts";
import { takeTurns } from "./rounds.ts";

/** Keeping the log's tree: against bare hashing, and what it costs those who append. */
export const auditTree: Measure = {
  name: "audit-tree",
  about: "keeping the log's Merkle tree against bare hashing of the same bodies; appends with the tree kept against without",
  run,
};

type Making = Child<{ readonly to: number }, number>;

const IN_FLIGHT = 64;

async function run(bench: Bench): Promise<Row[]> {
  return [await runMaking(bench), await runAppending(bench)];
}

async function runMaking({ mongodbUrl, folder, longRounds, bigLogEntries, logOf, say }: Bench): Promise<Row> {
  const { database, entries } = await logOf(bigLogEntries);
  await using ours: Making = await startChild("children/audit-tree.ts", { mongodbUrl, database, folder: join(folder, "audit-tree") });
  await using theirs: Making = await startChild("children/hash-bodies.ts", { mongodbUrl, database });
  for (const making of [ours, theirs]) await making.ask({ to: entries });
  say("making the tree");
  const rateOf = (making: Making) => async () => ({ perSecond: (entries * 1000) / (await making.ask({ to: entries })) });
  const figures = await takeTurns(longRounds, { ours: rateOf(ours), theirs: rateOf(theirs) });
  return {
    what: `making the tree of ${entries.toLocaleString("en")} entries, with its tiles and checkpoints`,
    ours: perSecond(figures.ours.perSecond),
    against: `a bare loop of SHA-256 over the same bodies, by the same cursor: ${perSecond(figures.theirs.perSecond)}`,
    ...ratioAtLeast(figures.ours.perSecond / figures.theirs.perSecond, 0.5),
  };
}

async function runAppending({ mongodbUrl, folder, rounds, load, say }: Bench): Promise<Row> {
  type Appending = Child<Load, LoadFigures>;
  const tree = { folder: join(folder, "audit-append") };
  await using ours: Appending = await startChild("children/append.ts", { mongodbUrl, database: "bench_append_with_tree", tree });
  await using theirs: Appending = await startChild("children/append.ts", { mongodbUrl, database: "bench_append_without_tree" });
  say("appending");
  const task = { ...load, inFlight: IN_FLIGHT };
  const figures = await takeTurns(rounds, { ours: () => ours.ask(task), theirs: () => theirs.ask(task) });
  return {
    what: "appends, 64 in flight, with the tree kept and signed by the same process",
    ours: perSecond(figures.ours.perSecond),
    against: `without: ${perSecond(figures.theirs.perSecond)}`,
    ...ratioAtLeast(figures.ours.perSecond / figures.theirs.perSecond, 0.9),
  };
}
