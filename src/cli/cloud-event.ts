import { type JsonValue, toJson } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { roleName } from "../access/claims.ts";
import { EventSchema, type LogEntry } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { Door } from "../gen/ordertrail/events/v1/values_pb.js";
import { eventType } from "../log/log-entry.ts";

/** An event in the JSON format of CloudEvents 1.0. */
export type CloudEvent = { readonly [attribute: string]: JsonValue };

/** The events of an entry as CloudEvents; `source` names the log. What is sealed stays sealed. */
export function cloudEventsOf(position: bigint, entry: LogEntry, source: string): CloudEvent[] {
  const { stream, version, recordedAt, actor, door, method, requestId, correlationId, causationId, origin } = entry;
  const told = {
    streamversion: version,
    actorrole: actor && roleName(actor.role),
    actorsubject: actor?.subject,
    door: Door[door]?.toLowerCase(),
    method,
    address: origin?.address,
    requestid: requestId,
    correlationid: correlationId,
    causationid: causationId,
    entryid: Buffer.from(entry.entryId).toString("hex"),
  };
  // CloudEvents has no empty attributes.
  const extensions = Object.fromEntries(
    Object.entries(told).flatMap(([name, value]) => (value === undefined || value === "" ? [] : [[name, value]])),
  );
  return entry.events.map((event, index) => ({
    specversion: "1.0",
    id: `${position}.${index}`,
    source,
    type: `ordertrail.events.v1.${eventType(event)}`,
    subject: stream,
    ...(recordedAt && { time: timestampDate(recordedAt).toISOString() }),
    datacontenttype: "application/json",
    // CloudEvents' integers have 32 bits; as text of one length, positions sort as they come.
    sequence: String(position).padStart(19, "0"),
    ...extensions,
    data: toJson(EventSchema, event, { useProtoFieldName: true }),
  }));
}
