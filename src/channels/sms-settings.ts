/** An account with Twilio. */
export type SmsSettings = {
  /** Such as "https://api.twilio.com". */
  readonly baseUrl: string;
  readonly accountSid: string;
  /** Also the key by which Twilio signs webhooks. */
  readonly authToken: string;
  /** Whom messages come from: a number in E.164, or a messaging service (MG...). */
  readonly from: string;
  /** Where Twilio reaches us, such as "https://orders.example.com". Without it nothing is told of messages later. */
  readonly publicUrl: string | undefined;
  /** How long one call may take. */
  readonly timeoutMs: number;
};
