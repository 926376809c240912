import type { DeliveryProvider, Money } from "../gen/ordertrail/events/v1/values_pb.js";

/** Where a courier is to go. */
export type Waypoint = {
  readonly name: string;
  /** E.164. */
  readonly phone: string;
  readonly address: {
    readonly lines: readonly string[];
    readonly city: string;
    readonly region: string;
    readonly postalCode: string;
    /** ISO 3166-1 alpha-2. */
    readonly country: string;
  };
  readonly latitude?: number | undefined;
  readonly longitude?: number | undefined;
  readonly instructions: string;
};

/** A delivery that a provider is asked for. Holds personal data: not for logs. */
export type DeliveryRequest = {
  readonly orderId: string;
  /** From 1, for each order. The provider's idempotency key is made of both: the same request again is the same delivery. */
  readonly attempt: number;
  readonly storeId: string;
  readonly pickup: Waypoint;
  readonly dropoff: Waypoint;
  readonly items: readonly { readonly name: string; readonly quantity: number }[];
  /** What the goods are worth. */
  readonly value?: Money | undefined;
  /** When they can be picked up; now, if absent. */
  readonly readyAt?: Date | undefined;
};

/** What a provider would charge, and when it would be there. */
export type Quote = {
  readonly quoteId: string;
  readonly fee: Money;
  readonly pickupAt?: Date | undefined;
  readonly dropoffAt?: Date | undefined;
  readonly expiresAt: Date;
};

/** How a delivery stands, in one vocabulary for all providers; the first is the lowest rank. */
export const COURIER_STATUSES = [
  "REQUESTED",
  "ASSIGNED",
  "AT_STORE",
  "PICKED_UP",
  "ON_THE_WAY",
  "ARRIVED",
  "DELIVERED",
  "RETURNING",
  "RETURNED",
  "CANCELLED",
] as const;

export type CourierStatus = (typeof COURIER_STATUSES)[number];

/** Where a courier was, when. */
export type CourierPoint = { readonly latitude: number; readonly longitude: number; readonly recordedAt: Date };

/** Who brings the goods. Personal data: not for logs. */
export type CourierDetails = {
  /** The provider's own identifier, or one made of the delivery's where it has none. */
  readonly driverId: string;
  readonly name: string;
  readonly phone: string;
  readonly vehicleType: string;
  readonly photoUrl: string;
};

/** A delivery as its provider tells it. */
export type Delivery = {
  /** The provider's own identifier. */
  readonly providerDeliveryId: string;
  /** Undefined: one that is not known here, of a newer API. */
  readonly status: CourierStatus | undefined;
  /** The provider's own word for it. */
  readonly providerStatus: string;
  readonly fee?: Money | undefined;
  /** An absolute http or https address, or empty. */
  readonly trackingUrl: string;
  readonly courier?: CourierDetails | undefined;
  readonly point?: CourierPoint | undefined;
  readonly pickupAt?: Date | undefined;
  readonly dropoffAt?: Date | undefined;
  /** The provider's own code for why it ended early, or empty. */
  readonly endReason: string;
  /** Whether that code says that it was the platform that called it off. */
  readonly isEndedByUs: boolean;
};

/** What a webhook tells. */
export type CourierReport = {
  /** The same for every copy of it. */
  readonly reportId: string;
  /** What happened, in the provider's own word, such as "event.courier_update". */
  readonly kind: string;
  readonly providerDeliveryId: string;
  /** When it happened, by the provider's clock, where it tells. */
  readonly happenedAt?: Date | undefined;
  /** Whose it is, where the provider tells. */
  readonly orderId?: string | undefined;
  readonly attempt?: number | undefined;
  /** What it says of the delivery; undefined when it says nothing that is known here. */
  readonly delivery?: Delivery | undefined;
};

/** A webhook as it came in. Header names in lower case. */
export type Webhook = { readonly headers: ReadonlyMap<string, string>; readonly body: Uint8Array };

/** A delivery provider. Its calls reject with a CourierError, and with the signal's reason when that fires. */
export type Courier = {
  readonly provider: DeliveryProvider;
  /** Whether its webhooks are signed. Of one whose are not, what ends a delivery is believed when the provider says so itself. */
  readonly signsWebhooks: boolean;
  quote(request: DeliveryRequest, signal: AbortSignal): Promise<Quote>;
  /**
   * Asked a second time with the same order and attempt, answers the delivery that exists. An empty `quoteId`: without a quote;
   * one that does not hold any more: likewise.
   */
  create(request: DeliveryRequest, quoteId: string, signal: AbortSignal): Promise<Delivery>;
  get(providerDeliveryId: string, signal: AbortSignal): Promise<Delivery>;
  /** Calls a delivery off. One that is called off already is no error. */
  cancel(providerDeliveryId: string, signal: AbortSignal): Promise<void>;
  /** What a webhook tells; none for events that do not matter here. Throws a WebhookRefused when it is not the provider's, or makes no sense. */
  readWebhook(webhook: Webhook): readonly CourierReport[];
  /** How often it has been called, and what came of it. */
  metrics(): readonly CourierMetric[];
};

/** How often a kind of call was made, and what came of it. Holds nothing of orders or people. */
export type CourierMetric = {
  readonly operation: string;
  readonly calls: number;
  /** By the code of the failure. */
  readonly failures: Readonly<Record<string, number>>;
  readonly totalMs: number;
};

/** Why a provider did not do what it was asked for. */
export class CourierError extends Error {
  override readonly name = "CourierError";
  /** The provider's own code, such as "address_undeliverable", or one of ours, such as "timeout". No free text. */
  readonly code: string;
  /**
   * `refused`: it will not do this; another provider may. `unavailable`: it may later, try again. `unknown`: it may have done
   * it; asking again with the same order and attempt is safe. `misconfigured`: our credentials or settings are wrong.
   */
  readonly kind: "refused" | "unavailable" | "unknown" | "misconfigured";
  /** How long it wants to be left alone, where it says. */
  readonly retryAfterMs: number | undefined;

  constructor(kind: CourierError["kind"], code: string, options: ErrorOptions & { readonly retryAfterMs?: number | undefined } = {}) {
    super(`the provider answered ${code}`, options);
    this.kind = kind;
    this.code = code;
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** A webhook that is not believed, or cannot be read. */
export class WebhookRefused extends Error {
  override readonly name = "WebhookRefused";
  /** `forged`: its signature or credential is wrong or missing; `malformed`: it is genuine, but not as the provider writes them. */
  readonly kind: "forged" | "malformed";
  constructor(kind: WebhookRefused["kind"], message: string) {
    super(message);
    this.kind = kind;
  }
}
