/** What is to go wrong with webhooks: sent twice, after the next one, never, or signed by somebody else. */
export type WebhookFault = "duplicate" | "reorder" | "drop" | "forge";

/** A webhook, as a provider sends it. */
export type OutgoingWebhook = {
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly forged: Readonly<Record<string, string>>;
  /** Where it goes, if not to where the sender's go. */
  readonly url?: string;
};

type Posted = Omit<OutgoingWebhook, "forged">;

/** Sends webhooks one after the other, and those that are not taken again, as providers do. */
export type WebhookSender = {
  send(webhook: OutgoingWebhook): void;
  fail(fault: WebhookFault, times: number): void;
  /** Resolves when all has been sent, or given up. */
  settled(): Promise<void>;
  stop(): Promise<void>;
};

const RETRY_MS: readonly number[] = [200, 1000, 3000];
const ANSWER_MS = 10_000;

/** A sender to one address; to none when it is undefined. */
export function createWebhookSender(url: (() => string | undefined) | undefined): WebhookSender {
  const stopping = new AbortController();
  let faults: { readonly fault: WebhookFault; left: number }[] = [];
  let held: OutgoingWebhook | undefined;
  let last: Promise<void> = Promise.resolve();

  function take(): WebhookFault | undefined {
    const found = faults.find(({ left }) => left > 0);
    if (found) found.left--;
    faults = faults.filter(({ left }) => left > 0);
    return found?.fault;
  }

  async function post({ body, headers, url: own }: Posted): Promise<void> {
    for (const retryMs of [...RETRY_MS, undefined]) {
      const to = own ?? url?.();
      if (to === undefined || stopping.signal.aborted) return;
      try {
        const signal = AbortSignal.any([stopping.signal, AbortSignal.timeout(ANSWER_MS)]);
        const response = await fetch(to, { method: "POST", body, headers: { "content-type": "application/json", ...headers }, signal });
        await response.arrayBuffer();
        if (response.status < 500) return;
      } catch {
        // Whoever is not there is asked again, as by the real ones.
      }
      if (retryMs === undefined) return;
      await new Promise((resolve) => setTimeout(resolve, retryMs));
    }
  }

  function queue(webhook: Posted): void {
    last = last.then(() => post(webhook));
  }

  return {
    send(webhook) {
      const before = held;
      held = undefined;
      switch (take()) {
        case "drop":
          break;
        case "reorder":
          held = webhook;
          break;
        case "duplicate":
          queue(webhook);
          queue(webhook);
          break;
        case "forge":
          queue({ ...webhook, headers: webhook.forged });
          break;
        case undefined:
          queue(webhook);
      }
      if (before) queue(before);
    },
    fail(fault, times) {
      faults.push({ fault, left: times });
    },
    settled: () => last,
    async stop() {
      stopping.abort();
      await last;
    },
  };
}
