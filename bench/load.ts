import { setTimeout as pause } from "node:timers/promises";
import { build } from "hdr-histogram-js";
import { cpuTimeOf } from "./cpu-time.ts";

/** How hard and how long a contender is driven. */
export type Load = {
  /** How many calls are away at any time: as soon as one is answered, the next is made. */
  readonly inFlight: number;
  /** Driven for this long before anything is counted. */
  readonly warmUpMs: number;
  readonly measureMs: number;
  /** The process that answers, and the mongod behind it, where what they spend on a call is wanted. */
  readonly spenders?: { readonly server: number; readonly mongod?: number };
};

/** What came of a load. Latencies are those of the calls that were answered while it was measured. */
export type LoadFigures = {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** CPU time a call, in microseconds: of this process, and of the spenders. */
  readonly clientMicros: number;
  readonly serverMicros: number;
  readonly mongodMicros: number;
};

const HIGHEST_MICROSECONDS = 120_000_000;

/** Drives a call in a closed loop, and resolves when all that it began is answered. Rejects when a call does. */
export async function drive(call: () => Promise<unknown>, { inFlight, warmUpMs, measureMs, spenders }: Load): Promise<LoadFigures> {
  const histogram = build({ lowestDiscernibleValue: 1, highestTrackableValue: HIGHEST_MICROSECONDS, numberOfSignificantValueDigits: 3 });
  const from = performance.now() + warmUpMs;
  const to = from + measureMs;

  async function keepCalling(): Promise<void> {
    for (let began = performance.now(); began < to; ) {
      await call();
      const answered = performance.now();
      if (answered >= from && answered < to) histogram.recordValue(Math.max(1, Math.round((answered - began) * 1000)));
      began = answered;
    }
  }

  const pids = [process.pid, spenders?.server, spenders?.mongod];
  const spent = () => pids.map((pid) => (pid === undefined ? 0 : cpuTimeOf(pid)));
  const spending = Promise.all([pause(warmUpMs).then(spent), pause(warmUpMs + measureMs).then(spent)]);
  await Promise.all(Array.from({ length: inFlight }, keepCalling));
  const [before, after] = await spending;
  const [clientMicros = 0, serverMicros = 0, mongodMicros = 0] = after.map(
    (time, index) => (time - (before[index] ?? 0)) / histogram.totalCount,
  );
  return {
    clientMicros,
    serverMicros,
    mongodMicros,
    perSecond: (histogram.totalCount * 1000) / measureMs,
    p50Ms: histogram.getValueAtPercentile(50) / 1000,
    p99Ms: histogram.getValueAtPercentile(99) / 1000,
  };
}
