import type { ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { CallFailure } from "./errors.ts";

/** On every answer: JSON for programs, which no browser should show, frame, keep or take for something else. */
export const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
};

/** On every answer over TLS: for a year, browsers come to this host by TLS only. */
export const HSTS: Readonly<Record<string, string>> = { "strict-transport-security": "max-age=31536000" };

/** Writes a JSON answer. Headers set before stay. */
export function sendJson(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, { "content-type": "application/json; charset=utf-8", "content-length": Buffer.byteLength(body) });
  response.end(body);
}

/** The body of every error in REST. */
export type ErrorBody = {
  readonly detail: string;
  /** The reason, as in ErrorInfo. */
  readonly code: string;
  /** RFC 3339. */
  readonly timestamp: string;
  readonly path: string;
  readonly violations?: readonly { readonly field: string; readonly rule: string; readonly detail: string }[];
};

/** A failure as REST tells it. */
export function errorBodyOf(failure: CallFailure, path: string, now: Date): ErrorBody {
  const { message, reason, violations } = failure;
  return { detail: message, code: reason, timestamp: now.toISOString(), path, ...(violations.length > 0 && { violations }) };
}

/** Writes the error body, with the headers that go with its status, which is that of the failure's reason unless given. */
export function sendFailure(response: ServerResponse, failure: CallFailure, path: string, now: Date, status?: number): void {
  const { shape, metadata, reason, retryAfterSeconds } = failure;
  if (retryAfterSeconds !== undefined) response.setHeader("retry-after", retryAfterSeconds);
  if (reason === "UNAUTHENTICATED") response.setHeader("www-authenticate", 'Bearer realm="ordertrail"');
  if (reason === "METHOD_NOT_ALLOWED" && metadata["allow"] !== undefined) response.setHeader("allow", metadata["allow"]);
  // What is left of the body is not worth reading.
  if (reason === "PAYLOAD_TOO_LARGE" && !response.req.complete && response.req.httpVersionMajor === 1)
    response.setHeader("connection", "close");
  sendJson(response, status ?? shape.httpStatus, JSON.stringify(errorBodyOf(failure, path, now)));
}

/** Answers bytes that are no HTTP request, or one that takes too long to arrive, and closes the connection. */
export function answerBrokenHttp(error: Error & { readonly code?: string }, socket: Duplex, now: Date): void {
  if (!socket.writable || error.code === "ECONNRESET" || /^ERR_(SSL|TLS)/.test(error.code ?? "")) {
    socket.destroy();
    return;
  }
  const [statusLine, failure] = brokenHttp(error.code);
  const body = JSON.stringify(errorBodyOf(failure, "", now));
  const headers = {
    ...SECURITY_HEADERS,
    "content-type": "application/json; charset=utf-8",
    "content-length": Buffer.byteLength(body),
    connection: "close",
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  // Whoever sends on and reads nothing is not waited for.
  socket.end(`HTTP/1.1 ${statusLine}\r\n${lines.join("")}\r\n${body}`, () => socket.destroy());
}

function brokenHttp(code: string | undefined): [statusLine: string, failure: CallFailure] {
  switch (code) {
    case "HPE_HEADER_OVERFLOW":
      return ["431 Request Header Fields Too Large", new CallFailure("PAYLOAD_TOO_LARGE", "the headers are too large")];
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return ["408 Request Timeout", new CallFailure("DEADLINE_EXCEEDED", "the request did not arrive in time")];
    default:
      return ["400 Bad Request", new CallFailure("MALFORMED_REQUEST", "this is not HTTP")];
  }
}
