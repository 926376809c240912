import type { Load } from "./load.ts";
import type { PreparedLog } from "./prepared-log.ts";

/** What a measure works with. */
export type Bench = {
  /** The one mongod of this run: a replica set of one, with its journal on disk. */
  readonly mongodbUrl: string;
  readonly mongodPid: number;
  /** A folder of the run's own. */
  readonly folder: string;
  /** How often each contender is driven; what is reported is the median. */
  readonly rounds: number;
  /** The same where one turn takes long. */
  readonly longRounds: number;
  /** Everything of a load but how many calls are in flight. */
  readonly load: Omit<Load, "inFlight">;
  /** How many entries a big log has. */
  readonly bigLogEntries: number;
  /** A log of so many entries, made of orders' lives when it is first asked for. What is appended to it later must be of no order. */
  logOf(entries: number): Promise<PreparedLog>;
  /** Tells the person who waits what goes on. */
  say(what: string): void;
};

/** A line of the table of results. */
export type Row = {
  readonly what: string;
  readonly ours: string;
  /** What it is compared with, by name and figure. */
  readonly against: string;
} & Verdict;

/** How a figure stands to its target. */
export type Verdict = { readonly figure: string; readonly target: string; readonly reached: boolean };

/** One subject of the benchmark: a few figures that are taken together. */
export type Measure = {
  readonly name: string;
  readonly about: string;
  readonly run: (bench: Bench) => Promise<Row[]>;
};

/** The ratio must be at least the bound. */
export function ratioAtLeast(ratio: number, bound: number): Verdict {
  return { figure: times(ratio), target: `at least ${bound} ×`, reached: ratio >= bound };
}

/** The ratio must be at most the bound. */
export function ratioAtMost(ratio: number, bound: number): Verdict {
  return { figure: times(ratio), target: `at most ${bound} ×`, reached: ratio <= bound };
}

/** A rate for people to read, such as "22,310/s". */
export function perSecond(rate: number): string {
  return `${Math.round(rate).toLocaleString("en")}/s`;
}

/** A time for people to read, such as "0.91 ms". */
export function milliseconds(time: number): string {
  return `${time.toFixed(time < 10 ? 2 : 1)} ms`;
}

/** CPU time for people to read, such as "115 µs". */
export function microseconds(time: number): string {
  return `${Math.round(time)} µs`;
}

function times(ratio: number): string {
  return `${ratio.toFixed(2)} ×`;
}
