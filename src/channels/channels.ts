import type { Logger } from "pino";
import { NotificationChannel } from "../gen/ordertrail/events/v1/notification_events_pb.js";
import { renderEmail, renderPush, renderSms, renderWhatsApp } from "../templates/render.ts";
import type { Channel } from "./channel.ts";
import { createEmail } from "./email.ts";
import type { EmailSettings } from "./email-settings.ts";
import { createInApp } from "./in-app.ts";
import type { ProviderCalls } from "./provider-calls.ts";
import { createPush } from "./push.ts";
import type { PushSettings } from "./push-settings.ts";
import { createSms } from "./sms.ts";
import type { SmsSettings } from "./sms-settings.ts";
import { createStoreWebhook } from "./store-webhook.ts";
import { createWhatsApp } from "./whatsapp.ts";
import type { WhatsAppSettings } from "./whatsapp-settings.ts";

/** The accounts with those who carry messages. A channel without one is off. */
export type ChannelAccounts = {
  readonly email?: Omit<EmailSettings, "timeoutMs">;
  readonly sms?: Omit<SmsSettings, "timeoutMs">;
  readonly whatsapp?: Omit<WhatsAppSettings, "timeoutMs">;
  readonly push?: Omit<PushSettings, "timeoutMs">;
};

export type Channels = AsyncDisposable & { readonly all: ReadonlyMap<NotificationChannel, Channel> };

const { EMAIL, SMS, WHATSAPP, PUSH } = NotificationChannel;
/** What is to be set for each, for those who read the log. */
const SET: readonly (readonly [NotificationChannel, string])[] = [
  [EMAIL, "SENDGRID_API_KEY and SENDGRID_FROM"],
  [SMS, "TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN and TWILIO_FROM"],
  [WHATSAPP, "META_API_KEY, META_PHONE_NUMBER_ID, META_APP_SECRET and META_VERIFY_TOKEN"],
  [PUSH, "FIREBASE_API_KEY"],
];

/** Every channel that there is an account for, and those that need none. Says which are off. */
export function createChannels(
  { email, sms, whatsapp, push }: ChannelAccounts,
  { timeoutMs, allowPrivate, calls, logger }: { timeoutMs: number; allowPrivate: boolean; calls: ProviderCalls; logger: Logger },
): Channels {
  const parts = new AsyncDisposableStack();
  const channels: Channel[] = [
    ...(email ? [createEmail({ ...email, timeoutMs }, { render: renderEmail, calls })] : []),
    ...(sms ? [createSms(withTimeout(sms, timeoutMs), { render: renderSms, calls })] : []),
    ...(whatsapp ? [createWhatsApp({ ...whatsapp, timeoutMs }, { render: renderWhatsApp, calls })] : []),
    ...(push ? [parts.use(createPush({ ...push, timeoutMs }, { render: renderPush, calls }))] : []),
    createStoreWebhook({ timeoutMs, allowPrivate }, { render: (...what) => renderSms(...what).text, calls }),
    createInApp(),
  ];
  const all = new Map(channels.map((channel) => [channel.channel, channel]));
  for (const [channel, variables] of SET)
    if (!all.has(channel)) logger.warn({ channel: NotificationChannel[channel] }, `this channel is off: set ${variables} to turn it on`);
  return { all, [Symbol.asyncDispose]: () => parts.disposeAsync() };
}

/** Where Twilio reaches us may be known later than the rest: it is read when it is needed. */
function withTimeout(sms: Omit<SmsSettings, "timeoutMs">, timeoutMs: number): SmsSettings {
  return {
    ...sms,
    timeoutMs,
    get publicUrl() {
      return sms.publicUrl;
    },
  };
}
