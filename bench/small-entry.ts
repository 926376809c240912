import { randomBytes } from "node:crypto";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Door, Role, type Sealed } from "../src/gen/ordertrail/events/v1/values_pb.js";
import { createEntry, type EncodedEntry, encodeEntry } from "../src/log/log-entry.ts";

/** What everyone who appends one small event records: that a store was told of an order. */
export const SMALL_EVENT = {
  type: "StoreNotified",
  method: "ordertrail.v1.OrderTrackingService/UpdateStatus",
  actor: { role: "ROLE_STORE", subject: "store-0042" },
  door: "DOOR_GRPC",
} as const;

/** Identifiers that no other call gives, here or in another process; all of one length. */
export function createIdentifiers(): () => string {
  const prefix = randomBytes(6).toString("hex");
  let count = 0;
  return () => `${prefix}-${String(++count).padStart(9, "0")}`;
}

/** An encoded entry with one small event, with a note if one is given, the first of a stream of its own that is no order's. */
export function smallEntry(identifier: string, note?: Sealed): EncodedEntry {
  const at = new Date();
  const entry = createEntry({
    entryId: randomBytes(16),
    stream: `sample-${identifier}`,
    version: 1,
    recordedAt: timestampFromDate(at),
    actor: { role: Role.STORE, subject: SMALL_EVENT.actor.subject },
    door: Door.GRPC,
    method: SMALL_EVENT.method,
    requestId: `request-${identifier}`,
    correlationId: `trace-${identifier}`,
    events: [{ kind: { case: "storeNotified", value: {} }, ...(note && { note }) }],
  });
  return encodeEntry(entry, at);
}
