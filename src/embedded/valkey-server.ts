import { connect } from "node:net";
import { join, resolve } from "node:path";
import { type ServerProcess, startServerProcess } from "./server-process.ts";

/** A running valkey-server. */
export type ValkeyServer = ServerProcess & {
  /** Where a client connects to. */
  readonly url: string;
};

export type ValkeyServerOptions = {
  /** The folder of its log and pid file, made if absent; it belongs to this server alone while it runs. */
  readonly dataDir: string;
  /** The port on 127.0.0.1; by default where it was before, or one that is free. */
  readonly port?: number;
};

/** Starts valkey-server, and returns when it answers. Nothing that it holds outlives it: it writes no data. */
export async function startValkeyServer(options: ValkeyServerOptions): Promise<ValkeyServer> {
  const dataDir = resolve(options.dataDir);
  const pidFile = "valkey-server.pid";
  const server = await startServerProcess({
    name: "valkey-server",
    dataDir,
    pidFile,
    port: options.port,
    args: (port) => [
      ...["--bind", "127.0.0.1", "--port", String(port), "--dir", dataDir, "--pidfile", join(dataDir, pidFile)],
      ...["--save", "", "--appendonly", "no"],
      // Else its command line would not tell whose it is.
      ...["--set-proc-title", "no"],
    ],
    isReady: answers,
  });
  return { ...server, url: `redis://127.0.0.1:${server.port}` };
}

async function answers(port: number): Promise<boolean> {
  const { promise, resolve: settle } = Promise.withResolvers<boolean>();
  const socket = connect(port, "127.0.0.1", () => socket.write("PING\r\n"))
    .once("data", (chunk) => settle(chunk.toString("latin1").startsWith("+PONG")))
    .once("error", () => settle(false))
    .once("close", () => settle(false));
  return promise.finally(() => socket.destroy());
}
