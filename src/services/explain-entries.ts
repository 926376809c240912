import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { seesPersonalData } from "../access/permissions.ts";
import type { Caller } from "../domain/caller.ts";
import { type EventContext, evolve, type OrderState } from "../domain/order.ts";
import { OrderStatus, Role, type Sealed } from "../gen/ordertrail/events/v1/values_pb.js";
import type { ExplainedCommandSchema } from "../gen/ordertrail/v1/audit_service_pb.js";
import { eventType, type RecordedEntry } from "../log/log-entry.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import { sealedContext } from "./present-order.ts";

type Explained = Exclude<MessageInitShape<typeof ExplainedCommandSchema>, { readonly $typeName: string }> & { readonly version: number };

/** What evolve must know of the entry that an event is part of. */
export function contextOf({ entry: { actor, recordedAt } }: RecordedEntry): EventContext {
  return { actor: actor ?? { role: Role.UNSPECIFIED, subject: "" }, recordedAt: recordedAt ? timestampDate(recordedAt) : new Date(0) };
}

/**
 * All entries of an order, each as a command and what came of it. Remarks and addresses are opened for a caller who sees
 * the personal data of the person they are about, as the order stands now.
 */
export async function explainEntries(
  orderId: string,
  entries: readonly RecordedEntry[],
  caller: Caller,
  keys: PersonalKeys,
): Promise<Explained[]> {
  let state: OrderState | undefined;
  const steps = entries.map((recorded) => ({
    recorded,
    events: recorded.entry.events.map((event) => {
      const previousStatus = state?.status ?? OrderStatus.UNSPECIFIED;
      state = evolve(state, event, contextOf(recorded));
      return { event, previousStatus, status: state.status };
    }),
  }));
  const sees = state ? seesPersonalData(caller, state) : { recipient: false, driver: false };

  const wanted: { readonly sealed: Sealed; readonly context: string }[] = [];
  const indexOf = (may: boolean, sealed: Sealed | undefined, context: string) =>
    may && sealed ? wanted.push({ sealed, context }) - 1 : undefined;
  const sealedParts = steps.map(({ recorded: { entry }, events }) => ({
    address: indexOf(
      entry.actor?.role === Role.DRIVER ? sees.driver : sees.recipient,
      entry.origin?.sealedAddress,
      sealedContext.origin(orderId),
    ),
    notes: events.map(({ event }) => indexOf(sees.recipient, event.note, sealedContext.note(orderId))),
  }));
  const opened = wanted.length === 0 ? [] : await keys.openMany(wanted);
  const text = (index: number | undefined) => (index === undefined ? "" : Buffer.from(opened[index] ?? []).toString());

  return steps.map(({ recorded: { position, entry }, events }, step) => {
    const { version, recordedAt, actor, door, origin, method, requestId, correlationId, causationId } = entry;
    const address = origin?.address || text(sealedParts[step]?.address);
    return {
      position: BigInt(position),
      version,
      door,
      address,
      addressWithheld: origin?.sealedAddress !== undefined && address === "",
      certificateName: origin?.certificateName ?? "",
      method,
      requestId,
      correlationId,
      causationId,
      events: events.map(({ event, previousStatus, status }, index) => ({
        type: eventType(event),
        previousStatus,
        status,
        inferred: event.inferred,
        note: text(sealedParts[step]?.notes[index]),
      })),
      ...(recordedAt && { recordedAt }),
      ...(actor && { actor }),
    };
  });
}
