import type { TemplateName } from "../domain/template-names.ts";
import type { NotificationChannel } from "../gen/ordertrail/events/v1/notification_events_pb.js";
import type { MessageVariables } from "../templates/message-variables.ts";

/** Where somebody can be reached. Personal data: not for logs. */
export type Addresses = {
  readonly email?: string | undefined;
  /** E.164. */
  readonly phone?: string | undefined;
  readonly pushTokens?: readonly PushToken[] | undefined;
  /** A store's own system, and the secret that signs what it is sent. */
  readonly webhook?: { readonly url: string; readonly secret: string } | undefined;
};

/** A device's push token, and by what it is known in the log. */
export type PushToken = { readonly tokenId: string; readonly token: string };

/** A message to be sent. Holds personal data: not for logs. */
export type Message = {
  /** Our own reference, such as "812.customer.email". The same message attempted again has the same one. */
  readonly messageId: string;
  readonly orderId: string;
  readonly to: Addresses;
  readonly template: TemplateName;
  readonly locale: string;
  readonly variables: MessageVariables;
  /** For how long it is worth delivering, in seconds. */
  readonly usefulSeconds: number;
  /** Whether the person has written to us by this channel within the last 24 hours; WhatsApp takes free text only then. */
  readonly isConversationOpen: boolean;
};

/** That the provider has taken a message. */
export type Accepted = {
  /** What the provider calls it; empty when it tells none. */
  readonly providerMessageId: string;
  /** Push tokens that the provider says exist no more, by their identifiers. */
  readonly deadTokenIds?: readonly string[];
};

/** What a provider tells of a message later, or of a person. */
export type ChannelReport =
  | {
      readonly kind: "message";
      /** The same for every copy of it. */
      readonly reportId: string;
      /** Our own reference, where the provider returns it. */
      readonly messageId?: string | undefined;
      readonly providerMessageId: string;
      readonly report: "SENT" | "DELIVERED" | "READ" | "BOUNCED" | "FAILED";
      readonly happenedAt?: Date | undefined;
      /** The provider's code, or empty; and what it means, in plain words. */
      readonly code: string;
      readonly detail: string;
      /** That nothing more may be sent to this address by this channel. */
      readonly optOut?: "bounce" | "complaint" | "unsubscribe" | "provider" | undefined;
    }
  | {
      /** Somebody has written to us, or asked for no more, or for more. */
      readonly kind: "inbound";
      readonly reportId: string;
      /** E.164. */
      readonly phone: string;
      readonly happenedAt?: Date | undefined;
      readonly wish: "STOP" | "START" | "none";
    };

/** A webhook as it came in: `url` as the provider called it, header names in lower case. */
export type ChannelWebhook = {
  readonly method: string;
  readonly url: string;
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Uint8Array;
};

/**
 * A way to reach people. `send` renders the message's template for this channel and hands it to the provider, once: repeating is for the
 * caller. It rejects with a ChannelError, and with the signal's reason when that fires before anything has left.
 */
export type Channel = {
  readonly channel: NotificationChannel;
  /** The provider's name in metrics, such as "sendgrid". */
  readonly provider: string;
  /** Whether somebody with these addresses can be reached by it. */
  reaches(to: Addresses): boolean;
  send(message: Message, signal: AbortSignal): Promise<Accepted>;
  /** Asks the provider whether it has taken a message since that time. Absent where no provider can tell by what we know. */
  find?(message: Message, since: Date, signal: AbortSignal): Promise<Accepted | undefined>;
  /** What a webhook tells. Throws a ChannelWebhookRefused when it is not the provider's, or makes no sense. Absent where there are none. */
  readWebhook?(webhook: ChannelWebhook): readonly ChannelReport[];
};

/** Why a provider did not take a message. */
export class ChannelError extends Error {
  override readonly name = "ChannelError";
  /** The provider's own code, such as "21610", or one of ours, such as "timeout". No free text. */
  readonly code: string;
  /** What the code means, in plain words. Holds nothing of the message or its receiver. */
  readonly detail: string;
  /**
   * `refused`: not this message to this address, now or later; another channel may. `unavailable`: it was not taken and may be later.
   * `unknown`: it may have been taken. `misconfigured`: our account or settings are wrong: nothing goes by this channel until people have acted.
   */
  readonly kind: "refused" | "unavailable" | "unknown" | "misconfigured";
  readonly retryAfterMs: number | undefined;
  /** That nothing more may be sent to this address by this channel. */
  readonly optOut: "bounce" | "complaint" | "unsubscribe" | "provider" | undefined;
  /** Push tokens that exist no more, by their identifiers. */
  readonly deadTokenIds: readonly string[];

  constructor(
    kind: ChannelError["kind"],
    code: string,
    detail: string,
    options: ErrorOptions & {
      readonly retryAfterMs?: number | undefined;
      readonly optOut?: ChannelError["optOut"];
      readonly deadTokenIds?: readonly string[];
    } = {},
  ) {
    super(`${code}: ${detail}`, options);
    this.kind = kind;
    this.code = code;
    this.detail = detail;
    this.retryAfterMs = options.retryAfterMs;
    this.optOut = options.optOut;
    this.deadTokenIds = options.deadTokenIds ?? [];
  }
}

/** A webhook that is not believed (`forged`), or that is genuine and cannot be read (`malformed`). */
export class ChannelWebhookRefused extends Error {
  override readonly name = "ChannelWebhookRefused";
  readonly kind: "forged" | "malformed";
  constructor(kind: ChannelWebhookRefused["kind"], message: string) {
    super(message);
    this.kind = kind;
  }
}
