import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Binary, Long } from "mongodb";
import type { Event, LogEntry } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { EventSchema, LogEntrySchema } from "../gen/ordertrail/events/v1/log_entry_pb.js";

/** The collection that is the log. */
export const EVENTS_COLLECTION = "events";

/** Where a process writes after a batch whose outcome is unknown: see `whichStand`. */
export const WRITERS_COLLECTION = "writers";

/** No position is greater; a document of the collection whose `_id` is, is none of the log's. */
export const MAX_POSITION = Long.fromNumber(Number.MAX_SAFE_INTEGER);

/** The most bytes that the body of an entry may have; the audit format counts a body's length in 16 bits. */
export const MAX_BODY_BYTES = 60 * 1024;

/** An entry as it stands in the log. `body` is its encoding as it was written: pass it on, never encode `entry` again. */
export type RecordedEntry = {
  /** 1, 2, 3, … with no gap. */
  readonly position: number;
  readonly entry: LogEntry;
  readonly body: Uint8Array;
};

/** A document of the `events` collection, as it is written. */
export type StoredEvent = {
  /** The position, as a 64-bit integer. */
  readonly _id: Long;
  readonly stream: string;
  readonly version: number;
  readonly at: Date;
  readonly types: readonly string[];
  readonly body: Binary;
};

/** An entry made ready to append. */
export type EncodedEntry = {
  readonly entry: LogEntry;
  readonly stream: string;
  readonly version: number;
  readonly at: Date;
  readonly types: readonly string[];
  readonly body: Uint8Array;
};

const TYPE_BY_CASE = new Map(
  EventSchema.oneofs.flatMap((oneof) => oneof.fields.map((field) => [field.localName, field.message?.name ?? field.name])),
);

/** The type of an event: the name of its message, such as "StoreAcknowledged"; "Unknown" for one of a newer writer. */
export function eventType(event: Event): string {
  return (event.kind.case !== undefined && TYPE_BY_CASE.get(event.kind.case)) || "Unknown";
}

/** Every event type there is. */
export const EVENT_TYPES: readonly string[] = [...TYPE_BY_CASE.values()];

/** Encodes an entry for the log, and takes from it what people and indexes find it by. */
export function encodeEntry(entry: LogEntry, at: Date): EncodedEntry {
  return madeReady(entry, at, toBinary(LogEntrySchema, entry));
}

/** An entry that another process has encoded, made ready to append as it is. Throws when its body holds none. */
export function encodedFrom(body: Uint8Array): EncodedEntry {
  const entry = decodeBody(body);
  if (entry.version === 0 || entry.stream === "" || !entry.recordedAt) throw new Error("the bytes are no entry of the log");
  return madeReady(entry, timestampDate(entry.recordedAt), body);
}

function madeReady(entry: LogEntry, at: Date, body: Uint8Array): EncodedEntry {
  return { entry, stream: entry.stream, version: entry.version, at, types: entry.events.map(eventType), body };
}

/** The document that puts an entry at a position. */
export function toStored({ stream, version, at, types, body }: EncodedEntry, position: number): StoredEvent {
  return { _id: Long.fromNumber(position), stream, version, at, types, body: new Binary(body) };
}

/** Decodes the body of an entry. Throws when the bytes are not one. */
export function decodeBody(body: Uint8Array): LogEntry {
  return fromBinary(LogEntrySchema, body, { readUnknownFields: false });
}

/** A LogEntry made of what is given. */
export function createEntry(init: Parameters<typeof create<typeof LogEntrySchema>>[1]): LogEntry {
  return create(LogEntrySchema, init);
}
