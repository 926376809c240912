import {
  BrokenCircuitError,
  ConsecutiveBreaker,
  circuitBreaker,
  DelegateBackoff,
  handleWhen,
  type IRetryBackoffContext,
  retry,
  wrap,
} from "cockatiel";
import { readAtMost } from "../read-at-most.ts";
import { CourierError, type CourierMetric } from "./courier.ts";

/** A call to a provider. */
export type CourierRequest = {
  /** What it is for, in metrics. */
  readonly operation: string;
  readonly method: "GET" | "POST" | "PUT";
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON, or as a form if it is URLSearchParams. */
  readonly body?: object | undefined;
};

/** A provider's answer; `body` is undefined when it is no JSON. */
export type CourierAnswer = { readonly status: number; readonly body: unknown; readonly retryAfterMs?: number };

export type CourierHttpOptions = {
  /** How long one attempt may take. */
  readonly timeoutMs: number;
  /** What a failed answer means. Of those that may pass, calls are made again a few times. */
  readonly explain: (answer: CourierAnswer) => CourierError;
};

/** Calls a provider's API. */
export type CourierHttp = {
  /** Answers a good answer; rejects with a CourierError, or with the signal's reason. */
  call(request: CourierRequest, signal: AbortSignal): Promise<CourierAnswer>;
  metrics(): readonly CourierMetric[];
};

const MAX_RETRIES = 2;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 2000;
/** After so many failures in a row a provider is left alone for a while; then one call tries. */
const FAILURES_TO_OPEN = 5;
const OPEN_MS = 10_000;
const MAX_BODY_BYTES = 1024 * 1024;

/**
 * Calls with a time limit, retries with jitter, and a circuit breaker for all calls to one provider. Every call made by it must be
 * harmless when it is made twice. Bodies and headers are in no error.
 */
export function createCourierHttp({ timeoutMs, explain }: CourierHttpOptions): CourierHttp {
  const counts = new Map<string, { calls: number; failures: Record<string, number>; totalMs: number }>();
  const mayPass = (error: unknown) => error instanceof CourierError && (error.kind === "unavailable" || error.kind === "unknown");
  const worthRetrying = (error: unknown) => mayPass(error) && ((error as CourierError).retryAfterMs ?? 0) <= LAST_RETRY_MS;
  const policy = wrap(
    retry(handleWhen(worthRetrying), {
      maxAttempts: MAX_RETRIES,
      backoff: new DelegateBackoff<IRetryBackoffContext<unknown>>(delayBefore),
    }),
    circuitBreaker(handleWhen(mayPass), { halfOpenAfter: OPEN_MS, breaker: new ConsecutiveBreaker(FAILURES_TO_OPEN) }),
  );

  function count(operation: string, code: string | undefined, ms: number): void {
    const known = counts.get(operation) ?? { calls: 0, failures: {}, totalMs: 0 };
    counts.set(operation, known);
    known.calls++;
    known.totalMs += ms;
    if (code !== undefined) known.failures[code] = (known.failures[code] ?? 0) + 1;
  }

  async function attempt({ operation, method, url, headers = {}, body }: CourierRequest, signal: AbortSignal): Promise<CourierAnswer> {
    signal.throwIfAborted();
    const started = performance.now();
    let code: string | undefined;
    try {
      const answer = await send(method, url, headers, body, AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]));
      if (answer.status >= 200 && answer.status < 300 && answer.body !== undefined) return answer;
      throw answer.status < 300 ? new CourierError("unknown", "unreadable_answer") : explain(answer);
    } catch (error) {
      signal.throwIfAborted();
      const known = error instanceof CourierError ? error : new CourierError("unknown", isTimeout(error) ? "timeout" : "connection_lost");
      code = known.code;
      throw known;
    } finally {
      count(operation, code, performance.now() - started);
    }
  }

  return {
    async call(request, signal) {
      try {
        return await policy.execute(() => attempt(request, signal), signal);
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof BrokenCircuitError)) throw error;
        throw new CourierError("unavailable", "circuit_open", { retryAfterMs: OPEN_MS });
      }
    },
    metrics: () =>
      Array.from(counts, ([operation, { calls, failures, totalMs }]) => ({ operation, calls, failures: { ...failures }, totalMs })),
  };
}

async function send(
  method: string,
  url: string,
  headers: Readonly<Record<string, string>>,
  body: object | undefined,
  signal: AbortSignal,
): Promise<CourierAnswer> {
  const isForm = body instanceof URLSearchParams;
  const response = await fetch(url, {
    method,
    signal,
    // A redirect would take credentials to where nobody has said that they may go.
    redirect: "error",
    headers: { accept: "application/json", ...(body && !isForm && { "content-type": "application/json" }), ...headers },
    ...(body && { body: isForm ? body : JSON.stringify(body) }),
  });
  const retryAfter = Number(response.headers.get("retry-after") ?? Number.NaN);
  return {
    status: response.status,
    body: await readJson(response),
    ...(Number.isFinite(retryAfter) && { retryAfterMs: retryAfter * 1000 }),
  };
}

/** Twice as long each time, with jitter, and never sooner than the provider wants to be asked. */
function delayBefore({ attempt, result }: IRetryBackoffContext<unknown>): number {
  const wanted = "error" in result && result.error instanceof CourierError ? (result.error.retryAfterMs ?? 0) : 0;
  const usual = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** (attempt - 1));
  return wanted + usual * (0.5 + Math.random() / 2);
}

/** What an answer holds; undefined when it is no JSON. Throws when it is far too large to be what was asked for. */
async function readJson(response: Response): Promise<unknown> {
  const bytes = await readAtMost(response.body ?? [], MAX_BODY_BYTES);
  try {
    return JSON.parse(bytes.toString());
  } catch {
    return undefined;
  }
}

function isTimeout(error: unknown): boolean {
  return error instanceof DOMException && error.name === "TimeoutError";
}
