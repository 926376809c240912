import { type Logger, pino } from "pino";
import { createDenials } from "../../src/access/denials.ts";
import { createDispatcher } from "../../src/doors/dispatch.ts";
import { DOOR_LIMITS, type DoorLimits } from "../../src/doors/door-limits.ts";
import { createDoorTls } from "../../src/doors/door-tls.ts";
import { type GrpcServer, startGrpcServer } from "../../src/doors/grpc-server.ts";
import { type HttpServer, startHttpServer } from "../../src/doors/http-server.ts";
import { parseProxies } from "../../src/doors/proxies.ts";
import { createReadiness } from "../../src/doors/readiness.ts";
import type { ServerTlsFiles } from "../../src/tls-files.ts";
import { type Asked, cannedServices, verifyCannedToken } from "./canned-services.ts";

/** All three doors, open on free ports before canned services. */
export type OpenDoors = AsyncDisposable & {
  readonly grpc: GrpcServer;
  readonly http: HttpServer;
  /** What the handlers were asked, newest last. */
  readonly asked: readonly Asked[];
  /** How many answers the streams have made. */
  streamed(): number;
  /** What was logged, oldest first. */
  readonly logged: readonly LogLine[];
  /** Makes readiness fail, or succeed again. */
  setReady(ready: boolean): void;
};

export type LogLine = { readonly level: number; readonly msg: string; readonly [key: string]: unknown };

export const MAX_REQUEST_BYTES = 64 * 1024;
export const MAX_RESPONSE_BYTES = 256 * 1024;
export const MAX_DEADLINE_MS = 2_000;
export const NOW = new Date("2026-06-01T12:00:00Z");

export type DoorsOptions = {
  readonly drainTimeoutMs?: number;
  readonly grpcPort?: number;
  readonly httpPort?: number;
  /** How many denials a minute are told their reason. */
  readonly denialsPerMinute?: number;
  /** Others than the usual ones. */
  readonly limits?: Partial<DoorLimits>;
  /** The certificate of both ports. */
  readonly tls?: ServerTlsFiles;
  /** The time by which the certificate is judged. */
  readonly certificateClock?: () => Date;
};

/** Opens the doors; `await using` closes them. */
export async function openDoors(options: DoorsOptions = {}): Promise<OpenDoors> {
  const { drainTimeoutMs = 1_000, grpcPort = 0, httpPort = 0, denialsPerMinute = 1_000_000 } = options;
  const { tls: files, certificateClock = () => new Date() } = options;
  const { services, asked, streamed } = cannedServices();
  const logged: LogLine[] = [];
  const logger: Logger = pino({ level: "debug" }, { write: (line) => logged.push(JSON.parse(line)) });
  const clock = () => NOW;
  const dispatcher = createDispatcher({
    services,
    verifyToken: verifyCannedToken,
    denials: createDenials({ perMinute: denialsPerMinute, logger, clock }),
    trustedProxies: parseProxies([]),
    logger,
    clock,
    defaultDeadlineMs: 300,
    maxDeadlineMs: MAX_DEADLINE_MS,
    stopping: new AbortController().signal,
  });
  let ready = true;
  const readiness = createReadiness(
    {
      mongodb: async () => {
        if (!ready) throw new Error("no primary at secret-host:27017");
      },
    },
    logger,
  );
  const shared = {
    dispatcher,
    host: "127.0.0.1",
    maxRequestBytes: MAX_REQUEST_BYTES,
    maxResponseBytes: MAX_RESPONSE_BYTES,
    drainTimeoutMs,
    limits: { ...DOOR_LIMITS, ...options.limits },
    readiness,
    logger,
  };
  const tlsOf = (door: "gRPC" | "HTTP") => files && createDoorTls({ files, door, clock: certificateClock, logger, pollMs: 20 });
  await using opened = new AsyncDisposableStack();
  const grpc = await startGrpcServer({ ...shared, port: grpcPort, tls: await tlsOf("gRPC") });
  opened.defer(() => grpc.stop());
  const http = await startHttpServer({
    ...shared,
    port: httpPort,
    tls: await tlsOf("HTTP"),
    clock,
    corsOrigins: ["https://shop.example"],
    jwks: async () => ({ keys: [{ kty: "EC", kid: "test" }] }),
    jwksMaxAgeSeconds: 300,
  });
  opened.defer(() => http.stop());
  const doors = opened.move();
  return {
    grpc,
    http,
    asked,
    streamed,
    logged,
    setReady: (value) => {
      ready = value;
    },
    [Symbol.asyncDispose]: () => doors.disposeAsync(),
  };
}
