import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

/** What tells one process from another that got the same id later. */
export type ProcessIdentity = {
  /** When it started, in the system's own words: only good for comparing. */
  readonly startedAt: string;
  /** Its command line, arguments separated by spaces. */
  readonly command: string;
};

/** The identity of a living process; undefined when there is none with this id, or only one whose end nobody has asked for. */
export function identifyProcess(pid: number): ProcessIdentity | undefined {
  return process.platform === "linux" ? identifyByProc(pid) : identifyByPs(pid);
}

function identifyByProc(pid: number): ProcessIdentity | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The second field is the program's name in brackets and may hold spaces: count from the last bracket (proc(5)).
    const [state, ...rest] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const startedAt = rest[18];
    // While other threads of an ended program go on, so do its files and ports.
    const isOver = state === "Z" && Number(rest[16]) <= 1;
    if (isOver || startedAt === undefined) return undefined;
    const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trimEnd();
    return { startedAt, command };
  } catch {
    return undefined;
  }
}

function identifyByPs(pid: number): ProcessIdentity | undefined {
  try {
    const ps = (column: string) => execFileSync("ps", ["-o", `${column}=`, "-p", String(pid)], { encoding: "utf8", stdio: "pipe" }).trim();
    return ps("state").startsWith("Z") ? undefined : { startedAt: ps("lstart"), command: ps("command") };
  } catch {
    return undefined;
  }
}
