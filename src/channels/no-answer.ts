import { ChannelError } from "./channel.ts";

/** Errors after which it is certain that no request has left: no connection was made, or its other end was not whom it should be. */
const NEVER_LEFT: ReadonlySet<string> = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "UND_ERR_CONNECT_TIMEOUT"]);
const NOT_TRUSTED = /^(CERT_|ERR_TLS_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO_)/;
const CONNECTING: ReadonlySet<string> = new Set(["connect", "getaddrinfo"]);

/**
 * What it means that a call ended with an error instead of an answer: `unavailable` when nothing can have left, else `unknown`. The error
 * itself is not kept: those of HTTP clients hold what was sent.
 */
export function noAnswer(error: unknown, { timedOut, stopped }: { readonly timedOut: boolean; readonly stopped: boolean }): ChannelError {
  if (hasNotLeft(error)) return new ChannelError("unavailable", "no_connection", "there was no connection to the provider");
  if (timedOut) return new ChannelError("unknown", "timeout", "the provider did not answer in time and may have taken it");
  if (stopped) return new ChannelError("unknown", "stopped", "we stopped before the provider answered, which may have taken it");
  return new ChannelError("unknown", "connection_lost", "the connection broke before the provider answered, which may have taken it");
}

/** Whether this error, or what caused it, is one of no connection. */
export function hasNotLeft(error: unknown): boolean {
  for (let each = error, depth = 0; each instanceof Error && depth < 5; each = each.cause, depth++) {
    const { code, syscall } = each as Error & { code?: unknown; syscall?: unknown };
    if (typeof code === "string" && (NEVER_LEFT.has(code) || NOT_TRUSTED.test(code))) return true;
    if (typeof syscall === "string" && CONNECTING.has(syscall)) return true;
    // Every address of a host was tried.
    if (each instanceof AggregateError && each.errors.length > 0 && each.errors.every(hasNotLeft)) return true;
  }
  return false;
}
