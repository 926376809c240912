import { createOutbox } from "../../src/sandbox/outbox.ts";
import { startSendGridSandbox } from "../../src/sandbox/sendgrid-sandbox.ts";
import { startTwilioSandbox } from "../../src/sandbox/twilio-sandbox.ts";
import { serveParent } from "../child.ts";

/** How the providers that are played are reached. */
export type PlayedMessages = { readonly environment: Record<string, string>; readonly baseUrl: string; readonly apiKey: string };

/** A message that one of them has taken. */
export type Taken = { readonly channel: string; readonly reference: string; readonly atMs: number };

export type SandboxTask = "settings" | "taken" | "clear" | { readonly hangSms: number };

const MOST = 100_000;

/** Plays SendGrid and Twilio, in a process of their own. */
await serveParent<null, SandboxTask, PlayedMessages | readonly Taken[]>(async () => {
  const outbox = createOutbox(MOST);
  const email = await startSendGridSandbox({ outbox });
  const sms = await startTwilioSandbox({ outbox });
  const environment = {
    ...{ SENDGRID_BASE_URL: email.settings.baseUrl, SENDGRID_API_KEY: email.settings.apiKey, SENDGRID_FROM: email.settings.from },
    ...{ TWILIO_BASE_URL: sms.settings.baseUrl, TWILIO_ACCOUNT_SID: sms.settings.accountSid, TWILIO_AUTH_TOKEN: sms.settings.authToken },
    TWILIO_FROM: sms.settings.from,
  };
  return {
    async answer(task) {
      if (typeof task === "object") {
        const fault = { operation: "any", fault: "timeout", times: task.hangSms };
        await fetch(`${sms.settings.baseUrl}/__sandbox/faults`, {
          ...{ method: "POST", body: JSON.stringify(fault), headers: { "content-type": "application/json" } },
        });
      } else if (task === "clear") {
        outbox.clear();
        await fetch(`${sms.settings.baseUrl}/__sandbox/faults`, { method: "DELETE" });
      } else if (task === "settings") return { environment, baseUrl: email.settings.baseUrl, apiKey: email.settings.apiKey };
      return outbox.all().map(({ channel, reference = "", at }) => ({ channel, reference, atMs: at.getTime() }));
    },
    async close() {
      await email[Symbol.asyncDispose]();
      await sms[Symbol.asyncDispose]();
    },
  };
});
