import { clone, equals } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import { type Event, EventSchema } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { OrderDeadlinesSchema, ProposedSubstitutionSchema } from "../gen/ordertrail/events/v1/order_events_pb.js";
import { SealedSchema } from "../gen/ordertrail/events/v1/values_pb.js";

/** Sealed anew, data looks different on another day; times may be the clock's; a store's limits may have been set anew. */
const PASSED_OVER: readonly string[] = [SealedSchema.typeName, TimestampSchema.typeName, OrderDeadlinesSchema.typeName];

/**
 * Whether events decided twice are those of one command: the same but for what differs when a command is sent again.
 * Personal data, times, limits of times, and identifiers that are made up for proposals are not compared.
 */
export function areSameEvents(one: readonly Event[], other: readonly Event[]): boolean {
  return (
    one.length === other.length && one.every((event, index) => equals(EventSchema, essenceOf(event), essenceOf(other[index] as Event)))
  );
}

function essenceOf(event: Event): Event {
  const essence = clone(EventSchema, event);
  strip(reflect(EventSchema, essence));
  return essence;
}

function strip(message: ReflectMessage): void {
  for (const field of message.fields) {
    if (!message.isSet(field)) continue;
    if (field.fieldKind === "message") {
      if (PASSED_OVER.includes(field.message.typeName)) message.clear(field);
      else if (!field.message.typeName.startsWith("google.protobuf.")) strip(message.get(field));
    } else if (field.fieldKind === "list" && field.listKind === "message") {
      for (const element of message.get(field)) strip(element as ReflectMessage);
    } else if (field === ProposedSubstitutionSchema.field.substitutionId) message.clear(field);
  }
}
