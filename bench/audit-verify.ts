import { join } from "node:path";
import { MongoClient } from "mongodb";
import { EVENTS_COLLECTION, type StoredEvent } from "../src/log/log-entry.ts";
import { startChild } from "./child.ts";
import type { AuditConnection } from "./children/audit-app.ts";
import type { Verification } from "./children/audit-verify.ts";
import type { Load, LoadFigures } from "./load.ts";
import { type Bench, type Measure, milliseconds, perSecond, type Row, ratioAtLeast, ratioAtMost } from "./measure.ts";
import type { PreparedLog } from "./prepared-log.ts";
import { takeTurns } from "./rounds.ts";

/** Verifying a long log, and proving an order of it, against a short one. */
export const auditVerify: Measure = {
  name: "audit-verify",
  about: "`audit verify` over HTTP at 1,000,000 entries against 10,000, its memory; proofs for an order likewise",
  run,
};

const SHORT_ENTRIES = 10_000;
const WARM_UPS = 5;
const MEMORY_MIB = 512;
const ORDERS = 500;
const ORDER_ENTRIES = 3;

async function run(bench: Bench): Promise<Row[]> {
  const { rounds, longRounds, load, bigLogEntries, logOf, say } = bench;
  const short = await logOf(SHORT_ENTRIES);
  const long = await logOf(bigLogEntries);
  await using stack = new AsyncDisposableStack();
  const ofShort = await startContenders(bench, short, stack);
  const ofLong = await startContenders(bench, long, stack);
  // A long verification warms up in its first seconds; a short one is over by then.
  for (let count = 0; count < WARM_UPS; count++) await ofShort.verifying.ask("verify");
  await ofLong.verifying.ask("verify");
  say("verifying");
  let peakMib = 0;
  const verified = await takeTurns(longRounds, {
    short: () => ofShort.verifying.ask("verify"),
    long: async () => {
      const figures = await ofLong.verifying.ask("verify");
      peakMib = Math.max(peakMib, figures.peakMib);
      return figures;
    },
  });
  say("proving");
  const task = { ...load, inFlight: 1 };
  const proved = await takeTurns(rounds, { short: () => ofShort.proving.ask(task), long: () => ofLong.proving.ask(task) });
  const entries = long.entries.toLocaleString("en");
  const few = short.entries.toLocaleString("en");
  return [
    {
      what: `\`audit verify\` of ${entries} entries, over HTTP`,
      ours: perSecond(verified.long.perSecond),
      against: `of ${few}: ${perSecond(verified.short.perSecond)}`,
      ...ratioAtLeast(verified.long.perSecond / verified.short.perSecond, 0.9),
    },
    {
      what: `peak memory of \`audit verify\` of ${entries} entries`,
      ours: `${Math.round(peakMib)} MiB`,
      against: `the limit: ${MEMORY_MIB} MiB`,
      figure: `${Math.round(peakMib)} MiB`,
      target: `under ${MEMORY_MIB} MiB`,
      reached: peakMib < MEMORY_MIB,
    },
    {
      what: `inclusion proofs for one order of a log of ${entries} entries, p50`,
      ours: milliseconds(proved.long.p50Ms),
      against: `of ${few}: ${milliseconds(proved.short.p50Ms)}`,
      ...ratioAtMost(proved.long.p50Ms / proved.short.p50Ms, 2),
    },
  ];
}

async function startContenders({ mongodbUrl, folder, say }: Bench, { database, entries }: PreparedLog, stack: AsyncDisposableStack) {
  say(`making the tree of ${entries.toLocaleString("en")} entries`);
  const knowledge = { mongodbUrl, database, entries, folder: join(folder, database) };
  const app = stack.use(await startChild<"connection", AuditConnection>("children/audit-app.ts", knowledge));
  const connection = await app.ask("connection");
  const orderIds = await ordersUnderWay(mongodbUrl, database);
  return {
    verifying: stack.use(await startChild<"verify", Verification>("children/audit-verify.ts", connection)),
    proving: stack.use(await startChild<Load, LoadFigures>("children/audit-prove.ts", { ...connection, orderIds })),
  };
}

/** Some orders of so many entries, as both logs have them: orders under way. */
async function ordersUnderWay(mongodbUrl: string, database: string): Promise<string[]> {
  const client = await new MongoClient(mongodbUrl).connect();
  try {
    const events = client.db(database).collection<StoredEvent>(EVENTS_COLLECTION);
    const sampled = events.aggregate<{ readonly _id: string }>([
      { $match: { version: { $in: [ORDER_ENTRIES, ORDER_ENTRIES + 1] } } },
      { $group: { _id: "$stream", entries: { $max: "$version" } } },
      { $match: { entries: ORDER_ENTRIES } },
      { $sample: { size: ORDERS } },
    ]);
    return (await sampled.toArray()).map(({ _id }) => _id.replace(/^order-/, ""));
  } finally {
    await client.close();
  }
}
