import { type JetStreamManager, NatsError, nanos, RetentionPolicy, StorageType, type StoredMsg, type StreamInfo } from "nats";
import { allEvents, eventStreamName, type Prefix } from "./subjects.ts";

/** How the mirror of the log is kept. */
export type EventStreamSettings = {
  readonly prefix: Prefix;
  /** For how long; 0: for ever. */
  readonly maxAgeSeconds: number;
  /** How many bytes at most, the oldest going first; 0: any number. */
  readonly maxBytes: number;
  /** On how many servers of a NATS cluster. */
  readonly replicas: number;
};

/** JetStream's code for a stream that does not exist, and for a message that does not. */
const STREAM_NOT_FOUND = 10059;
const MESSAGE_NOT_FOUND = 10037;

/** Makes the stream that mirrors the log, or has it kept as the settings say, and answers how it stands. */
export async function ensureEventStream(manager: JetStreamManager, settings: EventStreamSettings): Promise<StreamInfo> {
  const name = eventStreamName(settings.prefix);
  const wanted = {
    subjects: [allEvents(settings.prefix)],
    max_age: nanos(settings.maxAgeSeconds * 1000),
    max_bytes: settings.maxBytes === 0 ? -1 : settings.maxBytes,
    num_replicas: settings.replicas,
    description: "Mirror of Ordertrail's log: the sequence of a message is the position of its entry. Made again from the log when lost.",
  };
  const found = await findEventStream(manager, settings.prefix);
  if (!found) return await manager.streams.add({ name, ...wanted, retention: RetentionPolicy.Limits, storage: StorageType.File });
  const { config } = found;
  const differs = (Object.keys(wanted) as (keyof typeof wanted)[]).some((key) => String(config[key]) !== String(wanted[key]));
  return differs ? await manager.streams.update(name, wanted) : found;
}

/** How the stream stands; undefined when there is none. */
export async function findEventStream(manager: JetStreamManager, prefix: Prefix): Promise<StreamInfo | undefined> {
  return await unlessMissing(() => manager.streams.info(eventStreamName(prefix)), STREAM_NOT_FOUND);
}

/** A message of the stream; undefined when it is kept no longer. */
export async function findMessage(manager: JetStreamManager, prefix: Prefix, sequence: number): Promise<StoredMsg | undefined> {
  return await unlessMissing(() => manager.streams.getMessage(eventStreamName(prefix), { seq: sequence }), MESSAGE_NOT_FOUND);
}

async function unlessMissing<Found>(ask: () => Promise<Found>, code: number): Promise<Found | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof NatsError && error.api_error?.err_code === code) return undefined;
    throw error;
  }
}
