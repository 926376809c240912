import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { cors as connectCors } from "@connectrpc/connect";
import cors from "cors";
import type { Logger } from "pino";
import { assertComplete } from "../access/permissions.ts";
import { Refusal, Unavailable } from "../domain/refusal.ts";
import { type AuditPathsOptions, createAuditPaths } from "./audit-paths.ts";
import { type ChannelWebhooksOptions, createChannelWebhooks } from "./channel-webhooks.ts";
import { createConnectDoor } from "./connect.ts";
import { guardConnections } from "./connection-guard.ts";
import { type Dispatcher, REQUEST_ID_HEADER, traceIdOf } from "./dispatch.ts";
import type { DoorLimits } from "./door-limits.ts";
import type { DoorTls } from "./door-tls.ts";
import { CallFailure, toCallFailure } from "./errors.ts";
import { answerBrokenHttp, HSTS, SECURITY_HEADERS, sendFailure } from "./http-answer.ts";
import { createDocuments } from "./http-documents.ts";
import { faultInHead, limitExchange } from "./http-limits.ts";
import { createHttpListener } from "./http-listener.ts";
import { listen } from "./listen.ts";
import { createMetricsPath, type MetricsPathOptions } from "./metrics-path.ts";
import type { Readiness } from "./readiness.ts";
import { createRestDoor } from "./rest.ts";
import { createWebhooks, type WebhooksOptions } from "./webhooks.ts";

export type HttpServerOptions = {
  readonly dispatcher: Dispatcher;
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  /** With it, the port speaks HTTPS, and HTTP/2 with clients that can; without, HTTP/1.1 in the clear. */
  readonly tls?: DoorTls | undefined;
  readonly limits: DoorLimits;
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
  /** The log as a transparency log, where this server answers calls. */
  readonly audit?: AuditPathsOptions | undefined;
  /** The providers' callbacks, where this server answers calls. */
  readonly webhooks?: WebhooksOptions | undefined;
  /** The callbacks of those who carry messages, likewise. */
  readonly channelWebhooks?: ChannelWebhooksOptions | undefined;
  readonly metrics?: MetricsPathOptions | undefined;
  /** The public keys for /.well-known/jwks.json. */
  readonly jwks: () => Promise<object>;
  /** For how many seconds others may remember them. */
  readonly jwksMaxAgeSeconds: number;
  readonly logger: Logger;
  readonly clock: () => Date;
};

/** The HTTP port, open. */
export type HttpServer = {
  /** Such as "http://127.0.0.1:8080", or https where the port has a certificate. */
  readonly url: string;
  /**
   * Takes no more connections, ends streams with UNAVAILABLE and waits for the other calls; what is left after the drain
   * timeout is cut off.
   */
  stop(): Promise<void>;
};

const PREFLIGHT_MAX_AGE_SECONDS = 7_200;

/** Opens the HTTP port: REST, Connect, gRPC-Web, and what operators ask for. Throws if the address cannot be had, or the permission table lacks a path. */
export async function startHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const { host, port, tls, limits, drainTimeoutMs, logger, clock } = options;
  const stopping = new AbortController();
  const server = createHttpListener(tls, limits, createRequestListener(options, stopping.signal));
  server.on("clientError", (error: Error, socket: Duplex) => answerBrokenHttp(error, socket, clock()));
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    response.once("close", () => {
      if (stopping.signal.aborted && request.httpVersionMajor === 1) request.socket.end();
    });
  });
  const connections = guardConnections(server, "HTTP", limits, logger);
  const bound = await listen(server, port, host);
  const following = tls && "setSecureContext" in server ? tls.follow(server) : undefined;

  return {
    url: `${tls ? "https" : "http"}://${host.includes(":") ? `[${host}]` : host}:${bound}`,
    async stop() {
      following?.[Symbol.dispose]();
      stopping.abort(new Unavailable("the server is shutting down: try again"));
      await new Promise<void>((resolve) => {
        const limit = setTimeout(() => {
          logger.warn({ drain_timeout_ms: drainTimeoutMs }, "calls still under way on the HTTP port are cut off");
          connections.destroyAll();
        }, drainTimeoutMs);
        server.close(() => {
          clearTimeout(limit);
          resolve();
        });
        connections.destroyUnused();
      });
    },
  };
}

