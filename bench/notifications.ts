import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { type NatsServer, startNatsServer } from "../src/embedded/nats-server.ts";
import { type Child, startChild } from "./child.ts";
import type { PlayedMessages, SandboxTask, Taken } from "./children/message-sandbox.ts";
import type { NotifierAnswer, NotifierTask } from "./children/notifier.ts";
import type { PostMails } from "./children/post-mails.ts";
import { type Bench, type Measure, milliseconds, perSecond, type Row, ratioAtLeast } from "./measure.ts";
import { median, takeTurns } from "./rounds.ts";

/** Messages, from an order's event to the provider. */
export const notifications: Measure = {
  name: "notifications",
  about: "messages from an order's event to the provider's acceptance, against bare posts; how soon; beside a provider that hangs",
  run,
};

type Sandbox = Child<SandboxTask, PlayedMessages | readonly Taken[]>;
type App = Child<NotifierTask, NotifierAnswer>;

const IN_FLIGHT = 64;
const MESSAGES = 4000;
const QUICK_MESSAGES = 1500;
const PACED = 200;
const PACE_MS = 50;
const LOOK_MS = 50;
const BOUND_P50_MS = 25;
const BOUND_P99_MS = 100;
const PATIENCE_MS = 120_000;

async function run(bench: Bench): Promise<Row[]> {
  const { folder, longRounds, bigLogEntries, say } = bench;
  await using cleanUp = new AsyncDisposableStack();
  const nats = await startNatsServer({ dataDir: join(folder, "nats-notifications") });
  cleanUp.defer(() => nats.stop());
  await using sandbox: Sandbox = await startChild("children/message-sandbox.ts", null);
  const played = (await sandbox.ask("settings")) as PlayedMessages;
  await using posts = await startChild<PostMails, { perSecond: number }>("children/post-mails.ts", played);
  const messages = bigLogEntries < 1_000_000 ? QUICK_MESSAGES : MESSAGES;
  const world = { bench, nats, sandbox, played };
  let round = 0;

  say(`${messages.toLocaleString("en")} emails, ${IN_FLIGHT} at a time`);
  const { ours, bare } = await takeTurns(longRounds, {
    ours: () => sendAll(world, `bench_notify_${round++}`, messages),
    bare: () => posts.ask({ messages, inFlight: IN_FLIGHT }),
  });

  say(`an email for each of ${PACED} orders, one after the other`);
  const lags = await lagsOf(world);

  say("emails beside SMS, and beside SMS whose provider hangs");
  const half = Math.round(messages / 2);
  const { beside, hanging } = await takeTurns(longRounds, {
    beside: () => sendBeside(world, `bench_notify_${round++}`, half, false),
    hanging: () => sendBeside(world, `bench_notify_${round++}`, half, true),
  });
  const what = "from an order's event to the provider's request, idle";
  const spread = `p50 ${milliseconds(lags.p50)}, p99 ${milliseconds(lags.p99)}`;
  return [
    {
      what: "notifications/s from event to acceptance by the provider, all entries logged, one process",
      ours: perSecond(ours.perSecond),
      against: `bare posts by SendGrid's own library to the same endpoint, as many at a time: ${perSecond(bare.perSecond)}`,
      ...ratioAtLeast(ours.perSecond / bare.perSecond, 0.35),
    },
    { what: `${what}: p50`, ours: spread, against: "a bound", ...atMost(lags.p50, BOUND_P50_MS) },
    { what: `${what}: p99`, ours: spread, against: "a bound", ...atMost(lags.p99, BOUND_P99_MS) },
    {
      what: "emails/s while every call to the SMS provider hangs for 30 s",
      ours: perSecond(hanging.perSecond),
      against: `while it answers: ${perSecond(beside.perSecond)}`,
      ...ratioAtLeast(hanging.perSecond / beside.perSecond, 0.95),
    },
  ];
}

