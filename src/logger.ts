import pino, { type DestinationStream, type Logger } from "pino";

/**
 * What is blotted out should anyone ever log it: fields that hold personal data or secrets, and objects that have such
 * fields somewhere. By name at the top of a line, for lines are flat: paths with wildcards cost 40 µs a line.
 */
const REDACTED = [
  "authorization",
  "token",
  "name",
  "phone",
  "email",
  "address",
  "instructions",
  "note",
  "license_plate",
  "photo_url",
  "recipient",
  "personal",
  "proof",
  "proof_of_delivery",
  "driver",
  "driver_details",
  "metadata",
  "order",
  "entry",
  "document",
  "request",
  "response",
  "headers",
  "body",
];

/**
 * The process's logger: one JSON object a line, times in UTC, personal data blotted out.
 * ERROR is for failures, WARN for time-outs and retries, INFO for what moved an order, DEBUG for the rest.
 */
export function createLogger(level: string, destination?: DestinationStream): Logger {
  const options = {
    level,
    base: { service: "ordertrail", pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    redact: { paths: REDACTED, censor: "[redacted]" },
    serializers: { err: errorForLog },
  };
  return destination ? pino(options, destination) : pino(options);
}

/** How much may wait for a slow reader of the log; lines beyond that are dropped, for orders must not wait for them. */
const MAX_WAITING_BYTES = 16 * 1024 * 1024;

/**
 * Where a server's lines go: a file, or a descriptor such as 2. Lines that come while others are written wait for them and
 * go together; a process that is killed takes the last few with it, one that ends writes them all.
 */
export function logTo(destination: string | number): DestinationStream {
  return pino.destination({ dest: destination, sync: false, maxLength: MAX_WAITING_BYTES });
}

/** What of an error is logged: never the fields that libraries hang on it, for those may hold documents or headers. */
function errorForLog(error: unknown): object {
  if (!(error instanceof Error)) return { type: typeof error };
  const { name, message, stack, cause } = error;
  const code = "code" in error && (typeof error.code === "string" || typeof error.code === "number") ? { code: error.code } : {};
  return { type: name, message, ...code, stack, ...(cause !== undefined && { cause: errorForLog(cause) }) };
}
