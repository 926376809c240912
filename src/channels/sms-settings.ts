/** An account with Twilio. */
export type SmsSettings = {
  readonly baseUrl: string;
  readonly accountSid: string;
  readonly authToken: string;
  /** E.164, or a messaging service. */
  readonly from: string;
  /** Where Twilio reaches /webhooks/twilio; undefined: it is not told to call. */
  readonly publicUrl: string | undefined;
  readonly timeoutMs: number;
};
