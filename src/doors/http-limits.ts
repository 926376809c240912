import type { IncomingMessage, ServerResponse } from "node:http";
import type { ServerHttp2Session } from "node:http2";
import type { DoorLimits } from "./door-limits.ts";
import { CallFailure } from "./errors.ts";

/** Why a request is not read further, and the HTTP status that says so; undefined if nothing speaks against it. */
export function faultInHead(
  { url = "", headers, rawHeaders, httpVersion, httpVersionMajor }: IncomingMessage,
  { maxUrlBytes, maxHeaders }: DoorLimits,
): { readonly status: number; readonly failure: CallFailure } | undefined {
  const tooLarge = (detail: string) => new CallFailure("PAYLOAD_TOO_LARGE", detail);
  if (url.length > maxUrlBytes) return { status: 414, failure: tooLarge(`the address is longer than ${maxUrlBytes} bytes`) };
  if (rawHeaders.length > 2 * maxHeaders) return { status: 431, failure: tooLarge(`there are more than ${maxHeaders} headers`) };
  if (headers.expect !== undefined && headers.expect.toLowerCase() !== "100-continue")
    return { status: 417, failure: new CallFailure("MALFORMED_REQUEST", "only 100-continue can be expected") };
  // Of two, a proxy before this server may have believed the other one.
  const hosts = rawHeaders.filter((name, index) => index % 2 === 0 && name.length === 4 && name.toLowerCase() === "host");
  if (httpVersionMajor === 1 && hosts.length > 1)
    return { status: 400, failure: new CallFailure("MALFORMED_REQUEST", "there are two Hosts") };
  if (httpVersion === "1.1" && hosts.length === 0)
    return { status: 400, failure: new CallFailure("MALFORMED_REQUEST", "there is no Host") };
  return undefined;
}

/** Ends an exchange whose request takes too long to come, or whose answer nobody takes. */
export function limitExchange(request: IncomingMessage, response: ServerResponse, { requestTimeoutMs, stallTimeoutMs }: DoorLimits): void {
  // It also fires when nobody has written: then the handler is at work, which has limits of its own.
  response.setTimeout(stallTimeoutMs, () => {
    if (response.writableLength > 0) response.destroy();
  });
  // The server itself sees to it for HTTP/1.1.
  if (!("stream" in request) || isBodiless(request.stream)) return;
  const timer = setTimeout(() => {
    if (!request.complete) response.destroy();
  }, requestTimeoutMs);
  response.once("close", () => clearTimeout(timer));
}

/** That an HTTP/2 request is complete shows only when somebody has read it, which nobody does without a body. */
function isBodiless(stream: unknown): boolean {
  return typeof stream === "object" && stream !== null && "endAfterHeaders" in stream && stream.endAfterHeaders === true;
}

/** Ends an HTTP/2 connection that does not begin in time, or on which nothing is under way for long. */
export function limitSession(session: ServerHttp2Session, { headersTimeoutMs, idleTimeoutMs }: DoorLimits): void {
  const beginning = setTimeout(() => session.destroy(), headersTimeoutMs);
  session.once("remoteSettings", () => clearTimeout(beginning));
  session.once("close", () => clearTimeout(beginning));
  let streams = 0;
  session.on("stream", (stream) => {
    streams += 1;
    stream.once("close", () => {
      streams -= 1;
    });
  });
  session.setTimeout(idleTimeoutMs, () => {
    if (streams === 0) session.close();
  });
}
