import { logVerbosity, Server, ServerCredentials, setLogVerbosity } from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";
import type { Logger } from "pino";
import { Unavailable } from "../domain/refusal.ts";
import type { Dispatcher } from "./dispatch.ts";
import { addReflection } from "./grpc-reflection.ts";
import { addService } from "./grpc-service.ts";
import type { Readiness } from "./readiness.ts";

export type GrpcServerOptions = {
  readonly dispatcher: Dispatcher;
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
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
const KEEPALIVE_TIME_MS = 60_000;
const KEEPALIVE_TIMEOUT_MS = 20_000;

/** Opens the gRPC port for the dispatcher's services, health and reflection. Throws if the address cannot be had. */
export async function startGrpcServer(options: GrpcServerOptions): Promise<GrpcServer> {
  const { dispatcher, host, port, maxRequestBytes, maxResponseBytes, drainTimeoutMs, readiness, logger } = options;
  // What it has to say comes back as errors; left alone, it writes past the log.
  setLogVerbosity(logVerbosity.NONE);
  const server = new Server({
    // Beyond that the library refuses by itself, without saying why; what is only a little too large is told properly.
    "grpc.max_receive_message_length": maxRequestBytes * 4,
    "grpc.max_send_message_length": maxResponseBytes,
    "grpc.keepalive_time_ms": KEEPALIVE_TIME_MS,
    "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
  });
  const stopping = new AbortController();
  for (const service of dispatcher.services) addService(server, service, { dispatcher, stopping: stopping.signal, maxRequestBytes });
  addReflection(server, dispatcher.services);
  const health = new HealthImplementation();
  health.addToServer(server);
  const healthNames = ["", ...dispatcher.services.map(({ typeName }) => typeName)];
  const tellHealth = (status: "SERVING" | "NOT_SERVING") => {
    for (const name of healthNames) health.setStatus(name, status);
  };
  const updateHealth = async () => {
    const { ready } = await readiness.check();
    if (!stopping.signal.aborted) tellHealth(ready ? "SERVING" : "NOT_SERVING");
  };
  await updateHealth();

  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${host.includes(":") ? `[${host}]` : host}:${port}`, ServerCredentials.createInsecure(), (error, boundPort) =>
      error ? reject(error) : resolve(boundPort),
    );
  });
  const healthTimer = setInterval(() => void updateHealth(), HEALTH_INTERVAL_MS);

  return {
    address: `${host}:${bound}`,
    async stop() {
      clearInterval(healthTimer);
      stopping.abort(new Unavailable("the server is shutting down: try again"));
      tellHealth("NOT_SERVING");
      await new Promise<void>((resolve) => {
        const limit = setTimeout(() => {
          logger.warn({ drain_timeout_ms: drainTimeoutMs }, "calls still under way on the gRPC port are cut off");
          server.forceShutdown();
          resolve();
        }, drainTimeoutMs);
        server.tryShutdown(() => {
          clearTimeout(limit);
          resolve();
        });
      });
    },
  };
}
