import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Command, Option } from "commander";
import { startMongod } from "../src/embedded/mongod.ts";
import { access } from "./access.ts";
import { append } from "./append.ts";
import { appendAtSize } from "./append-at-size.ts";
import { auditTree } from "./audit-tree.ts";
import { auditVerify } from "./audit-verify.ts";
import { emmett } from "./emmett.ts";
import { locations } from "./locations.ts";
import type { Bench, Measure, Row } from "./measure.ts";
import { notifications } from "./notifications.ts";
import { type PreparedLog, prepareLog } from "./prepared-log.ts";
import { processes } from "./processes.ts";
import { readLog } from "./read-log.ts";
import { rebuild } from "./rebuild.ts";
import { relay } from "./relay.ts";
import { formatPage, formatTable, readCircumstances, withSummary } from "./results.ts";
import { rpc } from "./rpc.ts";
import { watch } from "./watch.ts";

/** All that is measured, in the order of the table. */
const MEASURES: readonly Measure[] = [
  append,
  emmett,
  processes,
  relay,
  locations,
  rpc,
  access,
  watch,
  notifications,
  readLog,
  rebuild,
  appendAtSize,
  auditTree,
  auditVerify,
];

// Many short turns rather than few long ones: what else the machine does then meets all contenders alike.
const FULL = { rounds: 9, longRounds: 3, load: { warmUpMs: 500, measureMs: 2000 }, bigLogEntries: 1_000_000 };
const QUICK = { rounds: 3, longRounds: 2, load: { warmUpMs: 300, measureMs: 1000 }, bigLogEntries: 50_000 };

const RESULTS = join(import.meta.dirname, "RESULTS.md");
const README = join(import.meta.dirname, "../README.md");
/** On the project's own disk: in a temporary folder held in memory, durability would cost nothing. */
const SCRATCH = join(import.meta.dirname, "../.cache");

/** The person at the terminal has had enough. */
class Interrupted extends Error {}

const program = new Command("npm run bench --")
  .description(
    "Measures Ordertrail beside what it is compared with, on one mongod of its own, and prints how the figures stand to their targets.",
  )
  .option("--quick", "fewer and shorter rounds, and a log of 50,000 entries; for a look, not for the record", false)
  .addOption(new Option("--only <name...>", "only these measures").choices(MEASURES.map(({ name }) => name)))
  .addHelpText("after", `\nMeasures:\n${MEASURES.map(({ name, about }) => `  ${name.padEnd(16)}${about}`).join("\n")}\n`)
  .addHelpText(
    "after",
    "A full run takes some 15 minutes and writes bench/RESULTS.md and the figures in README.md. Exits with 0 when all targets are reached, with 1 when one is not.",
  )
  .parse();
const { quick, only } = program.opts<{ quick: boolean; only?: string[] }>();

process.exit(await runMeasures().catch(explainFailure));

/** Runs what was asked for, on a mongod of its own, and answers the exit code. */
async function runMeasures(): Promise<number> {
  await using cleanUp = new AsyncDisposableStack();
  await mkdir(SCRATCH, { recursive: true });
  const folder = await mkdtemp(join(SCRATCH, "bench-"));
  cleanUp.defer(() => rm(folder, { recursive: true, force: true }));
  const mongod = await startMongod({ dataDir: join(folder, "mongod") });
  cleanUp.defer(() => mongod.stop());
  const interrupted = Promise.race(["SIGINT", "SIGTERM"].map((signal) => once(process, signal)));

  const circumstances = await readCircumstances(mongod.url);
  const settings = quick ? QUICK : FULL;
  const bench: Bench = { ...settings, mongodbUrl: mongod.url, mongodPid: mongod.pid, folder, logOf: createLogs(mongod.url), say };
  const rows: Row[] = [];
  for (const measure of MEASURES) {
    if (only && !only.includes(measure.name)) continue;
    say(`${measure.name}: ${measure.about}`);
    const measured = await Promise.race([measure.run(bench), interrupted.then(() => Promise.reject(new Interrupted("interrupted")))]);
    for (const { what, figure, target, reached } of measured) say(`  ${reached ? "ok   " : "short"} ${figure} (${target}) ${what}`);
    rows.push(...measured);
  }

  const facts = Object.entries(circumstances).map(([name, value]) => `${name}: ${value}`);
  console.log(`\n${facts.join("\n")}\n\n${formatTable(rows)}\n`);
  if (quick || only) {
    say("bench/RESULTS.md is left as it was: only a full run writes it");
  } else {
    await writeFile(RESULTS, formatPage(rows, circumstances, settings));
    await writeFile(README, withSummary(await readFile(README, "utf8"), rows, circumstances));
    say("written to bench/RESULTS.md, and the figures to README.md");
  }
  return rows.every(({ reached }) => reached) ? 0 : 1;
}

function createLogs(mongodbUrl: string): Bench["logOf"] {
  const logs = new Map<number, Promise<PreparedLog>>();
  return (entries) => {
    let log = logs.get(entries);
    if (!log) {
      say(`making a log of ${entries.toLocaleString("en")} entries`);
      log = prepareLog(mongodbUrl, `bench_log_${entries}`, entries);
      logs.set(entries, log);
    }
    return log;
  };
}

function explainFailure(error: unknown): number {
  if (error instanceof Interrupted) return 130;
  console.error(error);
  return 1;
}

function say(what: string): void {
  console.error(`${new Date().toISOString().slice(11, 19)} ${what}`);
}
