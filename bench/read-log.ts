import { type Child, startChild } from "./child.ts";
import { type Bench, type Measure, perSecond, type Row, ratioAtLeast } from "./measure.ts";
import { takeTurns } from "./rounds.ts";

/** Reading the whole log against reading its documents. */
export const readLog: Measure = {
  name: "read-log",
  about: "reading the whole log, decoded, against a bare cursor over the same documents",
  run,
};

type Reading = Child<{ readonly to: number }, number>;

const WARM_UP_ENTRIES = 20_000;

async function run({ mongodbUrl, longRounds, bigLogEntries, logOf }: Bench): Promise<Row[]> {
  const { database, entries } = await logOf(bigLogEntries);
  await using ours: Reading = await startChild("children/read-log.ts", { mongodbUrl, database });
  await using theirs: Reading = await startChild("children/read-cursor.ts", { mongodbUrl, database });
  for (const reading of [ours, theirs]) await readAll(reading, WARM_UP_ENTRIES);
  const figures = await takeTurns(longRounds, { ours: () => readAll(ours, entries), theirs: () => readAll(theirs, entries) });
  return [
    {
      what: `reading a log of ${entries.toLocaleString("en")} entries, decoded`,
      ours: perSecond(figures.ours.perSecond),
      against: `a bare cursor over the same documents: ${perSecond(figures.theirs.perSecond)}`,
      ...ratioAtLeast(figures.ours.perSecond / figures.theirs.perSecond, 0.6),
    },
  ];
}

async function readAll(reading: Reading, entries: number): Promise<{ readonly perSecond: number }> {
  const began = performance.now();
  const read = await reading.ask({ to: entries });
  if (read !== entries) throw new Error(`${read} entries were read of ${entries}`);
  return { perSecond: (entries * 1000) / (performance.now() - began) };
}