type World = {
  readonly bench: Bench;
  readonly nats: NatsServer;
  readonly sandbox: Sandbox;
  readonly played: PlayedMessages;
};

/** Has orders ready, then starts a process that notifies, and answers how many emails a second were accepted and logged. */
async function sendAll(world: World, database: string, emails: number): Promise<{ perSecond: number }> {
  await prepare(world, database, { email: emails, sms: 0 });
  await using notifier = await startApp(world, database, "relay,notifier");
  return await untilDone(async () => {
    const { accepted, firstMs, lastMs } = await notifier.ask("accepted");
    return accepted >= emails ? { perSecond: (accepted / (lastMs - firstMs)) * 1000 } : undefined;
  });
}

/** The same with as many SMS beside the emails, by when the provider took them; its SMS calls may hang, each for as long as they may. */
async function sendBeside(world: World, database: string, emails: number, hangs: boolean): Promise<{ perSecond: number }> {
  await prepare(world, database, { email: emails, sms: emails });
  if (hangs) await world.sandbox.ask({ hangSms: emails * 2 });
  await using _notifier = await startApp(world, database, "relay,notifier");
  return await untilDone(async () => {
    const taken = (await world.sandbox.ask("taken")) as readonly Taken[];
    const times = taken.filter(({ channel }) => channel === "email").map(({ atMs }) => atMs);
    return times.length >= emails ? { perSecond: (emails / (Math.max(...times) - Math.min(...times))) * 1000 } : undefined;
  });
}

async function prepare(world: World, database: string, orders: { readonly email: number; readonly sms: number }): Promise<void> {
  await world.sandbox.ask("clear");
  await using writer = await startApp(world, database, "api,relay");
  await writer.ask({ submit: orders });
}

async function untilDone<Figures>(look: () => Promise<Figures | undefined>): Promise<Figures> {
  for (const until = performance.now() + PATIENCE_MS; ; await pause(LOOK_MS)) {
    const figures = await look();
    if (figures) return figures;
    if (performance.now() > until) throw new Error("not all emails were accepted in two minutes");
  }
}

/** How long after an order's event the provider is asked, of orders one after the other. */
async function lagsOf(world: World): Promise<{ p50: number; p99: number }> {
  await world.sandbox.ask("clear");
  await using app = await startApp(world, "bench_notify_paced", "api,projector,relay,notifier");
  await app.ask({ pace: 20, everyMs: PACE_MS });
  const { events } = await app.ask({ pace: PACED, everyMs: PACE_MS });
  await pause(1000);
  const taken = new Map(((await world.sandbox.ask("taken")) as readonly Taken[]).map(({ reference, atMs }) => [reference, atMs]));
  const lags = events
    .map(({ reference, atMs }) => (taken.get(reference) ?? Number.POSITIVE_INFINITY) - atMs)
    .sort((one, other) => one - other);
  return { p50: median(lags), p99: lags[Math.ceil(lags.length * 0.99) - 1] ?? Number.NaN };
}

async function startApp({ bench, nats, played }: World, database: string, roles: string): Promise<App> {
  const folder = join(bench.folder, database);
  await mkdir(folder, { recursive: true });
  const environment = {
    ...{ MONGODB_URL: bench.mongodbUrl, DATABASE_NAME: database, DATA_DIR: folder, NATS_URL: nats.url, NATS_PREFIX: database },
    ...{ ROLES: roles, GRPC_PORT: "0", HTTP_PORT: "0", NOTIFY_PER_MINUTE: "1000", NOTIFY_PROVIDER_PER_SECOND: "100000" },
    ...{ NOTIFY_AT_ONCE: String(IN_FLIGHT), NOTIFY_ANSWER_MS: "30000", ...played.environment },
  };
  return await startChild("children/notifier.ts", environment);
}

function atMost(timeMs: number, boundMs: number) {
  return { figure: milliseconds(timeMs), target: `at most ${boundMs} ms`, reached: timeMs <= boundMs };
}
