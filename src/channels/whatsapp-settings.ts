/** An account with Meta's WhatsApp Cloud API. */
export type WhatsAppSettings = {
  /** Such as "https://graph.facebook.com". */
  readonly baseUrl: string;
  /** Such as "v25.0". */
  readonly apiVersion: string;
  /** Meta's identifier of the number that messages come from. */
  readonly phoneNumberId: string;
  /** A system user's token. */
  readonly accessToken: string;
  /** The key by which Meta signs webhooks. */
  readonly appSecret: string;
  /** The word by which Meta shows that it is the one that sets up the webhook. */
  readonly verifyToken: string;
  /** How long one call may take. */
  readonly timeoutMs: number;
};
