import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { cors as connectCors } from "@connectrpc/connect";
import cors from "cors";
import type { Logger } from "pino";
import { assertComplete } from "../access/permissions.ts";
import { Refusal, Unavailable } from "../domain/refusal.ts";
import { createConnectDoor } from "./connect.ts";
import { type Dispatcher, REQUEST_ID_HEADER, traceIdOf } from "./dispatch.ts";
import { CallFailure, toCallFailure } from "./errors.ts";
import { answerBrokenHttp, sendFailure } from "./http-answer.ts";
import { createDocuments } from "./http-documents.ts";
import type { Readiness } from "./readiness.ts";
import { createRestDoor } from "./rest.ts";

export type HttpServerOptions = {
  readonly dispatcher: Dispatcher;
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  /** Origins whose scripts may call, such as "https://shop.example"; "*" for all. */
  readonly corsOrigins: readonly string[];
  /** Larger requests are refused. */
  readonly maxRequestBytes: number;
  /** A larger answer to a Connect or gRPC-Web call becomes RESOURCE_EXHAUSTED. */
  readonly maxResponseBytes: number;
  /** How long `stop` waits for calls under way. */
  readonly drainTimeoutMs: number;
  /** What /readyz tells. */
  readonly readiness: Readiness;
  /** The public keys for /.well-known/jwks.json. */
  readonly jwks: () => Promise<object>;
  /** For how many seconds others may remember them. */
  readonly jwksMaxAgeSeconds: number;
  readonly logger: Logger;
  readonly clock: () => Date;
};

/** The HTTP port, open. */
export type HttpServer = {
  /** Such as "http://127.0.0.1:8080". */
  readonly url: string;
  /**
   * Takes no more connections, ends streams with UNAVAILABLE and waits for the other calls; what is left after the drain
   * timeout is cut off.
   */
  stop(): Promise<void>;
};

const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;
/** Longer than the 60 seconds after which load balancers commonly drop an idle connection, so that they do so first. */
const KEEP_ALIVE_TIMEOUT_MS = 65_000;
const PREFLIGHT_MAX_AGE_SECONDS = 7_200;

/** Opens the HTTP port: REST, Connect, gRPC-Web, and what operators ask for. Throws if the address cannot be had, or the permission table lacks a path. */
export async function startHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const { host, port, drainTimeoutMs, logger, clock } = options;
  const stopping = new AbortController();
  const timeouts = { headersTimeout: HEADERS_TIMEOUT_MS, requestTimeout: REQUEST_TIMEOUT_MS, keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS };
  const server = createServer(timeouts, createRequestListener(options, stopping.signal));
  server.on("clientError", (error, socket) => answerBrokenHttp(error, socket, clock()));
  server.on("request", (_request, response) => {
    response.once("close", () => {
      if (stopping.signal.aborted) server.closeIdleConnections();
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      server.off("error", reject);
      resolve();
    });
  });

  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${portOf(server)}`,
    async stop() {
      stopping.abort(new Unavailable("the server is shutting down: try again"));
      await new Promise<void>((resolve) => {
        const limit = setTimeout(() => {
          logger.warn({ drain_timeout_ms: drainTimeoutMs }, "calls still under way on the HTTP port are cut off");
          server.closeAllConnections();
        }, drainTimeoutMs);
        server.close(() => {
          clearTimeout(limit);
          resolve();
        });
      });
    },
  };
}

/** Answers every request, whatever it is: one that nobody else answers is ROUTE_NOT_FOUND. */
function createRequestListener(options: HttpServerOptions, stopping: AbortSignal): RequestListener {
  const { dispatcher, maxRequestBytes, maxResponseBytes, readiness, jwks, jwksMaxAgeSeconds, logger, clock } = options;
  const connect = createConnectDoor({ dispatcher, maxRequestBytes, maxResponseBytes, stopping });
  const rest = createRestDoor({ dispatcher, maxRequestBytes });
  const documents = createDocuments({ services: dispatcher.services, readiness, jwks, jwksMaxAgeSeconds });
  assertComplete(dispatcher.services, documents.names);
  const applyCors = createCors(options.corsOrigins);

  async function answer(request: IncomingMessage, response: ServerResponse, traceId: string): Promise<void> {
    const { path, query } = targetOf(request);
    if (request.method === "OPTIONS") {
      return answerOptions(request, response, [...documents.methodsOf(path), ...connect.methodsOf(path), ...rest.methodsOf(path)]);
    }
    if (await documents.handle(path, request, response)) return;
    if (await connect.handle({ path, traceId }, request, response)) return;
    if (await rest.handle({ path, query, traceId }, request, response)) return;
    throw new Refusal("ROUTE_NOT_FOUND", "this path leads nowhere; /openapi.json lists the paths");
  }

  return (request, response) => {
    const traceId = traceIdOf(request.headers[REQUEST_ID_HEADER]);
    response.setHeader(REQUEST_ID_HEADER, traceId);
    response.setHeader("x-content-type-options", "nosniff");
    response.setHeader("cache-control", "no-store");
    if (stopping.aborted) response.setHeader("connection", "close");
    applyCors(request, response, () => {
      answer(request, response, traceId).catch((thrown: unknown) => {
        const failure = toCallFailure(thrown, traceId);
        const { path } = targetOf(request);
        // A CallFailure is the dispatcher's, which has logged it.
        if (failure.reason === "INTERNAL" && !(thrown instanceof CallFailure))
          logger.error({ trace_id: traceId, path, err: thrown }, "an HTTP request failed");
        if (response.headersSent) response.destroy();
        else sendFailure(response, failure, path, clock());
      });
    });
  };
}

function createCors(origins: readonly string[]) {
  return cors({
    origin: origins.includes("*") ? "*" : [...origins],
    methods: ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
    allowedHeaders: [...connectCors.allowedHeaders, "Authorization", REQUEST_ID_HEADER],
    exposedHeaders: [...connectCors.exposedHeaders, REQUEST_ID_HEADER, "Retry-After"],
    maxAge: PREFLIGHT_MAX_AGE_SECONDS,
    preflightContinue: true,
  });
}

/** A browser's preflight is answered wherever it goes, so that its page sees the 404 of the request that follows. */
function answerOptions({ headers }: IncomingMessage, response: ServerResponse, methods: readonly string[]): void {
  const isPreflight = headers["access-control-request-method"] !== undefined;
  if (methods.length === 0 && !isPreflight) throw new Refusal("ROUTE_NOT_FOUND", "this path leads nowhere; /openapi.json lists the paths");
  response.writeHead(204, methods.length > 0 ? { allow: [...methods, "OPTIONS"].join(", ") } : {});
  response.end();
}

function targetOf({ url = "" }: IncomingMessage): { readonly path: string; readonly query: string } {
  const end = url.indexOf("?");
  return end === -1 ? { path: url, query: "" } : { path: url.slice(0, end), query: url.slice(end + 1) };
}

function portOf(server: Server): number {
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === "string") throw new Error("the HTTP server does not listen on a port");
  return address.port;
}
