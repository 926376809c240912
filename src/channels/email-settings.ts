/** An account with SendGrid. */
export type EmailSettings = {
  readonly baseUrl: string;
  readonly apiKey: string;
  /** The address that emails come from, and the name beside it. */
  readonly from: string;
  readonly fromName: string;
  readonly replyTo?: string | undefined;
  /** Base64 of the SPKI that signs webhooks; undefined: none is believed. */
  readonly webhookPublicKey: string | undefined;
  readonly timeoutMs: number;
};
