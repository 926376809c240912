import { join } from "node:path";
import { startNatsServer } from "../src/embedded/nats-server.ts";
import { startChild } from "./child.ts";
import { type Bench, type Measure, perSecond, type Row, ratioAtLeast } from "./measure.ts";
import { takeTurns } from "./rounds.ts";

const ENTRIES = 50_000;
const QUICK_ENTRIES = 10_000;

/** The relay against bare publishes of the same payloads. */
export const relay: Measure = {
  name: "relay",
  about: "the relay's entries into JetStream, from the log, against bare publishes of the same payloads",
  run,
};

async function run({ mongodbUrl, rounds, folder, bigLogEntries, logOf }: Bench): Promise<Row[]> {
  const { database, entries } = await logOf(bigLogEntries < 1_000_000 ? QUICK_ENTRIES : ENTRIES);
  const nats = await startNatsServer({ dataDir: join(folder, "nats-relay") });
  await using cleanUp = new AsyncDisposableStack();
  cleanUp.defer(() => nats.stop());
  const knowledge = { mongodbUrl, database, natsUrl: nats.url };
  await using ours = await startChild<number, { perSecond: number }>("children/relay.ts", { ...knowledge, by: "relay" });
  await using theirs = await startChild<number, { perSecond: number }>("children/relay.ts", { ...knowledge, by: "publish" });
  const figures = await takeTurns(rounds, { ours: () => ours.ask(entries), theirs: () => theirs.ask(entries) });
  return [
    {
      what: `relaying a log of ${entries.toLocaleString("en")} entries into JetStream, on files`,
      ours: perSecond(figures.ours.perSecond),
      against: `bare \`js.publish\` of the same payloads, as many at a time: ${perSecond(figures.theirs.perSecond)}`,
      ...ratioAtLeast(figures.ours.perSecond / figures.theirs.perSecond, 0.7),
    },
  ];
}
