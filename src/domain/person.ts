import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { happened } from "./order-event.ts";

/** The stream of a person, named like "customer-1" or "driver-1". */
export const personStream = (person: string): string => person;

/** What the log says of a person. */
export type PersonState = { readonly erased: boolean };

/** Records that a person was erased, once: for one who was already, it yields no events. */
export function recordErasure(
  state: PersonState | undefined,
  erasure: { readonly person: string; readonly requestedAt: Date; readonly keysDestroyed: number },
): Event[] {
  if (state?.erased) return [];
  const { person, keysDestroyed } = erasure;
  const requestedAt = timestampFromDate(erasure.requestedAt);
  const customerId = idIn(person, "customer-");
  if (customerId !== undefined) return [happened({ case: "customerErased", value: { customerId, requestedAt, keysDestroyed } })];
  const driverId = idIn(person, "driver-");
  if (driverId !== undefined) return [happened({ case: "driverErased", value: { driverId, requestedAt, keysDestroyed } })];
  throw new Error(`${person} is no kind of person that is known`);
}

/** The person after an event. Events of other kinds change nothing. */
export function evolvePerson(state: PersonState | undefined, event: Event): PersonState {
  return isErasure(event) ? { erased: true } : (state ?? { erased: false });
}

/** Whether an event says that a person was erased. */
export function isErasure({ kind }: Event): boolean {
  return kind.case === "customerErased" || kind.case === "driverErased";
}

function idIn(person: string, prefix: string): string | undefined {
  return person.startsWith(prefix) ? person.slice(prefix.length) : undefined;
}
