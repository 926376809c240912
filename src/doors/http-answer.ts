import type { ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { CallFailure } from "./errors.ts";

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

/** Writes the error body, with the headers that go with its status. */
export function sendFailure(response: ServerResponse, failure: CallFailure, path: string, now: Date): void {
  const { shape, metadata, reason, retryAfterSeconds } = failure;
  if (retryAfterSeconds !== undefined) response.setHeader("retry-after", retryAfterSeconds);
  if (reason === "UNAUTHENTICATED") response.setHeader("www-authenticate", 'Bearer realm="ordertrail"');
  if (reason === "METHOD_NOT_ALLOWED" && metadata["allow"] !== undefined) response.setHeader("allow", metadata["allow"]);
  // What is left of the body is not worth reading.
  if (reason === "PAYLOAD_TOO_LARGE" && !response.req.complete) response.setHeader("connection", "close");
  sendJson(response, shape.httpStatus, JSON.stringify(errorBodyOf(failure, path, now)));
}

/** Answers bytes that are no HTTP request, or one that takes too long to arrive, and closes the connection. */
export function answerBrokenHttp(error: Error & { readonly code?: string }, socket: Duplex, now: Date): void {
  if (!socket.writable || error.code === "ECONNRESET") {
    socket.destroy();
    return;
  }
  const [statusLine, failure] = brokenHttp(error.code);
  const body = JSON.stringify(errorBodyOf(failure, "", now));
  socket.end(
    `HTTP/1.1 ${statusLine}\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
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
