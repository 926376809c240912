import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { startNatsServer } from "../src/embedded/nats-server.ts";
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

type Watching = Child<WatchLoad, WatchFigures>;

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
  perSecond: 50,
  warmUpMs: 3000,
  measureMs: 5000,
};
const WITH_IDLE: WatchLoad = { ...NINE_EACH, idleEach: 1 };

const BOUND_P50_MS = 10;
const BOUND_P99_MS = 50;

async function run(bench: Bench): Promise<Row[]> {
  return [...(await afterAnswers(bench)), await besideIdle(bench)];
}

async function afterAnswers({ mongodbUrl, folder, longRounds, say }: Bench): Promise<Row[]> {
  await using cleanUp = new AsyncDisposableStack();
  const nats = await startNatsServer({ dataDir: join(folder, "nats-watch") });
  cleanUp.defer(() => nats.stop());
  const knowledge = { mongodbUrl, natsUrl: nats.url, database: "bench_watch", folder: await appFolder(folder) };
  await using app = await startChild<"connection", Connection>("children/app.ts", knowledge);
  await using other = await startChild<"connection", Connection>("children/app.ts", knowledge);
  const connection = await app.ask("connection");
  const { address: otherAddress } = await other.ask("connection");
  await using watching: Watching = await startChild("children/watch-orders.ts", connection);
  await using elsewhere: Watching = await startChild("children/watch-orders.ts", { ...connection, otherAddress });
  say("100 watchers, 200 commands/s");
  const { here, there } = await takeTurns(longRounds, { here: () => watching.ask(ONE_EACH), there: () => elsewhere.ask(ONE_EACH) });
  const what = "from a command's acknowledgment to the watcher's message, 200 commands/s, 100 watchers";
  const against = `who watches at another process, which hears of it by NATS: ${lagsOf(there)}`;
  return [
    { what: `${what}: p50`, ours: lagsOf(here), against, ...atMost(here.p50Ms, BOUND_P50_MS) },
    { what: `${what}: p99`, ours: lagsOf(here), against, ...atMost(here.p99Ms, BOUND_P99_MS) },
  ];
}

async function besideIdle({ mongodbUrl, folder, longRounds, say }: Bench): Promise<Row> {
  const knowledge = { mongodbUrl, database: "bench_watch_idle", folder: await appFolder(folder) };
  await using app = await startChild<"connection" | "heap", Held>("children/app.ts", knowledge);
  await using watching: Watching = await startChild("children/watch-orders.ts", await app.ask("connection"));
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
  const whole = (figures: WatchFigures) => `p99 ${milliseconds(figures.p99FromSendingMs)}; after the answer: ${lagsOf(figures)}`;
  return {
    what: "1,000 watchers of which 100 never read: the others' p99 from the sending of the command",
    ours: `${whole(idle)}; the server's heap after each round: ${heap.map((mib) => `${Math.round(mib)} MiB`).join(", ")}`,
    against: `900 watchers who all read: ${whole(all)}`,
    ...ratioAtMost(idle.p99FromSendingMs / all.p99FromSendingMs, 1.5),
  };
}

async function appFolder(folder: string): Promise<string> {
  const dataDir = join(folder, "ordertrail-watch");
  await mkdir(dataDir, { recursive: true });
  return dataDir;
}

function lagsOf({ p50Ms, p99Ms, early }: WatchFigures): string {
  return `p50 ${milliseconds(p50Ms)}, p99 ${milliseconds(p99Ms)}, ${Math.round(early * 100)} % before the answer itself`;
}

function atMost(timeMs: number, boundMs: number): Verdict {
  return { figure: milliseconds(timeMs), target: `at most ${boundMs} ms`, reached: timeMs <= boundMs };
}
