import type { ChannelError } from "./channel.ts";
import { parseRetryAfter } from "./http-retry-after.ts";
import { hasNotLeft } from "./no-answer.ts";

/** Why one device was not sent a message. */
export type PushFailure = {
  readonly kind: ChannelError["kind"];
  /** The library's code without what stands before the slash. */
  readonly code: string;
  readonly detail: string;
  readonly retryAfterMs?: number | undefined;
  /** That the token exists no more. */
  readonly isDead?: boolean;
};

type Meaning = Omit<PushFailure, "code">;

/** FCM wants at least that where it does not say how long to wait. */
const QUOTA_RETRY_MS = 60_000;

const DEAD: Meaning = { kind: "refused", detail: "the device no longer takes messages of this app", isDead: true };
const OUR_FAULT: Meaning = { kind: "refused", detail: "the message is not as FCM wants it" };
const TROUBLE: Meaning = { kind: "unavailable", detail: "FCM has trouble" };
const TOO_MUCH: Meaning = { kind: "unavailable", detail: "too many messages at a time", retryAfterMs: QUOTA_RETRY_MS };
const NO_ENTRY: Meaning = { kind: "misconfigured", detail: "FCM does not let us in: the service account or its permissions are wrong" };
const NO_CONNECTION: Meaning = { kind: "unavailable", detail: "there was no connection to the provider" };

/** What the codes of the library mean, with no regard to what else an answer says. */
const MEANINGS: ReadonlyMap<string, Meaning> = new Map([
  ["registration-token-not-registered", DEAD],
  ["installation-id-not-registered", DEAD],
  ["invalid-registration-token", DEAD],
  ["invalid-argument", OUR_FAULT],
  ["invalid-recipient", OUR_FAULT],
  ["invalid-payload", OUR_FAULT],
  ["invalid-data-payload-key", OUR_FAULT],
  ["payload-size-limit-exceeded", OUR_FAULT],
  ["invalid-options", OUR_FAULT],
  ["invalid-package-name", OUR_FAULT],
  // A wrong service account would make tokens of all customers seem to be another's: they are not removed for this.
  ["mismatched-credential", { kind: "refused", detail: "the device belongs to another Firebase project" }],
  ["message-rate-exceeded", TOO_MUCH],
  ["device-message-rate-exceeded", TOO_MUCH],
  ["third-party-auth-error", { kind: "misconfigured", detail: "the service account, or the keys for Apple's or web push, are wrong" }],
  ["authentication-error", NO_ENTRY],
  ["server-unavailable", TROUBLE],
  ["internal-error", TROUBLE],
  ["unknown-error", TROUBLE],
  ["network-timeout", { kind: "unknown", detail: "the provider did not answer in time and may have taken it" }],
  ["unable-to-parse-response", { kind: "unknown", detail: "the provider's answer cannot be read, and it may have taken it" }],
]);

type LibraryError = Error & {
  readonly code?: unknown;
  readonly httpResponse?: { readonly headers?: Readonly<Record<string, unknown>>; readonly data?: unknown };
};
type Detail = { readonly "@type"?: unknown; readonly errorCode?: unknown; readonly fieldViolations?: unknown };

/** What an error of the library means for the device that it is about. */
export function explainFcm(error: unknown): PushFailure {
  const { code: given, httpResponse } = (error instanceof Error ? error : new Error()) as LibraryError;
  const code = typeof given === "string" ? given.slice(given.indexOf("/") + 1) : "failed";
  if (code === "network-error") return lostConnection(error);
  if (code === "invalid-credential") return { code, ...(isOfTheNetwork(error) ? NO_CONNECTION : NO_ENTRY) };
  const meaning = MEANINGS.get(code) ?? { kind: "unknown", detail: "it failed in a way that we do not know" };
  if (code === "invalid-argument" && isAboutToken(httpResponse?.data)) return { code, ...DEAD };
  if (code === "mismatched-credential" && !saysFcm(httpResponse?.data, "SENDER_ID_MISMATCH")) return { code, ...NO_ENTRY };
  if (meaning.kind !== "unavailable") return { code, ...meaning };
  const header = httpResponse?.headers?.["retry-after"];
  return { code, ...meaning, retryAfterMs: parseRetryAfter(typeof header === "string" ? header : undefined) ?? meaning.retryAfterMs };
}

function lostConnection(error: unknown): PushFailure {
  if (hasNotLeft(error)) return { code: "no_connection", ...NO_CONNECTION };
  return { kind: "unknown", code: "connection_lost", detail: "the connection broke before the provider answered, which may have taken it" };
}

/** Whether a token of Google's could not be fetched because there was no way to it. The library has that in its words only. */
function isOfTheNetwork(error: unknown): boolean {
  return (
    hasNotLeft(error) ||
    /ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|socket hang up|fetch failed|time-?out/i.test(String(error))
  );
}

/** A wrong argument is the token, rather than something of ours, only if FCM says so. */
function isAboutToken(data: unknown): boolean {
  const violations = detailsOf(data).flatMap(({ fieldViolations }) => (Array.isArray(fieldViolations) ? fieldViolations : []));
  if (violations.length > 0) return violations.every((each) => (each as { field?: unknown } | null)?.field === "message.token");
  return saysFcm(data, "INVALID_ARGUMENT") && /registration token/i.test(String(errorOf(data).message));
}

function saysFcm(data: unknown, errorCode: string): boolean {
  return detailsOf(data).some((detail) => String(detail["@type"]).endsWith("FcmError") && detail.errorCode === errorCode);
}

function detailsOf(data: unknown): readonly Detail[] {
  const { details } = errorOf(data);
  return Array.isArray(details) ? details.filter((each): each is Detail => typeof each === "object" && each !== null) : [];
}

function errorOf(data: unknown): { readonly message?: unknown; readonly details?: unknown } {
  const error = (data as { error?: unknown } | null | undefined)?.error;
  return typeof error === "object" && error !== null ? error : {};
}
