import { connect } from "node:net";
import { join, resolve } from "node:path";
import { type ServerProcess, startServerProcess } from "./server-process.ts";

/** A running nats-server. */
export type NatsServer = ServerProcess & {
  /** Where a client connects to. */
  readonly url: string;
};

export type NatsServerOptions = {
  /** The folder of JetStream's data, made if absent; it belongs to this server alone while it runs. */
  readonly dataDir: string;
  /** The port on 127.0.0.1; by default where it was before, or one that is free. */
  readonly port?: number;
};

/** Starts nats-server with JetStream on files, and returns when it greets its clients. */
export async function startNatsServer(options: NatsServerOptions): Promise<NatsServer> {
  const dataDir = resolve(options.dataDir);
  const pidFile = "nats-server.pid";
  const server = await startServerProcess({
    name: "nats-server",
    dataDir,
    pidFile,
    port: options.port,
    args: (port) => ["-a", "127.0.0.1", "-p", String(port), "-js", "-sd", dataDir, "-P", join(dataDir, pidFile)],
    isReady: greets,
  });
  return { ...server, url: `nats://127.0.0.1:${server.port}` };
}

/** Whether the server sends its INFO, the first line of the protocol. */
async function greets(port: number): Promise<boolean> {
  const { promise, resolve: settle } = Promise.withResolvers<boolean>();
  const socket = connect(port, "127.0.0.1")
    .once("data", (chunk) => settle(chunk.toString("latin1").startsWith("INFO ")))
    .once("error", () => settle(false))
    .once("close", () => settle(false));
  return promise.finally(() => socket.destroy());
}
