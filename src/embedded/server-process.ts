import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { assertPortFree } from "./free-port.ts";
import { identifyProcess } from "./process-identity.ts";
import { ensureServer, type ServerName } from "./server-binaries.ts";

/** How a server ended: by itself with a code, or by a signal. */
export type ServerExit = { readonly code: number | null; readonly signal: NodeJS.Signals | null };

/** A running server, child of this process. */
export type ServerProcess = {
  readonly pid: number;
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
  readonly args: readonly string[];
  /** The port on 127.0.0.1 where the server will listen; refused at once when another program has it. */
  readonly port: number;
  /** Asked again and again until it answers true. */
  readonly isReady: () => Promise<boolean>;
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
  const { name, args, dataDir } = command;
  const program = await ensureServer(name);
  await mkdir(dataDir, { recursive: true });
  await stopLeftover(command);
  await assertPortFree(command.port);
  const logPath = join(dataDir, `${name}.log`);
  await rename(logPath, join(dataDir, `${name}.previous.log`)).catch(ignoreMissing);
  await using log = await open(logPath, "w");
  const child = spawn(program, args, { detached: true, stdio: ["ignore", log.fd, log.fd] });
  await once(child, "spawn");
  const server = supervise(child);
  try {
    await untilReady(command, server);
    return server;
  } catch (error) {
    await server.kill();
    const [said] = (await readFile(logPath, "utf8")).trim().split("\n").slice(-1);
    throw new Error(`${name} did not start: ${(error as Error).message}; the end of ${logPath}: ${said}`, { cause: error });
  }
}

function supervise(child: ChildProcess): ServerProcess {
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
  return { pid, exited, stop, kill };
}

async function untilReady({ isReady }: ServerCommand, server: ServerProcess): Promise<void> {
  const failed = Promise.race([
    server.exited.then(({ code, signal }) => `it ended with ${signal ?? `code ${code}`}`),
    pause(READY_TIMEOUT_MS, `it was not ready after ${READY_TIMEOUT_MS / 1000} seconds`, { ref: false }),
  ]);
  for (;;) {
    const outcome = await Promise.race([isReady(), failed]);
    if (outcome === true) {
      return;
    }
    if (outcome !== false) {
      throw new Error(outcome);
    }
    await pause(READY_POLL_MS);
  }
}

/** Stops the server that the folder's pid file names, if it is alive and truly serves this folder. */
export async function stopLeftover({ name, dataDir, pidFile }: ServerFolder): Promise<void> {
  const written = await readFile(join(dataDir, pidFile), "utf8").catch(ignoreMissing);
  const pid = Number.parseInt(written ?? "", 10);
  const isOurs = () => {
    const command = identifyProcess(pid)?.command.split(" ");
    return command !== undefined && command[0]?.endsWith(name) === true && command.includes(dataDir);
  };
  if (!Number.isSafeInteger(pid) || !isOurs()) {
    return;
  }
  process.kill(pid, "SIGTERM");
  const deadline = Date.now() + STOP_TIMEOUT_MS;
  while (isOurs()) {
    if (Date.now() > deadline) {
      process.kill(pid, "SIGKILL");
    }
    await pause(READY_POLL_MS);
  }
  await rm(join(dataDir, pidFile), { force: true });
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") {
    throw error;
  }
}
