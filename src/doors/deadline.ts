import type { IncomingHttpHeaders } from "node:http";
import { Refusal } from "../domain/refusal.ts";

/** Calls its argument, with the reason, when a call is to end before it is answered. Does so at most a few times. */
export type WhenEnded = (end: (reason: unknown) => void) => void;

/** What a call ends with whose caller hears no answer any more. */
export const CALLER_LEFT = new Refusal("CANCELLED", "the caller went away");

/** The time for which a call may go on. */
export type CallScope = Disposable & {
  /** Aborts with a Refusal DEADLINE_EXCEEDED, or with the reason for which the door ends the call. */
  readonly signal: AbortSignal;
  /** Settles as `work` does, or rejects with the signal's reason as soon as it aborts, whether or not the work heeds it. */
  race<Result>(work: Promise<Result>): Promise<Result>;
};

/** What a call ends with whose time is up. What a command may have done is not undone by that. */
export function deadlineExceeded(isCommand: boolean): Refusal {
  const advice = ": a command may have been carried out all the same, so send it again with the same request_id";
  return new Refusal("DEADLINE_EXCEEDED", `the deadline passed before the answer was there${isCommand ? advice : ""}`);
}

/** Longer ones fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * Opens the scope of a call that ends after `timeoutMs` (never, if absent) or when the door says so. When it is disposed
 * of, the call is over, and its signal aborts no more.
 */
export function openScope(whenEnded: WhenEnded, timeoutMs: number | undefined, isCommand: boolean): CallScope {
  const controller = new AbortController();
  const { signal } = controller;
  let isOver = false;
  // A listener of the signal would do; this costs a tenth, at every call.
  let giveUp: ((reason: unknown) => void) | undefined;
  const end = (reason: unknown) => {
    if (isOver || signal.aborted) return;
    controller.abort(reason);
    giveUp?.(reason);
  };
  const timer = timeoutMs === undefined ? undefined : setTimeout(() => end(deadlineExceeded(isCommand)), Math.min(timeoutMs, MAX_TIMER_MS));
  whenEnded(end);

  return {
    signal,
    race: (work) =>
      new Promise((resolve, reject) => {
        if (signal.aborted) reject(signal.reason);
        giveUp = reject;
        work.then(resolve, reject);
      }),
    [Symbol.dispose]() {
      isOver = true;
      clearTimeout(timer);
    },
  };
}

/** The end of a signal, for a call that is to end with it. */
export function whenAborted(signal: AbortSignal): WhenEnded {
  return (end) => {
    if (signal.aborted) end(signal.reason);
    else signal.addEventListener("abort", () => end(signal.reason), { once: true });
  };
}

const TIMEOUT_HEADER = "connect-timeout-ms";

/** For how many milliseconds the caller of the HTTP port waits, if they say. Throws a Refusal for what is no such number. */
export function timeoutIn(headers: IncomingHttpHeaders): number | undefined {
  const timeout = headers[TIMEOUT_HEADER];
  if (timeout === undefined) return undefined;
  if (typeof timeout !== "string" || !/^\d{1,10}$/.test(timeout))
    throw new Refusal("MALFORMED_REQUEST", "Connect-Timeout-Ms must be a whole number of milliseconds, of at most 10 digits");
  return Number(timeout);
}
