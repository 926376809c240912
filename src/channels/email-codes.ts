import type { ChannelError, ChannelReport } from "./channel.ts";

type MessageReport = Extract<ChannelReport, { kind: "message" }>;

/** What an answer of SendGrid's means. */
export type EmailMeaning = { readonly kind: ChannelError["kind"]; readonly detail: string };

/** What an event of SendGrid's webhook means. */
export type EmailEventMeaning = {
  readonly report: MessageReport["report"];
  readonly detail: string;
  readonly optOut?: MessageReport["optOut"];
};

const STATUSES: ReadonlyMap<number, EmailMeaning> = new Map([
  [400, { kind: "refused", detail: "SendGrid does not take a message like this, or to this address" }],
  [401, { kind: "misconfigured", detail: "the API key is not valid, or has no credit left" }],
  [403, { kind: "misconfigured", detail: "the API key may not send, or the sender is not verified" }],
  // It is the path that is not there, and every message has the same.
  [404, { kind: "misconfigured", detail: "there is no SendGrid at this address" }],
  [405, { kind: "misconfigured", detail: "there is no SendGrid at this address" }],
  [408, { kind: "unavailable", detail: "SendGrid did not get the request in time" }],
  [413, { kind: "refused", detail: "the message is too large" }],
  [429, { kind: "unavailable", detail: "too many calls at a time" }],
  [500, { kind: "unavailable", detail: "SendGrid has trouble" }],
  [502, { kind: "unknown", detail: "a gateway of SendGrid's got no answer, and it may have been taken" }],
  [503, { kind: "unavailable", detail: "SendGrid is temporarily out of service" }],
  [504, { kind: "unknown", detail: "a gateway of SendGrid's got no answer, and it may have been taken" }],
]);

/** What a status means that is not that of a message taken. */
export function meaningOfStatus(status: number): EmailMeaning {
  const known = STATUSES.get(status);
  if (known) return known;
  if (status < 300) return { kind: "unknown", detail: "the answer is of a kind that we do not know, and it may have been taken" };
  if (status < 400) return { kind: "misconfigured", detail: "SendGrid's address is another one" };
  if (status < 500) return { kind: "refused", detail: "SendGrid refused it for a reason that we do not know" };
  return { kind: "unavailable", detail: "SendGrid has trouble" };
}

const BOUNCED: EmailEventMeaning = { report: "BOUNCED", detail: "the receiving server refused the address for good", optOut: "bounce" };
const BLOCKED: EmailEventMeaning = { report: "FAILED", detail: "the receiving server refused this message, not the address" };

/** Of what is told of a message; what only tells that SendGrid tries again, or of a click, is left out. */
const EVENTS: ReadonlyMap<string, EmailEventMeaning> = new Map([
  ["processed", { report: "SENT", detail: "" }],
  ["delivered", { report: "DELIVERED", detail: "" }],
  ["open", { report: "READ", detail: "" }],
  // Who says so has got the message.
  ["spamreport", { report: "DELIVERED", detail: "it was reported as spam", optOut: "complaint" }],
  ["unsubscribe", { report: "DELIVERED", detail: "this person wants no more email", optOut: "unsubscribe" }],
  ["group_unsubscribe", { report: "DELIVERED", detail: "this person wants no more email of this kind", optOut: "unsubscribe" }],
]);

/** Why SendGrid dropped a message by itself, by the words it begins its reason with. */
const DROPPED: readonly (readonly [string, EmailEventMeaning])[] = [
  ["bounced address", { report: "FAILED", detail: "not sent: an earlier message to this address bounced", optOut: "bounce" }],
  ["spam reporting address", { report: "FAILED", detail: "not sent: an earlier one was reported as spam", optOut: "complaint" }],
  ["unsubscribed address", { report: "FAILED", detail: "not sent: this person wants no more email", optOut: "unsubscribe" }],
];

/** What an event means, with its `type` (of a bounce) and `reason`; undefined when it tells us nothing. */
export function meaningOfEvent(event: string, type: string, reason: string): EmailEventMeaning | undefined {
  if (event === "bounce") return type === "blocked" ? BLOCKED : BOUNCED;
  if (event !== "dropped") return EVENTS.get(event);
  const known = DROPPED.find(([words]) => reason.toLowerCase().startsWith(words));
  return known?.[1] ?? { report: "FAILED", detail: "SendGrid did not send it" };
}
