import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { startNatsServer } from "../src/embedded/nats-server.ts";
import { startChild } from "./child.ts";
import type { Connection, Held } from "./children/app.ts";
import type { FollowFigures, FollowTask } from "./children/follow-drivers.ts";
import type { PointFigures, PointLoad } from "./children/send-points.ts";
import { type Bench, type Measure, milliseconds, perSecond, type Row, ratioAtLeast, ratioAtMost } from "./measure.ts";
import { takeTurns } from "./rounds.ts";

const ONE_EACH = { messages: 40_000, pointsEach: 1 };
const TWENTY_EACH = { messages: 10_000, pointsEach: 20 };
const QUICK = { drivers: 300, seconds: 10 };
const WHOLE = { drivers: 5000, seconds: 60 };
/** The minutes that are driven. */
const MINUTES = 5;
/** All drivers begin in one second, which no fleet does, and with an order's first point its log is read: counted for what is lost, not for how long it takes. */
const WARM_UP_SECONDS = 10;

/** Drivers' points: taken from one stream, and passed on from many drivers to who follows them. */
export const locations: Measure = {
  name: "locations",
  about: "drivers' points: taken from one stream, against a bare sink; from 5,000 drivers to their watchers, for five minutes",
  run,
};

async function run(bench: Bench): Promise<Row[]> {
  return [...(await onOneStream(bench)), ...(await fromManyDrivers(bench))];
}

async function onOneStream({ mongodbUrl, folder, rounds, say }: Bench): Promise<Row[]> {
  await using cleanUp = new AsyncDisposableStack();
  const nats = await startNatsServer({ dataDir: join(folder, "nats-points") });
  cleanUp.defer(() => nats.stop());
  const knowledge = { mongodbUrl, natsUrl: nats.url, database: "bench_points", folder: await appFolder(folder, "points") };
  await using app = await startChild<"connection", Connection>("children/app.ts", knowledge);
  await using sink = await startChild<"address", string>("children/point-sink.ts", {});
  await using sender = await startChild<PointLoad, PointFigures>("children/send-points.ts", {
    ...(await app.ask("connection")),
    sinkAddress: await sink.ask("address"),
  });
  say("points on one stream");
  const { one, bare, twenty } = await takeTurns(rounds, {
    one: () => sender.ask({ ...ONE_EACH, to: "ordertrail" }),
    bare: () => sender.ask({ ...ONE_EACH, to: "sink" }),
    twenty: () => sender.ask({ ...TWENTY_EACH, to: "ordertrail" }),
  });
  const what = "points of 100 orders on one stream, checked and published over NATS";
  return [
    {
      what: `${what}: one a message`,
      ours: perSecond(one.perSecond),
      against: `a bare grpc-js client-stream sink of the same messages, not decoded: ${perSecond(bare.perSecond)}`,
      ...ratioAtLeast(one.perSecond / bare.perSecond, 0.6),
    },
    {
      what: `${what}: 20 a message`,
      ours: perSecond(twenty.perSecond),
      against: `one a message: ${perSecond(one.perSecond)}`,
      ...ratioAtLeast(twenty.perSecond / one.perSecond, 4),
    },
  ];
}

async function fromManyDrivers({ mongodbUrl, folder, bigLogEntries, say }: Bench): Promise<Row[]> {
  const { drivers, seconds } = bigLogEntries < 1_000_000 ? QUICK : WHOLE;
  await using cleanUp = new AsyncDisposableStack();
  const nats = await startNatsServer({ dataDir: join(folder, "nats-drivers") });
  cleanUp.defer(() => nats.stop());
  const knowledge = { mongodbUrl, natsUrl: nats.url, database: "bench_drivers", folder: await appFolder(folder, "drivers") };
  await using app = await startChild<"connection" | "heap", Held>("children/app.ts", knowledge);
  await using following = await startChild<FollowTask, FollowFigures>("children/follow-drivers.ts", await app.ask("connection"));
  say(`${drivers} drivers, ${drivers} watchers`);
  await following.ask({ drivers });
  const warmUp = await following.ask({ seconds: WARM_UP_SECONDS });
  const minutes: (FollowFigures & { readonly heapMib: number })[] = [];
  for (let minute = 1; minute <= MINUTES; minute++) {
    const figures = await following.ask({ seconds });
    minutes.push({ ...figures, heapMib: (await app.ask("heap")).heapMib });
  }
  const lost = minutes.reduce((sum, minute) => sum + minute.lost, warmUp.lost);
  const points = minutes.reduce((sum, minute) => sum + minute.points, warmUp.points);
  const worst = Math.max(...minutes.map(({ p99Ms }) => p99Ms));
  const [first, last] = [minutes[0]?.heapMib ?? Number.NaN, minutes.at(-1)?.heapMib ?? Number.NaN];
  const what = `${drivers.toLocaleString("en")} drivers at one point a second, each watched by one, ${(MINUTES * seconds) / 60} minutes`;
  return [
    {
      what: `${what}: points lost`,
      ours: `${lost} of ${points.toLocaleString("en")}`,
      against: "–",
      figure: String(lost),
      target: "0",
      reached: lost === 0,
    },
    {
      what: `${what}: p99 from the sending of a point to the watcher, in the worst minute`,
      ours: minutes.map(({ p50Ms, p99Ms }) => `${milliseconds(p50Ms)} / ${milliseconds(p99Ms)}`).join(", "),
      against: "–",
      ...{ figure: milliseconds(worst), target: "at most 100 ms", reached: worst <= 100 },
    },
    {
      what: `${what}: the server's heap, when nothing is left that could be let go of`,
      ours: minutes.map(({ heapMib }) => `${Math.round(heapMib)} MiB`).join(", "),
      against: "the first of the minutes",
      ...ratioAtMost(last / first, 1.1),
    },
  ];
}

async function appFolder(folder: string, name: string): Promise<string> {
  const dataDir = join(folder, `ordertrail-${name}`);
  await mkdir(dataDir, { recursive: true });
  return dataDir;
}
