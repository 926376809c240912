import { createServer, type RequestListener } from "node:http";
import { createSecureServer } from "node:http2";
import type { Server } from "node:net";
import type { Server as TlsServer } from "node:tls";
import type { DoorLimits } from "./door-limits.ts";
import type { DoorTls } from "./door-tls.ts";
import { limitSession } from "./http-limits.ts";

/** How often the time limits of HTTP/1.1 are looked at: a connection may live that much longer. */
const CHECK_MS = 5_000;
/** A peer that is gone without a word is noticed by TCP. */
const TCP_KEEPALIVE_MS = 60_000;
/** :method, :scheme, :authority and :path. */
const PSEUDO_HEADERS = 4;

/**
 * A server for HTTP/1.1, and with a certificate also for HTTP/2, whose requests and answers behave as those of HTTP/1.1
 * in all that the doors use.
 */
export function createHttpListener(tls: DoorTls | undefined, limits: DoorLimits, answer: RequestListener): Server | TlsServer {
  const { maxHeaderBytes, maxHeaders, maxStreams, headersTimeoutMs, requestTimeoutMs, idleTimeoutMs } = limits;
  const options = {
    maxHeaderSize: maxHeaderBytes,
    headersTimeout: headersTimeoutMs,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: idleTimeoutMs,
    connectionsCheckingInterval: Math.min(CHECK_MS, headersTimeoutMs),
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: TCP_KEEPALIVE_MS,
    // Asked for where it can be answered with a reason (see faultInHead).
    requireHostHeader: false,
  };
  // One more than are allowed: those beyond are dropped, and it shall show that there were any.
  const heads = { maxHeadersCount: maxHeaders + 1 };
  // Node would answer itself what expects something else than 100-continue.
  if (!tls) return Object.assign(createServer(options, answer).on("checkExpectation", answer), heads);
  const server = createSecureServer({
    ...options,
    ...tls.serverOptions,
    allowHTTP1: true,
    maxHeaderListPairs: maxHeaders + PSEUDO_HEADERS,
    settings: { maxConcurrentStreams: maxStreams, maxHeaderListSize: maxHeaderBytes },
  });
  server.on("session", (session) => limitSession(session, limits));
  server.on("request", answer).on("checkExpectation", answer);
  return Object.assign(server, heads);
}
