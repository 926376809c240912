import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type Child, startChild } from "./child.ts";
import type { Connection, Held } from "./children/app.ts";
import type { WatchFigures, WatchLoad } from "./children/watch-orders.ts";
import { type Bench, type Measure, milliseconds, type Row, ratioAtMost, type Verdict } from "./measure.ts";
import { takeTurns } from "./rounds.ts";

/** From a command's answer to the message of whoever watches the order. */
export const watch: Measure = {
  name: "watch",
  about: "from a command's acknowledgment to the watcher's message, over gRPC; with readers who never read, against without",
  run,
};

const ONE_EACH: WatchLoad = {
  orders: 100,
  watchersEach: 1,
  idleEach: 0,
  changesBefore: 0,
  perSecond: 200,
  warmUpMs: 1000,
  measureMs: 3000,
};
/** 900 who read; with 100 who do not, for whom by then much more has come than waits on its way to a client. */
const NINE_EACH: WatchLoad = {
  orders: 100,
  watchersEach: 9,
  idleEach: 0,
  changesBefore: 50,
  perSecond: 100,
  warmUpMs: 3000,
  measureMs: 5000,
};
const WITH_IDLE: WatchLoad = { ...NINE_EACH, idleEach: 1 };

const BOUND_P50_MS = 10;
const BOUND_P99_MS = 50;

async function run({ mongodbUrl, folder, longRounds, say }: Bench): Promise<Row[]> {
  const dataDir = join(folder, "ordertrail-watch");
  await mkdir(dataDir, { recursive: true });
  await using app = await startChild<"connection" | "heap", Held>("children/app.ts", {
    mongodbUrl,
    database: "bench_watch",
    folder: dataDir,
  });
  await using other = await startChild<"connection", Connection>("children/app.ts", {
    mongodbUrl,
    database: "bench_watch",
    folder: dataDir,
  });
  const { address, token } = await app.ask("connection");
  const { address: otherAddress } = await other.ask("connection");
  await using watching: Child<WatchLoad, WatchFigures> = await startChild("children/watch-orders.ts", { address, token });
  await using elsewhere: Child<WatchLoad, WatchFigures> = await startChild("children/watch-orders.ts", { address, token, otherAddress });
  say("100 watchers, 200 commands/s");
  const { one, far } = await takeTurns(longRounds, { one: () => watching.ask(ONE_EACH), far: () => elsewhere.ask(ONE_EACH) });
  say("900 watchers, with and without 100 who never read");
  const heap: number[] = [];
  const { all, idle } = await takeTurns(longRounds, {
    all: () => watching.ask(NINE_EACH),
    idle: async () => {
      const figures = await watching.ask(WITH_IDLE);
      heap.push((await app.ask("heap")).heapMib);
      return figures;
    },
  });
  const ours = (figures: WatchFigures) =>
    `p50 ${milliseconds(figures.p50Ms)}, p99 ${milliseconds(figures.p99Ms)}, ${Math.round(figures.early * 100)} % before the answer itself`;
  const what = "from a command's acknowledgment to the watcher's message, 200 commands/s, 100 watchers";
  return [
    { what: `${what}: p50`, ours: ours(one), against: `who watches at another process: ${ours(far)}`, ...atMost(one.p50Ms, BOUND_P50_MS) },
    { what: `${what}: p99`, ours: ours(one), against: `who watches at another process: ${ours(far)}`, ...atMost(one.p99Ms, BOUND_P99_MS) },
    {
      what: "1,000 watchers of which 100 never read: the others' p99 from the sending of the command",
      ours: `p99 ${milliseconds(idle.p99FromSendingMs)}; after the answer: ${ours(idle)}; the server's heap after each round: ${heap.map((mib) => `${Math.round(mib)} MiB`).join(", ")}`,
      against: `900 watchers who all read: p99 ${milliseconds(all.p99FromSendingMs)}; after the answer: ${ours(all)}`,
      ...ratioAtMost(idle.p99FromSendingMs / all.p99FromSendingMs, 1.5),
    },
  ];
}

function atMost(timeMs: number, boundMs: number): Verdict {
  return { figure: milliseconds(timeMs), target: `at most ${boundMs} ms`, reached: timeMs <= boundMs };
}
