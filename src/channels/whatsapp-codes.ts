import type { ChannelError } from "./channel.ts";

/** What a code of Meta's means. */
export type WhatsAppMeaning = {
  readonly kind: ChannelError["kind"];
  readonly detail: string;
  /** For how long to wait where Meta does not say. */
  readonly retryAfterMs?: number;
  readonly optOut?: ChannelError["optOut"];
};

/** The last message of theirs is more than 24 hours ago. */
export const WINDOW_CLOSED = "131047";

const refused = (detail: string): WhatsAppMeaning => ({ kind: "refused", detail });
const unavailable = (detail: string, retryAfterMs?: number): WhatsAppMeaning => ({
  kind: "unavailable",
  detail,
  ...(retryAfterMs !== undefined && { retryAfterMs }),
});
const misconfigured = (detail: string): WhatsAppMeaning => ({ kind: "misconfigured", detail });

const MEANINGS: ReadonlyMap<string, WhatsAppMeaning> = new Map([
  ["0", misconfigured("the access token is not valid")],
  ["190", misconfigured("the access token has expired or is not valid")],
  ["3", misconfigured("the app lacks a permission")],
  ["10", misconfigured("the app lacks a permission")],
  ["1", unavailable("Meta has trouble")],
  ["2", unavailable("Meta is temporarily out of service")],
  ["4", unavailable("the app has made too many calls")],
  ["80007", unavailable("the business account has made too many calls")],
  ["130429", unavailable("too many messages at a time")],
  // About one message in six seconds is taken for one person.
  ["131056", unavailable("too many messages to this person at a time", 6000)],
  ["131048", misconfigured("Meta holds back our messages: too many were reported as spam")],
  [WINDOW_CLOSED, refused("this person has not written to us within 24 hours, and only templates are taken")],
  ["131026", refused("this number cannot be reached by WhatsApp")],
  ["131051", refused("messages of this type are not taken")],
  ["131049", refused("this person has had as much marketing as Meta delivers")],
  ["131050", { kind: "refused", detail: "this person wants no more of our messages", optOut: "provider" }],
  ["131000", unavailable("something went wrong at Meta")],
  ["131016", unavailable("Meta's service is temporarily unavailable")],
  ["100", refused("the request has a parameter that is wrong")],
  ["131008", refused("the request lacks a parameter")],
  ["131009", refused("the request has a parameter with a wrong value")],
  ["131021", refused("sender and receiver are the same number")],
  ["131031", misconfigured("the business account is locked")],
  ["368", misconfigured("the business account is blocked for breaking Meta's policies")],
  ["130497", misconfigured("the business account may not write to people in this country")],
  ["131042", misconfigured("Meta has no valid means of payment of ours")],
  ["132000", refused("the template has another number of parameters")],
  ["132001", refused("there is no such approved template in this language")],
  ["132005", refused("the template's text is too long with these parameters")],
  ["132007", refused("the template breaks Meta's policies")],
  ["132012", refused("a parameter of the template has the wrong format")],
  ["132015", refused("the template is paused because of its quality")],
  ["132016", refused("the template is disabled because of its quality")],
  ["133010", misconfigured("our phone number is not registered")],
]);

/** What a code means that is in Meta's list, as it comes with an answer or, later, with a webhook. */
export function meaningOf(code: string): WhatsAppMeaning | undefined {
  const known = MEANINGS.get(code);
  if (known) return known;
  return /^2\d\d$/.test(code) ? misconfigured("the app lacks a permission") : undefined;
}
