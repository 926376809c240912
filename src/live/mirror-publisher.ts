import { createInbox, headers, type Msg, type NatsConnection } from "nats";
import { eventType, type RecordedEntry } from "../log/log-entry.ts";
import { eventSubject, type Prefix } from "./subjects.ts";

/** Where a message tells the types of its entry's events. */
export const TYPES_HEADER = "Ordertrail-Types";

/** How many messages are published that JetStream has not acknowledged yet. */
export const MAX_IN_FLIGHT = 512;
const MAX_BYTES_IN_FLIGHT = 8 * 1024 * 1024;
/** How long JetStream may say nothing while it has something to acknowledge. */
const SILENCE_MS = 2000;
const LOOK_MS = 250;
/** JetStream's code for a publish that expected another last sequence. */
const WRONG_LAST_SEQUENCE = 10071;

/** Another relay has published in between. */
export class OvertakenError extends Error {
  override readonly name = "OvertakenError";
}

/** Publishes entries, one after the other, without waiting for each to be acknowledged. */
export type MirrorPublisher = Disposable & {
  /** Whether another entry is to wait. To be asked before each: waiting in vain would send every message by itself. */
  isFull(): boolean;
  untilRoom(): Promise<void>;
  publish(entry: RecordedEntry): void;
  /** Rejects when an entry has not been taken; with an OvertakenError when another one stands in its place. */
  readonly failed: Promise<never>;
};

type Answer = { readonly seq?: number; readonly error?: { readonly err_code?: number; readonly description?: string } };

/**
 * A publisher over a connection. It hears all acknowledgments by one subscription: the library's own publish makes an error,
 * with its stack, for every message, in case that it is needed. `onMirrored` hears of the positions that are acknowledged.
 */
export function createMirrorPublisher(connection: NatsConnection, prefix: Prefix, onMirrored: (position: number) => void): MirrorPublisher {
  const inbox = createInbox();
  const { promise: failed, reject: fail } = Promise.withResolvers<never>();
  // Whoever is not waiting for it at the moment will ask later.
  failed.catch(() => undefined);
  const sizes = new Map<number, number>();
  let bytes = 0;
  let heardAt = performance.now();
  let room: (() => void) | undefined;

  const isFull = () => sizes.size >= MAX_IN_FLIGHT || bytes >= MAX_BYTES_IN_FLIGHT;

  function hear(message: Msg): void {
    heardAt = performance.now();
    const position = Number(message.subject.slice(inbox.length + 1));
    const problem = problemOf(message, position);
    if (problem) {
      fail(problem);
      return;
    }
    bytes -= sizes.get(position) ?? 0;
    sizes.delete(position);
    onMirrored(position);
    if (!isFull()) room?.();
  }

  const acknowledgments = connection.subscribe(`${inbox}.*`, {
    callback(error, message) {
      if (error) fail(error);
      else hear(message);
    },
  });
  const watch = setInterval(() => {
    if (sizes.size > 0 && performance.now() - heardAt > SILENCE_MS) fail(new Error("JetStream does not acknowledge"));
  }, LOOK_MS);

  return {
    failed,
    isFull,
    async untilRoom() {
      const { promise, resolve } = Promise.withResolvers<void>();
      room = resolve;
      await Promise.race([promise, failed]);
    },
    publish({ position, entry, body }) {
      const header = headers();
      header.set("Nats-Msg-Id", String(position));
      header.set("Nats-Expected-Last-Sequence", String(position - 1));
      header.set(TYPES_HEADER, entry.events.map(eventType).join(","));
      if (sizes.size === 0) heardAt = performance.now();
      sizes.set(position, body.length);
      bytes += body.length;
      connection.publish(eventSubject(prefix, entry.stream), body, { reply: `${inbox}.${position}`, headers: header });
    },
    [Symbol.dispose]() {
      clearInterval(watch);
      acknowledgments.unsubscribe();
    },
  };
}

/** Why an entry does not stand at its position; undefined when it does. */
function problemOf(message: Msg, position: number): Error | undefined {
  if (message.headers?.hasError) return new Error("JetStream has no stream that takes the log's entries");
  const { seq, error } = message.json<Answer>();
  if (error?.err_code === WRONG_LAST_SEQUENCE) return new OvertakenError(error.description);
  if (error) return new Error(`JetStream does not take an entry: ${error.description}`);
  return seq === position ? undefined : new OvertakenError(`the entry at ${position} is the stream's message ${seq}`);
}
