import { create } from "@bufbuild/protobuf";
import { isErasure, type PersonState, recordErasure } from "../domain/person.ts";
import { Unavailable } from "../domain/refusal.ts";
import { OriginSchema } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import type { LogReader } from "../log/reader.ts";
import type { Transactor } from "../log/transact.ts";
import type { ErasureFacts } from "../privacy/erasures.ts";

/** Records erasures in the log, each person's in a stream of their own, and answers where it stands. Done again, it appends nothing. */
export function createErasureRecorder(people: Transactor<PersonState>, reader: LogReader): (facts: ErasureFacts) => Promise<number> {
  return async (facts) => {
    const { appended, position } = await people.transact(facts.person, {
      method: "ordertrail.v1.AuditService/EraseCustomer",
      requestId: facts.requestId,
      correlationId: facts.correlationId,
      actor: facts.requestedBy,
      door: facts.door,
      origin: create(OriginSchema, { address: facts.address, certificateName: facts.certificateName }),
      decide: (state) => recordErasure(state, facts),
    });
    if (appended) return position;
    const said = (await reader.readStream(facts.person, 0)).find(({ entry }) => entry.events.some(isErasure));
    // A new primary may not show for a moment what the old one acknowledged; a restored backup does not show it ever.
    if (!said)
      throw new Unavailable("the entry of an erasure cannot be read again: try again or, after a restore, start every process anew");
    return said.position;
  };
}
