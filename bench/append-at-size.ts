import { MongoClient } from "mongodb";
import { startChild } from "./child.ts";
import type { Load, LoadFigures } from "./load.ts";
import { type Bench, type Measure, milliseconds, type Row, ratioAtMost } from "./measure.ts";
import { takeTurns } from "./rounds.ts";

/** Appends to a long log against appends to an empty one. */
export const appendAtSize: Measure = {
  name: "append-at-size",
  about: "one append alone to a log of 1,000,000 entries, against one to an empty log",
  run,
};

async function run({ mongodbUrl, rounds, load, bigLogEntries, logOf }: Bench): Promise<Row[]> {
  const { database, entries } = await logOf(bigLogEntries);
  await writeOut(mongodbUrl);
  await using big = await startChild<Load, LoadFigures>("children/append.ts", { mongodbUrl, database });
  await using empty = await startChild<Load, LoadFigures>("children/append.ts", { mongodbUrl, database: "bench_empty" });
  const task = { ...load, inFlight: 1 };
  const figures = await takeTurns(rounds, { big: () => big.ask(task), empty: () => empty.ask(task) });
  return [
    {
      what: `p50 of one append alone to a log of ${entries.toLocaleString("en")} entries`,
      ours: milliseconds(figures.big.p50Ms),
      against: `a log that was empty: ${milliseconds(figures.empty.p50Ms)}`,
      ...ratioAtMost(figures.big.p50Ms / figures.empty.p50Ms, 1.15),
    },
  ];
}

/** Has mongod bring to the disk what the measures before have left it with: an append would share the wait for that. */
async function writeOut(mongodbUrl: string): Promise<void> {
  const client = await new MongoClient(mongodbUrl).connect();
  try {
    await client.db("admin").command({ fsync: 1 });
  } finally {
    await client.close();
  }
}
