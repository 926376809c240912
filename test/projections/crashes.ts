import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

const SCRIPT = fileURLToPath(new URL("projector-process.ts", import.meta.url));

export type ProjectorProcess = AsyncDisposable & {
  readonly pid: number;
  /** Resolves when it is gone: how it ended, and what it said. */
  readonly ended: Promise<{ readonly signal: string | null; readonly code: number | null; readonly said: readonly string[] }>;
  kill(signal: "SIGKILL" | "SIGSTOP" | "SIGCONT"): void;
};

/** Starts a projector in a process of its own, and waits until it is at work. It is killed at the end of the `await using` block. */
export async function startProjectorProcess(
  log: { readonly url: string; readonly name: string },
  options: { readonly leaseMs: number; readonly until?: "killed" | "rebuild"; readonly killAt?: string | number },
): Promise<ProjectorProcess> {
  const { leaseMs, until = "killed", killAt = 0 } = options;
  const args = [SCRIPT, log.url, log.name, String(leaseMs), until, String(killAt)];
  const child: ChildProcess = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const said: string[] = [];
  child.stdout?.setEncoding("utf8").on("data", (text: string) => said.push(...text.split("\n").filter((line) => line !== "")));
  const ended = once(child, "close").then(([code, signal]) => ({ code, signal, said }));
  await Promise.race([once(child.stdout as NonNullable<typeof child.stdout>, "data"), ended]);
  return {
    pid: child.pid ?? 0,
    ended,
    kill: (signal) => process.kill(child.pid ?? 0, signal),
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}
