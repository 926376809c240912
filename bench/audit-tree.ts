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
  return [await runMaking(bench), ...(await runAppending(bench))];
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

async function runAppending({ mongodbUrl, folder, rounds, load, say }: Bench): Promise<Row[]> {
  const keys = { folder: join(folder, "audit-append") };
  const start = (database: string, more: object): Promise<Child<Load, LoadFigures>> =>
    startChild("children/append.ts", { mongodbUrl, database, ...more });
  await using bare = await start("bench_append_bare", { notes: {} });
  await using tree = await start("bench_append_tree", { tree: keys, notes: {} });
  await using sealed = await start("bench_append_sealed", { tree: keys, notes: { sealedBy: keys } });
  say("appending");
  const task = { ...load, inFlight: IN_FLIGHT };
  const figures = await takeTurns(rounds, { bare: () => bare.ask(task), tree: () => tree.ask(task), sealed: () => sealed.ask(task) });
  const rowOf = (what: string, ours: number): Row => ({
    what: `appends, 64 in flight, with the tree kept and signed by the same process${what}`,
    ours: perSecond(ours),
    against: `the same entries without, the notes in the clear: ${perSecond(figures.bare.perSecond)}`,
    ...ratioAtLeast(ours / figures.bare.perSecond, 0.9),
  });
  return [
    rowOf("", figures.tree.perSecond),
    rowOf(", and a note sealed under its customer's key in every fourth entry", figures.sealed.perSecond),
  ];
}
