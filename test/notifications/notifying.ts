import { findFreePort } from "../../src/embedded/free-port.ts";
import { startNatsServer } from "../../src/embedded/nats-server.ts";
import { createOutbox, type Outbox } from "../../src/sandbox/outbox.ts";
import { startSendGridSandbox } from "../../src/sandbox/sendgrid-sandbox.ts";
import { startTwilioSandbox } from "../../src/sandbox/twilio-sandbox.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

/** The application with its notifier, and SendGrid and Twilio played, whose callbacks reach it. */
export type Notifying = AsyncDisposable & {
  readonly app: TestApp;
  readonly outbox: Outbox;
  /** Where each is told what is to go wrong, or what is to come in. */
  readonly email: string;
  readonly sms: string;
};

/** Starts it, by a clock of the test's own if one is given. */
export async function startNotifying(environment: NodeJS.ProcessEnv = {}, clock?: () => Date): Promise<Notifying> {
  await using parts = new AsyncDisposableStack();
  const folder = parts.use(await temporaryFolder());
  const nats = await startNatsServer({ dataDir: folder.path });
  parts.defer(() => nats.stop());
  const outbox = createOutbox();
  let http: string | undefined;
  const email = parts.use(await startSendGridSandbox({ outbox, webhooksTo: () => http }));
  const sms = parts.use(await startTwilioSandbox({ outbox, webhooksTo: () => http }));
  const port = await findFreePort();
  http = `http://127.0.0.1:${port}`;
  const app = parts.use(
    await startTestApp(
      {
        ...{ NATS_URL: nats.url, ROLES: "api,projector,relay,notifier,timers", HTTP_PORT: String(port), PUBLIC_URL: http },
        ...{ SENDGRID_BASE_URL: email.settings.baseUrl, SENDGRID_API_KEY: email.settings.apiKey, SENDGRID_FROM: email.settings.from },
        SENDGRID_WEBHOOK_PUBLIC_KEY: email.settings.webhookPublicKey,
        ...{ TWILIO_BASE_URL: sms.settings.baseUrl, TWILIO_ACCOUNT_SID: sms.settings.accountSid },
        ...{ TWILIO_AUTH_TOKEN: sms.settings.authToken, TWILIO_FROM: sms.settings.from, NOTIFY_GATHER_SECONDS: "0" },
        ...environment,
      },
      clock,
    ),
  );
  const running = parts.move();
  return {
    ...{ app, outbox, email: email.settings.baseUrl, sms: sms.settings.baseUrl },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** Tells a provider of the sandbox what is to happen. */
export async function control(baseUrl: string, what: string, body: object): Promise<void> {
  const response = await fetch(`${baseUrl}/__sandbox/${what}`, {
    ...{ method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } },
  });
  if (!response.ok) throw new Error(`the sandbox answered ${response.status}: ${await response.text()}`);
}
