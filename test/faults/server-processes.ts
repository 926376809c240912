import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** Where a server process listens. */
export type ServerAddresses = { readonly grpc: string; readonly http: string };

/** Several processes of the application on one database. */
export type ServerProcesses = AsyncDisposable & {
  /** Where each of them listens at present. One that has just been ended is still among them until another has its place. */
  readonly addresses: readonly ServerAddresses[];
  /** Ends one of them by a signal, and starts another in its place. */
  restart(index: number, signal: "SIGTERM" | "SIGKILL"): Promise<void>;
};

type Running = { readonly child: ChildProcess; readonly ended: Promise<unknown>; readonly addresses: ServerAddresses };

const SCRIPT = fileURLToPath(new URL("../support/app-process.ts", import.meta.url));

/** Starts so many, with this in their environment. They are killed at the end of the `await using` block. */
export async function startServerProcesses(count: number, environment: NodeJS.ProcessEnv): Promise<ServerProcesses> {
  const running: Running[] = [];

  async function start(): Promise<Running> {
    const env = { ...environment, GRPC_PORT: "0", HTTP_PORT: "0" };
    const child = spawn(process.execPath, [SCRIPT], { env, stdio: ["pipe", "pipe", "inherit"] });
    const ended = once(child, "close");
    const lines = createInterface({ input: child.stdout as NonNullable<ChildProcess["stdout"]> });
    const line = await Promise.race([once(lines, "line"), ended.then(() => undefined)]);
    if (!line) throw new Error("a server process ended before it listened");
    return { child, ended, addresses: JSON.parse(String(line[0])) };
  }

  for (let index = 0; index < count; index++) running.push(await start());
  return {
    get addresses() {
      return running.map(({ addresses }) => addresses);
    },
    async restart(index, signal) {
      const before = running[index];
      if (!before) throw new Error(`there is no process ${index}`);
      before.child.kill(signal);
      await before.ended;
      running[index] = await start();
    },
    async [Symbol.asyncDispose]() {
      for (const { child } of running) child.kill("SIGKILL");
      await Promise.all(running.map(({ ended }) => ended));
    },
  };
}