/** Answers every request, whatever it is: one that nobody else answers is ROUTE_NOT_FOUND. */
function createRequestListener(options: HttpServerOptions, stopping: AbortSignal): RequestListener {
  const { dispatcher, maxRequestBytes, maxResponseBytes, tls, limits, readiness, jwks, jwksMaxAgeSeconds, audit, logger, clock } = options;
  const connect = createConnectDoor({ dispatcher, maxRequestBytes, maxResponseBytes, stopping });
  const rest = createRestDoor({ dispatcher, maxRequestBytes, stopping, clock });
  const documents = createDocuments({ services: dispatcher.services, readiness, jwks, jwksMaxAgeSeconds });
  const auditPaths = audit && createAuditPaths(audit);
  const webhooks = options.webhooks && createWebhooks(options.webhooks, { refuse: dispatcher.refuse, maxRequestBytes, stopping, logger });
  const channelWebhooks =
    options.channelWebhooks &&
    createChannelWebhooks(options.channelWebhooks, { refuse: dispatcher.refuse, maxRequestBytes, stopping, logger });
  const metrics = options.metrics && createMetricsPath(options.metrics);
  const names = [documents, metrics, auditPaths, webhooks, channelWebhooks].flatMap((paths) => paths?.names ?? []);
  assertComplete(dispatcher.services, names);
  const applyCors = createCors(options.corsOrigins);

  async function answer(request: IncomingMessage, response: ServerResponse, traceId: string): Promise<void> {
    const { path, query } = targetOf(request);
    if (request.method === "OPTIONS") {
      return answerOptions(request, response, [
        ...documents.methodsOf(path),
        ...(metrics?.methodsOf(path) ?? []),
        ...(auditPaths?.methodsOf(path) ?? []),
        ...(webhooks?.methodsOf(path) ?? []),
        ...(channelWebhooks?.methodsOf(path) ?? []),
        ...connect.methodsOf(path),
        ...rest.methodsOf(path),
      ]);
    }
    if (await documents.handle(path, request, response)) return;
    if (await metrics?.handle({ path, traceId }, request, response)) return;
    if (await auditPaths?.handle({ path, traceId }, request, response)) return;
    if (await webhooks?.handle({ path, traceId }, request, response)) return;
    if (await channelWebhooks?.handle({ path, traceId }, request, response)) return;
    if (await connect.handle({ path, traceId }, request, response)) return;
    if (await rest.handle({ path, query, traceId }, request, response)) return;
    throw new Refusal("ROUTE_NOT_FOUND", "this path leads nowhere; /openapi.json lists the paths");
  }

  const headers = Object.entries(tls ? { ...SECURITY_HEADERS, ...HSTS } : SECURITY_HEADERS);

  return (request, response) => {
    limitExchange(request, response, limits);
    const traceId = traceIdOf(request.headers[REQUEST_ID_HEADER]);
    response.setHeader(REQUEST_ID_HEADER, traceId);
    for (const [name, value] of headers) response.setHeader(name, value);
    if (stopping.aborted && request.httpVersionMajor === 1) response.setHeader("connection", "close");
    const fault = faultInHead(request, limits);
    if (fault) {
      if (request.httpVersionMajor === 1) response.setHeader("connection", "close");
      sendFailure(response, fault.failure, "", clock(), fault.status);
      return;
    }
    applyCors(request, response, () => {
      answer(request, response, traceId).catch((thrown: unknown) => {
        const failure = toCallFailure(thrown, traceId);
        const { path } = targetOf(request);
        // A CallFailure is the dispatcher's, which has logged it.
        if ((failure.reason === "INTERNAL" || failure.reason === "LOG_DAMAGED") && !(thrown instanceof CallFailure))
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
    allowedHeaders: [...connectCors.allowedHeaders, "Authorization", "Last-Event-ID", REQUEST_ID_HEADER],
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

/** The path and the query of a request; proxies may name the whole address. */
function targetOf({ url = "" }: IncomingMessage): { readonly path: string; readonly query: string } {
  const target = url.replace(/^https?:\/\/[^/?#]*/i, "");
  const end = target.indexOf("?");
  return end === -1 ? { path: target, query: "" } : { path: target.slice(0, end), query: target.slice(end + 1) };
}
