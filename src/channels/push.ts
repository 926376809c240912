import { randomUUID } from "node:crypto";
import { deleteApp, initializeApp } from "firebase-admin/app";
import { type BaseMessage, getMessaging, type SendResponse } from "firebase-admin/messaging";
import type { TemplateName } from "../domain/template-names.ts";
import { NotificationChannel } from "../gen/ordertrail/events/v1/notification_events_pb.js";
import type { MessageVariables } from "../templates/message-variables.ts";
import { type Accepted, type Channel, ChannelError, type PushToken } from "./channel.ts";
import { createFcmCredential } from "./fcm-credential.ts";
import { createFcmRequests } from "./fcm-requests.ts";
import type { ProviderCalls } from "./provider-calls.ts";
import { explainFcm, type PushFailure } from "./push-codes.ts";
import { type RenderedPush, toFcmMessage } from "./push-message.ts";
import type { PushSettings } from "./push-settings.ts";

export type RenderPush = (template: TemplateName, locale: string, variables: MessageVariables) => RenderedPush;

export type PushParts = { readonly render: RenderPush; readonly calls: ProviderCalls; readonly clock?: () => Date };

/** FCM takes no more at a time. */
const MAX_TOKENS = 500;
/** How long the library may take to notice that its requests have been ended. */
const GRACE_MS = 100;
/** Of what failed for all devices, what counts: the first of these. */
const GRAVEST: readonly ChannelError["kind"][] = ["unknown", "unavailable", "misconfigured", "refused"];

/**
 * Push to phones and browsers, by Firebase Cloud Messaging: to all of a person's devices, and accepted when one of them was. A repeat
 * replaces on the device what came before. FCM tells nothing afterwards, and cannot be asked. To be disposed of.
 */
export function createPush(settings: PushSettings, { render, calls, clock = () => new Date() }: PushParts): Channel & AsyncDisposable {
  const { serviceAccount, baseUrl, timeoutMs } = settings;
  const requests = createFcmRequests(baseUrl);
  const { projectId } = serviceAccount;
  const app = initializeApp({ credential: createFcmCredential(settings), projectId, httpAgent: requests.agent }, randomUUID());
  const messaging = getMessaging(app);
  // The library's HTTP/2 makes a connection for every call, repeats by itself, and can be led nowhere else.
  messaging.enableLegacyHttpTransport();

  /** What came of each token. Takes no longer than the signal wants, and leaves nothing behind that goes on. */
  async function multicast(tokens: readonly PushToken[], message: BaseMessage, signal: AbortSignal): Promise<readonly SendResponse[]> {
    const sending = requests.during(signal, () =>
      messaging.sendEachForMulticast({ ...message, tokens: tokens.map(({ token }) => token) }).then(({ responses }) => responses),
    );
    const ended = await Promise.race([sending.result, soonAfter(signal)]);
    if (ended) return ended;
    sending.result.catch(() => undefined);
    if (sending.hasLeft()) throw new ChannelError("unknown", "timeout", "the provider did not answer in time and may have taken it");
    throw new ChannelError("unavailable", "token_timeout", "Google gave no access token in time");
  }

  async function sendAll(tokens: readonly PushToken[], message: BaseMessage, signal: AbortSignal): Promise<Accepted> {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    const failures: (PushFailure & { readonly tokenId: string })[] = [];
    const accepted: string[] = [];
    for (let first = 0; first < tokens.length; first += MAX_TOKENS) {
      const chunk = tokens.slice(first, first + MAX_TOKENS);
      let responses: readonly SendResponse[];
      try {
        responses = await multicast(chunk, message, limit);
      } catch (error) {
        const failure = error instanceof ChannelError ? { kind: error.kind, code: error.code, detail: error.detail } : explainFcm(error);
        responses = [];
        failures.push(...chunk.map(({ tokenId }) => ({ ...failure, tokenId })));
      }
      responses.forEach(({ success, messageId, error }, index) => {
        if (success) accepted.push(messageId ?? "");
        else failures.push({ ...explainFcm(error), tokenId: chunk[index]?.tokenId ?? "" });
      });
    }
    const deadTokenIds = failures.filter(({ isDead }) => isDead).map(({ tokenId }) => tokenId);
    const [providerMessageId] = accepted;
    if (providerMessageId !== undefined) return { providerMessageId, deadTokenIds };
    const gravest = GRAVEST.map((kind) => failures.find((failure) => failure.kind === kind)).find((failure) => failure !== undefined);
    if (!gravest) throw new ChannelError("refused", "no_address", "there is no device");
    const { kind, code, detail } = gravest;
    const waits = failures.flatMap((failure) => (failure.kind === kind && failure.retryAfterMs ? [failure.retryAfterMs] : []));
    throw new ChannelError(kind, code, detail, { deadTokenIds, retryAfterMs: waits.length > 0 ? Math.max(...waits) : undefined });
  }

  return {
    channel: NotificationChannel.PUSH,
    provider: "fcm",
    reaches: ({ pushTokens = [] }) => pushTokens.length > 0,
    async send(message, signal) {
      signal.throwIfAborted();
      const outgoing = toFcmMessage(message, render(message.template, message.locale, message.variables), clock());
      const started = performance.now();
      let outcome = "accepted";
      try {
        return await sendAll(message.to.pushTokens ?? [], outgoing, signal);
      } catch (error) {
        outcome = error instanceof ChannelError ? error.code : "failed";
        throw error;
      } finally {
        calls.record("fcm", outcome, performance.now() - started);
      }
    },
    async [Symbol.asyncDispose]() {
      await deleteApp(app);
      requests.close();
    },
  };
}

/** Resolves a little after the signal fires. */
function soonAfter(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    const later = () => void setTimeout(resolve, GRACE_MS, undefined);
    if (signal.aborted) later();
    else signal.addEventListener("abort", later, { once: true });
  });
}
