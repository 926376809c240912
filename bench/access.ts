import { type Child, startChild } from "./child.ts";
import type { Guarded, GuardedKnowledge } from "./children/guarded-server.ts";
import type { CallFigures } from "./grpc-caller.ts";
import type { Load } from "./load.ts";
import { type Bench, type Measure, milliseconds, perSecond, type Row, ratioAtLeast } from "./measure.ts";
import { takeTurns } from "./rounds.ts";

/** What looking at who calls costs a call that does next to nothing else. */
export const access: Measure = {
  name: "access",
  about: "GetTracking from memory over gRPC, by 200 callers, with token verification and permission check, against without; 64 in flight",
  run,
};

type Calling = Child<Load, CallFigures>;

const IN_FLIGHT = 64;
/** Their tokens have to fit into one argument of a process. */
const CALLERS = 200;

async function run({ mongodbUrl, rounds, load }: Bench): Promise<Row[]> {
  const start = (guarded: boolean) =>
    startChild<"address", Guarded>("children/guarded-server.ts", {
      mongodbUrl,
      database: `bench_access_${guarded}`,
      guarded,
      callers: CALLERS,
    } satisfies GuardedKnowledge);
  await using open = await start(false);
  await using guarded = await start(true);
  await using callingOpen: Calling = await startChild("children/call-guarded.ts", await open.ask("address"));
  await using callingGuarded: Calling = await startChild("children/call-guarded.ts", await guarded.ask("address"));
  const task = { ...load, inFlight: IN_FLIGHT };
  const figures = await takeTurns(rounds, { guarded: () => callingGuarded.ask(task), open: () => callingOpen.ask(task) });
  return [
    {
      what: `GetTracking over gRPC, answered from memory, with token verification and permission check, ${CALLERS} callers, 64 in flight`,
      ours: `${perSecond(figures.guarded.perSecond)}, p99 ${milliseconds(figures.guarded.p99Ms)}`,
      against: `the same without: ${perSecond(figures.open.perSecond)}, p99 ${milliseconds(figures.open.p99Ms)}`,
      ...ratioAtLeast(figures.guarded.perSecond / figures.open.perSecond, 0.9),
    },
  ];
}
