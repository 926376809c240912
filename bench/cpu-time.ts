import { readFileSync } from "node:fs";

/** What the kernel counts in: 100 ticks a second, on every Linux. */
const MICROSECONDS_A_TICK = 10_000;

/** The CPU time that a process has used so far, in microseconds; not a number where the kernel does not tell it so. */
export function cpuTimeOf(pid: number): number {
  try {
    // The name, in brackets, may hold spaces; what follows it is in columns.
    const columns = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ");
    return (Number(columns[11]) + Number(columns[12])) * MICROSECONDS_A_TICK;
  } catch {
    return Number.NaN;
  }
}
