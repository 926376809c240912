import { setTimeout as pause } from "node:timers/promises";
import { fromBinary } from "@bufbuild/protobuf";
import { AckPolicy, type Consumer, DeliverPolicy, type JsMsg, type NatsConnection, NatsError, nanos } from "nats";
import type { Logger } from "pino";
import { notificationStream } from "../domain/notifications.ts";
import { orderStream } from "../domain/order.ts";
import { LogEntrySchema } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { eventStreamName, eventSubject, type Prefix } from "../live/subjects.ts";
import type { RecordedEntry } from "../log/log-entry.ts";
import type { NatsClient } from "../nats/nats-client.ts";

/** Takes its share of what happens to orders and to messages about them, as the mirror of the log has it, from a durable consumer that all processes share. */
export type EventConsumer = {
  /** Throws, with the reason, when it has not been heard from for long. */
  check(): Promise<void>;
  /** How many entries nobody has taken yet, as far as is known. */
  pending(): number;
  stop(): Promise<void>;
};

export type EventConsumerOptions = {
  readonly nats: NatsClient;
  readonly prefix: Prefix;
  /** Where to begin when the consumer has to be made anew, as after JetStream's data was lost. */
  readonly checkpoint: { read(): Promise<number>; write(position: number): Promise<void> };
  /** When it resolves, the entry has been seen to. Those of one stream come one after the other. */
  readonly take: (recorded: RecordedEntry) => Promise<void>;
  readonly logger: Logger;
};

const NAME = "notifier";
const ACK_WAIT_MS = 30_000;
/** How many entries are with all processes together at a time. */
const MOST_UNDER_WAY = 2000;
const MOST_HERE = 256;
const RETRY_MS = 1000;
const LAST_REDELIVERY_MS = 60_000;
const CHECKPOINT_MS = 5000;
const SILENT_MS = 30_000;
const CONSUMER_NOT_FOUND = 10014;

export function startEventConsumer({ nats, prefix, checkpoint, take, logger }: EventConsumerOptions): EventConsumer {
  const stopping = new AbortController();
  const { signal } = stopping;
  /** The end of the last entry of each stream that is being seen to here. */
  const busy = new Map<string, Promise<void>>();
  let heardAt = performance.now();
  let pending = 0;
  let lastError: unknown;

  async function ensure(connection: NatsConnection): Promise<Consumer> {
    const manager = await connection.jetstreamManager();
    const stream = eventStreamName(prefix);
    try {
      await manager.consumers.info(stream, NAME);
    } catch (error) {
      if (!(error instanceof NatsError && error.api_error?.err_code === CONSUMER_NOT_FOUND)) throw error;
      await manager.consumers.add(stream, {
        durable_name: NAME,
        description: "What happens to orders, for those who notify. Made again from its checkpoint in the database when lost.",
        filter_subjects: [orderStream(""), notificationStream("")].map((streams) => `${eventSubject(prefix, streams)}>`),
        ack_policy: AckPolicy.Explicit,
        ack_wait: nanos(ACK_WAIT_MS),
        max_ack_pending: MOST_UNDER_WAY,
        deliver_policy: DeliverPolicy.StartSequence,
        opt_start_seq: (await checkpoint.read()) + 1,
      });
    }
    return await connection.jetstream().consumers.get(stream, NAME);
  }

  async function see(message: JsMsg, recorded: RecordedEntry): Promise<void> {
    const working = setInterval(() => message.working(), ACK_WAIT_MS / 3);
    try {
      await take(recorded);
      message.ack();
    } catch (error) {
      const again = Math.min(LAST_REDELIVERY_MS, RETRY_MS * 2 ** Math.min(10, message.info.redeliveryCount));
      message.nak(again);
      if (!signal.aborted)
        logger.warn(
          { err: error, position: recorded.position, retry_ms: again },
          "an event cannot be looked at for messages; trying again",
        );
    } finally {
      clearInterval(working);
    }
  }

  /** Entries of one stream one after the other, those of others beside them. */
  function queue(message: JsMsg): Promise<void> {
    const recorded = { position: message.seq, entry: fromBinary(LogEntrySchema, message.data), body: message.data };
    const { stream } = recorded.entry;
    const mine = (busy.get(stream) ?? Promise.resolve()).then(() => see(message, recorded));
    busy.set(stream, mine);
    void mine.then(() => {
      if (busy.get(stream) === mine) busy.delete(stream);
    });
    return mine;
  }

  async function consume(consumer: Consumer): Promise<void> {
    const messages = await consumer.consume({ max_messages: MOST_HERE });
    const stop = () => messages.stop();
    signal.addEventListener("abort", stop, { once: true });
    void (async () => {
      for await (const status of await messages.status()) {
        // Without heartbeats for a while, or without its consumer: it is looked for anew.
        if (["heartbeats_missed", "consumer_deleted", "stream_not_found", "consumer_not_found"].includes(String(status.type)))
          messages.stop();
        else heardAt = performance.now();
      }
    })();
    try {
      for await (const message of messages) {
        heardAt = performance.now();
        pending = message.info.pending;
        void queue(message);
      }
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  async function run(): Promise<void> {
    while (!signal.aborted) {
      try {
        const connection = nats.connected();
        if (!connection) throw new Error("there is no connection to NATS");
        const consumer = await ensure(connection);
        lastError = undefined;
        heardAt = performance.now();
        await consume(consumer);
      } catch (error) {
        if (signal.aborted) break;
        if (lastError === undefined) logger.info({ err: error }, "events cannot be had from NATS at present; trying again");
        lastError = error;
      }
      await pause(RETRY_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Up to where all has been seen to, by whichever process. */
  async function keepCheckpoint(): Promise<void> {
    let kept = 0;
    while (!signal.aborted) {
      await pause(CHECKPOINT_MS, undefined, { signal }).catch(() => undefined);
      try {
        const manager = await nats.connected()?.jetstreamManager();
        const info = await manager?.consumers.info(eventStreamName(prefix), NAME);
        if (!info) continue;
        heardAt = performance.now();
        pending = info.num_pending + info.num_ack_pending;
        const floor = info.ack_floor.stream_seq;
        if (floor > kept) await checkpoint.write(floor);
        kept = floor;
      } catch {
        // Told of by the loop that takes entries, or by the next try.
      }
    }
  }

  const running = Promise.all([run(), keepCheckpoint()]);
  return {
    async check() {
      if (lastError !== undefined) throw new Error("events cannot be had from NATS", { cause: lastError });
      const silentMs = performance.now() - heardAt;
      if (silentMs > SILENT_MS) throw new Error(`nothing has been heard of events for ${Math.round(silentMs / 1000)} seconds`);
    },
    pending: () => pending,
    async stop() {
      stopping.abort();
      await running;
      await Promise.all(busy.values());
    },
  };
}
