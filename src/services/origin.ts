import { create } from "@bufbuild/protobuf";
import { isPersonal } from "../domain/caller.ts";
import { parsePeer } from "../domain/peer.ts";
import { type Origin, OriginSchema } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import type { Call } from "./call.ts";
import { sealedContext } from "./present-order.ts";

/**
 * From where a call comes, as the log records it: a customer's or driver's address is sealed under their own key, and is
 * gone with it; that of an organisation stands in the clear.
 */
export async function recordedOrigin(
  { caller, peer }: Pick<Call, "caller" | "peer">,
  orderId: string,
  keys: PersonalKeys,
): Promise<Origin> {
  const { address, certificateName } = parsePeer(peer);
  if (!isPersonal(caller)) return create(OriginSchema, { address, certificateName });
  if (address === "") return create(OriginSchema);
  const person = `${caller.role === Role.CUSTOMER ? "customer" : "driver"}-${caller.subject}`;
  const sealedAddress = await keys.seal(person, Buffer.from(address), sealedContext.origin(orderId));
  return create(OriginSchema, { ...(sealedAddress && { sealedAddress }) });
}
