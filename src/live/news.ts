import type { AppendListener } from "../log/appender.ts";
import type { NatsClient } from "../nats/nats-client.ts";
import { newsSubject, type Prefix } from "./subjects.ts";

/** Hears how far the log reaches, from whichever process has appended. */
export type NewsListener = (position: number) => void;

/** What processes tell each other of the log: that there is more of it. What it is, they read from the log. */
export type News = {
  /** Calls back when another process says that it has appended; returns the function that ends it. */
  onNews(listener: NewsListener): () => void;
};

/**
 * Tells the other processes what this one appends, once a turn of the event loop, and hears what they do. A message that is
 * lost costs the time until the next look at the log; one that is not true costs a look in vain.
 */
export function createNews(nats: NatsClient, prefix: Prefix, onAppended: (listener: AppendListener) => () => void): News {
  const listeners = new Set<NewsListener>();
  const subject = newsSubject(prefix);
  let newest = 0;
  let telling = false;

  function tell(): void {
    telling = false;
    nats.connected()?.publish(subject, String(newest));
  }

  onAppended((entries) => {
    newest = entries.at(-1)?.position ?? newest;
    if (telling) return;
    telling = true;
    setImmediate(tell);
  });

  nats.onConnected((connection) => {
    connection.subscribe(subject, {
      callback(error, message) {
        const position = error ? Number.NaN : Number(message.string());
        if (!Number.isSafeInteger(position)) return;
        for (const listener of listeners) listener(position);
      },
    });
  });

  return {
    onNews(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
