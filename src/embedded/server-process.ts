import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { assertPortFree, findFreePort, isPortFree } from "./free-port.ts";
import { identifyProcess } from "./process-identity.ts";
import { ensureServer, type ServerName } from "./server-binaries.ts";

/** How a server ended: by itself with a code, or by a signal. */
export type ServerExit = { readonly code: number | null; readonly signal: NodeJS.Signals | null };

/** A running server, child of this process. */
export type ServerProcess = {
  readonly pid: number;
  /** Where it listens, on 127.0.0.1. */
  readonly port: number;
  /** Settles when the server has ended, for whatever reason; never rejects. */
  readonly exited: Promise<ServerExit>;
  /** Asks the server to end and waits until it has; ends it by force after 15 seconds. */
  stop(): Promise<void>;
  /** Ends the server at once, as a crash would (SIGKILL), and waits until it is gone. */
  kill(): Promise<void>;
};

/** Where a server lives, whether it runs or not. */
export type ServerFolder = {
  readonly name: ServerName;
  /** The server's own folder: made if absent, and known to hold its data, its log and its pid file. */
  readonly dataDir: string;
  /** The file in `dataDir` to which the server writes its process id. */
  readonly pidFile: string;
};

type ServerCommand = ServerFolder & {
  /** Where to listen on 127.0.0.1; refused at once when another program does. By default, where it was before, or any free port. */
  readonly port: number | undefined;
  readonly args: (port: number) => readonly string[];
  /** Asked again and again until it answers true. */
  readonly isReady: (port: number) => Promise<boolean>;
};

const READY_TIMEOUT_MS = 30_000;
const READY_POLL_MS = 10;
const STOP_TIMEOUT_MS = 15_000;

/**
 * Starts a server and returns when it is ready. It gets a process group of its own, so that Ctrl-C in the terminal
 * reaches this process alone, which then stops its servers when it no longer needs them. The caller must be the
 * folder's only user: a server that a dead earlier user left running there is stopped first.
 */
export async function startServerProcess(command: ServerCommand): Promise<ServerProcess> {
  const { name, dataDir } = command;
  const program = await ensureServer(name);
  await mkdir(dataDir, { recursive: true });
  await stopLeftover(command);
  const port = await choosePort(command);
  const logPath = join(dataDir, `${name}.log`);
  await rename(logPath, join(dataDir, `${name}.previous.log`)).catch(ignoreMissing);
  await using log = await open(logPath, "w");
  const child = spawn(program, command.args(port), { detached: true, stdio: ["ignore", log.fd, log.fd] });
  await once(child, "spawn");
  const server = supervise(child, port);
  try {
    await untilReady(() => command.isReady(port), server);
    await writeFile(portFile(command), `${port}\n`);
    return server;
  } catch (error) {
    await server.kill();
    const said = (await readFile(logPath, "utf8")).trim().split("\n").at(-1);
    throw new Error(`${name} did not start: ${(error as Error).message}; the end of ${logPath}: ${said}`, { cause: error });
  }
}

const portFile = ({ dataDir, name }: ServerFolder) => join(dataDir, `${name}.port`);

/** A server that comes back where it was spares its clients a new address, and a replica set a new configuration. */
async function choosePort(command: ServerCommand): Promise<number> {
  if (command.port !== undefined) {
    await assertPortFree(command.port);
    return command.port;
  }
  const former = Number(await readFile(portFile(command), "utf8").catch(ignoreMissing));
  return former > 0 && (await isPortFree(former)) ? former : findFreePort();
}

function supervise(child: ChildProcess, port: number): ServerProcess {
  const pid = child.pid as number;
  const endWithUs = () => child.kill("SIGTERM");
  process.once("exit", endWithUs);
  const exited = new Promise<ServerExit>((resolve) => {
    child.once("exit", (code, signal) => {
      process.off("exit", endWithUs);
      resolve({ code, signal });
    });
  });
  const kill = async () => {
    child.kill("SIGKILL");
    await exited;
  };
  const stop = async () => {
    child.kill("SIGTERM");
    const force = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
    await exited;
    clearTimeout(force);
  };
  return { pid, port, exited, stop, kill };
}

async function untilReady(isReady: () => Promise<boolean>, server: ServerProcess): Promise<void> {
  const failed = Promise.race([
    server.exited.then(({ code, signal }) => `it ended with ${signal ?? `code ${code}`}`),
    pause(READY_TIMEOUT_MS, `it was not ready after ${READY_TIMEOUT_MS / 1000} seconds`, { ref: false }),
  ]);
  for (;;) {
    const outcome = await Promise.race([isReady(), failed]);
    if (outcome === true) return;
    if (outcome !== false) throw new Error(outcome);
    await pause(READY_POLL_MS);
  }
}

/** Stops the server that the folder's pid file names, if it is alive and truly serves this folder. */
export async function stopLeftover({ name, dataDir, pidFile }: ServerFolder): Promise<void> {
  const pid = Number.parseInt((await readFile(join(dataDir, pidFile), "utf8").catch(ignoreMissing)) ?? "", 10);
  const leftover = Number.isSafeInteger(pid) ? identifyProcess(pid) : undefined;
  const [program, ...args] = leftover?.command.split(" ") ?? [];
  if (!leftover || !program?.endsWith(name) || !args.includes(dataDir)) return;
  process.kill(pid, "SIGTERM");
  const deadline = Date.now() + STOP_TIMEOUT_MS;
  // A process on its way out has no command line any more, but still its port.
  while (identifyProcess(pid)?.startedAt === leftover.startedAt) {
    if (Date.now() > deadline) process.kill(pid, "SIGKILL");
    await pause(READY_POLL_MS);
  }
  await rm(join(dataDir, pidFile), { force: true });
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
}
