/** A message that a provider of the sandbox has taken. */
export type OutboxMessage = {
  readonly channel: "email" | "sms" | "whatsapp" | "push";
  readonly id: string;
  readonly to: string;
  readonly text: string;
  readonly subject?: string;
  readonly html?: string;
  readonly reference?: string;
  readonly data?: Readonly<Record<string, string>>;
  readonly at: Date;
};

/** What the sandbox's providers have taken, in order. */
export type Outbox = { add(message: OutboxMessage): void; all(): readonly OutboxMessage[]; clear(): void };

const MOST = 1000;

/** An outbox of so many messages; the oldest make room. */
export function createOutbox(most = MOST): Outbox {
  let messages: OutboxMessage[] = [];
  return {
    add(message) {
      messages.push(message);
      if (messages.length > most) messages = messages.slice(-most);
    },
    all: () => [...messages],
    clear() {
      messages = [];
    },
  };
}
