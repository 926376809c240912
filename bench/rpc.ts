import { mkdir } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { type Child, startChild } from "./child.ts";
import type { Connection } from "./children/app.ts";
import type { CallFigures } from "./grpc-caller.ts";
import type { Load } from "./load.ts";
import { type Bench, type Measure, microseconds, milliseconds, perSecond, type Row, ratioAtLeast } from "./measure.ts";
import { takeTurns } from "./rounds.ts";

/** Calls over gRPC against a bare echo. */
export const rpc: Measure = {
  name: "rpc",
  about: "UpdateStatus and GetTracking over gRPC, with token and validation, against a bare grpc-js echo; 64 in flight",
  run,
};

type Calling = Child<Load, CallFigures>;

const SIZING: Omit<Load, "inFlight"> = { warmUpMs: 500, measureMs: 500 };
const IN_FLIGHT = 64;

async function run({ mongodbUrl, mongodPid, folder, rounds, load, say }: Bench): Promise<Row[]> {
  const dataDir = join(folder, "ordertrail");
  await mkdir(dataDir, { recursive: true });
  await using app = await startChild<"connection", Connection>("children/app.ts", { mongodbUrl, database: "bench_rpc", folder: dataDir });
  const connection = await app.ask("connection");
  say("opening orders");
  await using updating: Calling = await startChild("children/call-update-status.ts", connection);
  await using getting: Calling = await startChild("children/call-get-tracking.ts", connection);
  await using stack = new AsyncDisposableStack();
  const updateEcho = await startEcho(await updating.ask({ ...SIZING, inFlight: IN_FLIGHT }), stack);
  const getEcho = await startEcho(await getting.ask({ ...SIZING, inFlight: IN_FLIGHT }), stack);
  say("calling");
  const task = { ...load, inFlight: IN_FLIGHT };
  const spenders = { server: app.pid, mongod: mongodPid };
  const figures = await takeTurns(rounds, {
    update: () => updating.ask({ ...task, spenders }),
    updateEcho: () => updateEcho(task),
    get: () => getting.ask({ ...task, spenders }),
    getEcho: () => getEcho(task),
  });
  return [rowOf("UpdateStatus", figures.update, figures.updateEcho, 0.4), rowOf("GetTracking", figures.get, figures.getEcho, 0.5)];
}

/** Starts an echo of messages of these sizes, in a process of its own, and another that calls it; returns what drives that. */
async function startEcho({ requestBytes, responseBytes }: CallFigures, stack: AsyncDisposableStack): Promise<Calling["ask"]> {
  const server = stack.use(await startChild<"address", string>("children/echo-server.ts", { responseBytes }));
  const caller = stack.use(
    await startChild<Load, CallFigures>("children/call-echo.ts", { address: await server.ask("address"), requestBytes }),
  );
  return (task) => caller.ask({ ...task, spenders: { server: server.pid } });
}

function rowOf(method: string, ours: CallFigures, echo: CallFigures, bound: number): Row {
  return {
    what: `${method} over gRPC, with token and validation, 64 in flight`,
    ours: `${perSecond(ours.perSecond)}, p99 ${milliseconds(ours.p99Ms)}; ${spending(ours)}`,
    against: `a bare grpc-js echo, ${echo.requestBytes} bytes in and ${echo.responseBytes} out: ${perSecond(echo.perSecond)}, p99 ${milliseconds(echo.p99Ms)}; ${spending(echo)}`,
    ...ratioAtLeast(ours.perSecond / echo.perSecond, bound),
  };
}

/** Where the time of a call goes, and how many calls there could be if no core ever waited. */
function spending({ clientMicros, serverMicros, mongodMicros }: CallFigures): string {
  const most = (availableParallelism() * 1e6) / (clientMicros + serverMicros + mongodMicros);
  const mongod = mongodMicros > 0 ? `, mongod ${microseconds(mongodMicros)}` : "";
  return `CPU a call: client ${microseconds(clientMicros)}, server ${microseconds(serverMicros)}${mongod}; all cores busy, that would be ${perSecond(most)}`;
}
