import { randomBytes } from "node:crypto";
import type { DoorDashSettings } from "../couriers/doordash.ts";
import type { UberSettings } from "../couriers/uber.ts";
import { createDeliveryEngine, type DeliveryEngine } from "./delivery-engine.ts";
import { createDoorDashSandbox, type DoorDashAccount, doordashWebhook } from "./doordash-sandbox.ts";
import { startSandboxServer } from "./sandbox-server.ts";
import { createUberSandbox, type UberAccount, uberWebhook } from "./uber-sandbox.ts";
import { createWebhookSender, type WebhookSender } from "./webhook-sender.ts";

/** A provider of the sandbox, and how one reaches it. */
export type SandboxProvider<Settings> = {
  readonly settings: Omit<Settings, "timeoutMs">;
  readonly engine: DeliveryEngine;
  readonly webhooks: WebhookSender;
};

/** Both providers, played on this machine. */
export type Sandbox = AsyncDisposable & {
  readonly uber: SandboxProvider<UberSettings>;
  readonly doordash: SandboxProvider<DoorDashSettings>;
};

export type SandboxOptions = {
  /** Where webhooks go, such as http://127.0.0.1:8080, once that is known. */
  readonly webhooksTo?: () => string | undefined;
  /** How long a courier takes from one stage to the next; 0: they move only when they are told to. */
  readonly stageMs?: number;
  readonly tokenSeconds?: number;
};

const UBER_TERMS = { prefix: "del_", feeMinor: 599, minutes: 35 };
const DOORDASH_TERMS = { prefix: "dd_", feeMinor: 675, minutes: 25 };
const TOKEN_SECONDS = 2_592_000;

/** Starts both on free ports, with accounts made up for the occasion. */
export async function startSandbox({ webhooksTo, stageMs = 0, tokenSeconds = TOKEN_SECONDS }: SandboxOptions = {}): Promise<Sandbox> {
  await using parts = new AsyncDisposableStack();
  const secret = () => randomBytes(24).toString("base64");
  const uberAccount: UberAccount = {
    ...{ customerId: "sandbox-customer", clientId: "sandbox-client", clientSecret: secret(), webhookKey: secret(), tokenSeconds },
  };
  const doordashAccount: DoorDashAccount = {
    ...{ developerId: "sandbox-developer", keyId: "sandbox-key", signingSecret: secret(), webhookAuthorization: `Basic ${secret()}` },
  };
  const addressOf = (path: string) =>
    webhooksTo &&
    (() => {
      const base = webhooksTo();
      return base === undefined ? undefined : `${base}/webhooks/${path}`;
    });

  const uberHooks = createWebhookSender(addressOf("uber"));
  const uberEngine = createDeliveryEngine({ ...UBER_TERMS, stageMs, onNews: (news) => uberHooks.send(uberWebhook(uberAccount, news)) });
  const uber = await startSandboxServer(createUberSandbox(uberAccount, uberEngine), uberEngine, uberHooks);
  parts.defer(() => uber.stop());

  const doordashHooks = createWebhookSender(addressOf("doordash"));
  const doordashEngine = createDeliveryEngine({
    ...{ ...DOORDASH_TERMS, stageMs, onNews: (news) => doordashHooks.send(doordashWebhook(doordashAccount, news)) },
  });
  const doordash = await startSandboxServer(createDoorDashSandbox(doordashAccount, doordashEngine), doordashEngine, doordashHooks);
  parts.defer(() => doordash.stop());

  const running = parts.move();
  return {
    uber: {
      settings: {
        ...{ baseUrl: uber.url, authUrl: `${uber.url}/oauth/v2/token`, customerId: uberAccount.customerId, clientId: uberAccount.clientId },
        ...{ clientSecret: uberAccount.clientSecret, webhookKey: uberAccount.webhookKey },
      },
      engine: uberEngine,
      webhooks: uberHooks,
    },
    doordash: { settings: { baseUrl: doordash.url, ...doordashAccount }, engine: doordashEngine, webhooks: doordashHooks },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}
