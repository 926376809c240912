import type { ChannelError } from "./channel.ts";

/** What a code of Twilio's means. */
export type SmsMeaning = {
  readonly kind: ChannelError["kind"];
  readonly detail: string;
  readonly optOut?: ChannelError["optOut"];
};

const refused = (detail: string): SmsMeaning => ({ kind: "refused", detail });
const unavailable = (detail: string): SmsMeaning => ({ kind: "unavailable", detail });
const unknown = (detail: string): SmsMeaning => ({ kind: "unknown", detail });
const misconfigured = (detail: string): SmsMeaning => ({ kind: "misconfigured", detail });

const MEANINGS: ReadonlyMap<string, SmsMeaning> = new Map([
  ["11200", misconfigured("Twilio could not fetch our webhook")],
  ["20003", misconfigured("the account or its token is not valid, or may not send")],
  ["20404", misconfigured("there is no such account")],
  ["20429", unavailable("too many calls at a time")],
  // Twilio says of this one that the message may have gone out.
  ["20500", unknown("something went wrong at Twilio, and it may have been taken")],
  ["20503", unavailable("Twilio is temporarily out of service")],
  ["21211", refused("this is no phone number")],
  ["21212", misconfigured("our sender is no valid number")],
  // Of one receiver's country; it does not keep messages from all others.
  ["21408", refused("messages to this number's country are not switched on in our account")],
  ["21602", refused("the message has no text")],
  ["21603", misconfigured("the message has no sender")],
  ["21604", refused("the message has no receiver")],
  ["21606", misconfigured("our sender cannot send text messages")],
  ["21608", refused("a trial account sends to verified numbers only")],
  ["21610", { kind: "refused", detail: "this person has told Twilio to stop our messages", optOut: "provider" }],
  ["21611", unavailable("our sender has too many messages waiting")],
  ["21612", refused("this number cannot be reached from our sender")],
  ["21614", refused("this number is no mobile phone's")],
  ["21617", refused("the text is too long")],
  ["21635", refused("this number is a landline's")],
  ["21910", refused("sender and receiver are not of the same kind")],
  ["30001", unavailable("too many messages are waiting")],
  ["30002", misconfigured("the account is suspended")],
  ["30003", refused("the phone cannot be reached at present")],
  ["30004", refused("messages to this phone are blocked")],
  ["30005", refused("the number is not known, or no longer in use")],
  ["30006", refused("this is a landline, or its carrier cannot be reached")],
  ["30007", refused("a carrier held the message for spam")],
  ["30008", refused("it was not delivered for a reason that the carrier does not tell")],
  ["30022", unavailable("more messages a second than US carriers take from us")],
  ["30023", unavailable("more messages a day than US carriers take from us")],
  ["30034", misconfigured("our sender is not registered with US carriers")],
  ["30036", refused("it was not delivered while it was still useful")],
  ["30410", unavailable("the carrier did not answer in time")],
  ["30500", unknown("something went wrong at Twilio on the way")],
  ["63016", refused("this person has not written to us within 24 hours, and only templates are taken")],
]);

/** What a code means that is in Twilio's list, as it comes with an answer or, later, with a webhook. */
export function meaningOfCode(code: string): SmsMeaning | undefined {
  return MEANINGS.get(code);
}

const STATUSES: ReadonlyMap<number, SmsMeaning> = new Map([
  [401, misconfigured("Twilio does not let us in")],
  [403, misconfigured("Twilio does not let us in")],
  [404, misconfigured("there is no such account, or no Twilio at this address")],
  [405, misconfigured("there is no Twilio at this address")],
  [408, unavailable("Twilio did not get the request in time")],
  [429, unavailable("too many calls at a time")],
  [503, unavailable("Twilio is temporarily out of service")],
]);

/** What a status means by itself, that is not that of a message taken. */
export function meaningOfStatus(status: number): SmsMeaning {
  const known = STATUSES.get(status);
  if (known) return known;
  if (status < 300) return unknown("the answer is of a kind that we do not know, and it may have been taken");
  if (status < 400) return misconfigured("Twilio's address is another one");
  if (status < 500) return refused("Twilio refused it for a reason that we do not know");
  return unknown("something went wrong at Twilio, and it may have been taken");
}
