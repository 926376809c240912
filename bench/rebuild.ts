import { type Child, startChild } from "./child.ts";
import type { Rebuild } from "./children/rebuild.ts";
import { type Bench, type Measure, perSecond, type Row, ratioAtLeast, ratioAtMost } from "./measure.ts";
import { takeTurns } from "./rounds.ts";

/** Rebuilding the read model of a long log against that of a short one. */
export const rebuild: Measure = {
  name: "rebuild",
  about: "rebuilding order_tracking at 1,000,000 entries against 10,000; its memory",
  run,
};

type Rebuilding = Child<"rebuild", Rebuild>;

const SHORT_ENTRIES = 10_000;
const WARM_UPS = 3;
const MEMORY_MIB = 512;
const FLAT = 1.15;

async function run({ mongodbUrl, longRounds, bigLogEntries, logOf, say }: Bench): Promise<Row[]> {
  const short = await logOf(SHORT_ENTRIES);
  const long = await logOf(bigLogEntries);
  await using ofShort: Rebuilding = await startChild("children/rebuild.ts", { mongodbUrl, database: short.database });
  await using ofLong: Rebuilding = await startChild("children/rebuild.ts", { mongodbUrl, database: long.database });
  // A long rebuild warms up in its first seconds; a short one is over by then.
  for (let count = 0; count < WARM_UPS; count++) await ofShort.ask("rebuild");
  say("rebuilding");
  let peakMib = 0;
  const figures = await takeTurns(longRounds, {
    short: () => ofShort.ask("rebuild"),
    long: async () => {
      const rebuilt = await ofLong.ask("rebuild");
      peakMib = Math.max(peakMib, rebuilt.firstHalfMib, rebuilt.secondHalfMib);
      return rebuilt;
    },
  });
  const shortRate = short.events / figures.short.seconds;
  const longRate = long.events / figures.long.seconds;
  const events = long.events.toLocaleString("en");
  return [
    {
      what: `rebuilding \`order_tracking\` from ${events} events`,
      ours: `${perSecond(longRate)}, ${figures.long.seconds.toFixed(1)} s`,
      against: `from ${short.events.toLocaleString("en")} events: ${perSecond(shortRate)}, ${figures.short.seconds.toFixed(1)} s`,
      ...ratioAtLeast(longRate / shortRate, 0.9),
    },
    {
      what: `peak memory of a rebuild from ${events} events: its second half`,
      ours: `${Math.round(figures.long.secondHalfMib)} MiB`,
      against: `its first half: ${Math.round(figures.long.firstHalfMib)} MiB`,
      ...ratioAtMost(figures.long.secondHalfMib / figures.long.firstHalfMib, FLAT),
    },
    {
      what: `peak memory of all rebuilds from ${events} events`,
      ours: `${Math.round(peakMib)} MiB`,
      against: `the limit: ${MEMORY_MIB} MiB`,
      figure: `${Math.round(peakMib)} MiB`,
      target: `under ${MEMORY_MIB} MiB`,
      reached: peakMib < MEMORY_MIB,
    },
  ];
}
