import client from "@sendgrid/client";
import mail from "@sendgrid/mail";
import { renderEmail } from "../../src/templates/render.ts";
import { sampleVariables } from "../../src/templates/sample-variables.ts";
import { serveParent } from "../child.ts";
import type { PlayedMessages } from "./message-sandbox.ts";

export type PostMails = { readonly messages: number; readonly inFlight: number };

/** Posts the same email again and again, by SendGrid's library, and answers how many a second were accepted. */
await serveParent<PlayedMessages, PostMails, { perSecond: number }>(async ({ baseUrl, apiKey, environment }) => {
  client.setApiKey(apiKey);
  // After the key, with which the library sets its own.
  client.setDefaultRequest("baseUrl", baseUrl);
  mail.setClient(client);
  const { subject, html, text } = renderEmail("order-received", "en", sampleVariables("order-received", "en"));
  const message = { to: "ada@example.com", from: environment["SENDGRID_FROM"] ?? "", subject, html, text };
  return {
    async answer({ messages, inFlight }) {
      let left = messages;
      const lane = async () => {
        while (left-- > 0) await mail.send(message);
      };
      const started = performance.now();
      await Promise.all(Array.from({ length: inFlight }, lane));
      return { perSecond: (messages / (performance.now() - started)) * 1000 };
    },
    close: async () => undefined,
  };
});
