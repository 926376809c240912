/** An account with SendGrid. */
export type EmailSettings = {
  /** Such as "https://api.sendgrid.com". */
  readonly baseUrl: string;
  readonly apiKey: string;
  /** The address that messages come from, which SendGrid has verified. */
  readonly from: string;
  readonly fromName: string;
  readonly replyTo?: string | undefined;
  /** The key by which SendGrid's webhooks are checked: SPKI in base64. Without it none is believed. */
  readonly webhookPublicKey: string | undefined;
  /** How long one call may take. */
  readonly timeoutMs: number;
};
