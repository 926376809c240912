import type { EmailSettings } from "../channels/email-settings.ts";
import type { PushSettings } from "../channels/push-settings.ts";
import type { SmsSettings } from "../channels/sms-settings.ts";
import type { WhatsAppSettings } from "../channels/whatsapp-settings.ts";
import { startFcmSandbox } from "./fcm-sandbox.ts";
import { createOutbox } from "./outbox.ts";
import { startSendGridSandbox } from "./sendgrid-sandbox.ts";
import { startTwilioSandbox } from "./twilio-sandbox.ts";
import { startWhatsAppSandbox } from "./whatsapp-sandbox.ts";

/** The accounts of those who carry messages that are played here. */
export type PlayedAccounts = {
  readonly email?: Omit<EmailSettings, "timeoutMs">;
  readonly sms?: Omit<SmsSettings, "timeoutMs">;
  readonly whatsapp?: Omit<WhatsAppSettings, "timeoutMs">;
  readonly push?: Omit<PushSettings, "timeoutMs">;
};

/** Those who carry messages, played on this machine. */
export type MessageSandbox = AsyncDisposable & {
  readonly accounts: PlayedAccounts;
  /** Where what they have taken is read as JSON. */
  readonly outbox: string;
};

/** Plays those that are wanted, on free ports, with accounts made up for the occasion. */
export async function startMessageSandbox(
  wanted: ReadonlySet<keyof PlayedAccounts>,
  webhooksTo: () => string | undefined,
): Promise<MessageSandbox | undefined> {
  if (wanted.size === 0) return undefined;
  await using parts = new AsyncDisposableStack();
  const outbox = createOutbox();
  const email = wanted.has("email") ? parts.use(await startSendGridSandbox({ outbox, webhooksTo })).settings : undefined;
  const sms = wanted.has("sms") ? parts.use(await startTwilioSandbox({ outbox, webhooksTo })).settings : undefined;
  const whatsapp = wanted.has("whatsapp") ? parts.use(await startWhatsAppSandbox({ outbox, webhooksTo })).settings : undefined;
  const push = wanted.has("push") ? parts.use(await startFcmSandbox({ outbox })).settings : undefined;
  const running = parts.move();
  const [first] = [email, sms, whatsapp, push].flatMap((settings) => (settings ? [settings.baseUrl] : []));
  return {
    accounts: { ...(email && { email }), ...(sms && { sms }), ...(whatsapp && { whatsapp }), ...(push && { push }) },
    outbox: `${first}/__sandbox/outbox`,
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}
