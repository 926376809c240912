import { createServer, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { logVerbosity, Server, ServerCredentials, setLogVerbosity } from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";
import type { Logger } from "pino";
import { assertComplete } from "../access/permissions.ts";
import { Unavailable } from "../domain/refusal.ts";
import { guardConnections } from "./connection-guard.ts";
import type { Dispatcher } from "./dispatch.ts";
import type { DoorLimits } from "./door-limits.ts";
import type { DoorTls } from "./door-tls.ts";
import { addReflection } from "./grpc-reflection.ts";
import { limitRequestTime } from "./grpc-request-time.ts";
import { addService } from "./grpc-service.ts";
import { listen } from "./listen.ts";
import type { Readiness } from "./readiness.ts";

export type GrpcServerOptions = {
  readonly dispatcher: Dispatcher;
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  /** Without it, the port speaks in the clear. */
  readonly tls?: DoorTls | undefined;
  readonly limits: DoorLimits;
  /** Larger messages are refused with RESOURCE_EXHAUSTED. */
  readonly maxRequestBytes: number;
  /** A larger answer becomes RESOURCE_EXHAUSTED. */
  readonly maxResponseBytes: number;
  /** How long `stop` waits for calls under way. */
  readonly drainTimeoutMs: number;
  /** What grpc.health.v1 tells. */
  readonly readiness: Readiness;
  readonly logger: Logger;
};

/** The gRPC port, open. */
export type GrpcServer = {
  /** "host:port". */
  readonly address: string;
  /**
   * Takes no more calls, ends streams with UNAVAILABLE and waits for the other calls; what is left after the drain
   * timeout is cut off.
   */
  stop(): Promise<void>;
};

const HEALTH_INTERVAL_MS = 1_000;
/** A peer that is gone without a word is noticed after these two together. */
const KEEPALIVE_TIME_MS = 60_000;
const KEEPALIVE_TIMEOUT_MS = 20_000;
/** With which every HTTP/2 client begins. */
const PREFACE_BYTES = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".length;

/** Opens the gRPC port for the dispatcher's services, health and reflection. Throws if the address cannot be had, or the permission table lacks an RPC. */
export async function startGrpcServer(options: GrpcServerOptions): Promise<GrpcServer> {
  const { dispatcher, limits, maxRequestBytes, maxResponseBytes, drainTimeoutMs, readiness, logger } = options;
  // What it has to say comes back as errors; left alone, it writes past the log.
  setLogVerbosity(logVerbosity.NONE);
  const server = new Server({
    // Beyond that the library refuses by itself, without saying why; what is only a little too large is told properly.
    "grpc.max_receive_message_length": maxRequestBytes * 4,
    "grpc.max_send_message_length": maxResponseBytes,
    "grpc.keepalive_time_ms": KEEPALIVE_TIME_MS,
    "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
    "grpc.max_concurrent_streams": limits.maxStreams,
    "grpc.max_connection_idle_ms": limits.idleTimeoutMs,
    interceptors: [limitRequestTime(limits.requestTimeoutMs)],
  });
  const stopping = new AbortController();
  const served = namesAddedTo(server);
  const serving = { dispatcher, stopping: stopping.signal, maxRequestBytes, stallTimeoutMs: limits.stallTimeoutMs };
  for (const service of dispatcher.services) addService(server, service, serving);
  addReflection(server, dispatcher.services);
  const health = new HealthImplementation();
  health.addToServer(server);
  assertComplete(dispatcher.services, served);
  const healthNames = ["", ...dispatcher.services.map(({ typeName }) => typeName)];
  const tellHealth = (status: "SERVING" | "NOT_SERVING") => {
    for (const name of healthNames) health.setStatus(name, status);
  };
  const updateHealth = async () => {
    const { ready } = await readiness.check();
    if (!stopping.signal.aborted) tellHealth(ready ? "SERVING" : "NOT_SERVING");
  };
  await updateHealth();

  const listener = await openPort(server, options);
  const healthTimer = setInterval(() => void updateHealth(), HEALTH_INTERVAL_MS);

  return {
    address: `${options.host}:${listener.port}`,
    async stop() {
      clearInterval(healthTimer);
      const closed = listener.close();
      stopping.abort(new Unavailable("the server is shutting down: try again"));
      tellHealth("NOT_SERVING");
      const limit = setTimeout(() => {
        logger.warn({ drain_timeout_ms: drainTimeoutMs }, "calls still under way on the gRPC port are cut off");
        listener.cutOff();
      }, drainTimeoutMs);
      // Of connections that it has been handed it closes each when its calls have ended, but does not wait for that.
      server.tryShutdown(() => undefined);
      await closed;
      clearTimeout(limit);
    },
  };
}

/** The RPCs that are added to a server from now on, as "package.Service/Method", those of libraries included. */
function namesAddedTo(server: Server): readonly string[] {
  const names: string[] = [];
  const addService = server.addService.bind(server);
  server.addService = (definition, implementation) => {
    names.push(...Object.values(definition).map(({ path }) => path.slice(1)));
    addService(definition, implementation);
  };
  return names;
}

type Listener = {
  readonly port: number;
  /** Takes no more connections; resolves when all are closed. */
  close(): Promise<void>;
  /** Closes those that are open. */
  cutOff(): void;
};

/** Listens itself and hands the connections over, as grpc-js would bound neither their number nor the time of their beginning. */
async function openPort(grpc: Server, { host, port, tls, limits, logger }: GrpcServerOptions): Promise<Listener> {
  const injector = grpc.createConnectionInjector(ServerCredentials.createInsecure());
  const { headersTimeoutMs } = limits;
  const inject = (connection: Socket) => {
    injector.injectConnection(connection);
    const timer = setTimeout(() => {
      if (connection.bytesRead < PREFACE_BYTES) connection.destroy();
    }, headersTimeoutMs);
    connection.once("close", () => clearTimeout(timer));
  };
  const server = tls
    ? createTlsServer({ ...tls.serverOptions, ALPNProtocols: ["h2"] }, (connection) => {
        connection.on("error", () => connection.destroy());
        // A client that names no protocol speaks another one.
        if (connection.alpnProtocol === "h2") inject(connection);
        else connection.destroy();
      })
    : createServer({ noDelay: true }, inject);
  const connections = guardConnections(server, "gRPC", limits, logger);
  const bound = await listen(server, port, host);
  const following = tls && "setSecureContext" in server ? tls.follow(server) : undefined;
  return {
    port: bound,
    close: () =>
      new Promise((resolve) => {
        following?.[Symbol.dispose]();
        server.close(() => resolve());
        connections.destroyUnused();
      }),
    cutOff: connections.destroyAll,
  };
}
