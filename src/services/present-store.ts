import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Caller } from "../domain/caller.ts";
import { Refusal } from "../domain/refusal.ts";
import type { StoreState } from "../domain/store.ts";
import {
  PostalAddressSchema,
  StoreDeadlinesSchema,
  type StoreProfile,
  StoreProfileSchema,
} from "../gen/ordertrail/events/v1/store_events_pb.js";
import { Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { PutStoreRequest } from "../gen/ordertrail/v1/operations_service_pb.js";
import { AddressSchema } from "../gen/ordertrail/v1/order_tracking_pb.js";
import { DeadlinesSchema, type Store, StoreSchema } from "../gen/ordertrail/v1/store_pb.js";
import type { Snapshot } from "../log/transact.ts";

/** Throws a Refusal PERMISSION_DENIED for a store that asks about another. */
export function checkStore(caller: Caller, storeId: string): void {
  if (caller.role !== Role.STORE || caller.storeId === storeId) return;
  throw new Refusal("PERMISSION_DENIED", "store_id: a store may only ask about itself", { field: "store_id" });
}

/** A store, as its event has it, of what a request says. */
export function profileOf(request: PutStoreRequest): StoreProfile {
  const { storeId, name, phone, email, address, timeZone, deadlines, webhookUrl, smsPhone, locale } = request;
  const { $typeName: _address, ...place } = address ?? { $typeName: undefined };
  const { $typeName: _deadlines, ...limits } = deadlines ?? { $typeName: undefined };
  return create(StoreProfileSchema, {
    ...{ storeId, name, phone, email, timeZone, webhookUrl, smsPhone, locale },
    ...(address && { address: create(PostalAddressSchema, place) }),
    ...(deadlines && { deadlines: create(StoreDeadlinesSchema, limits) }),
  });
}

/** A store as the API shows it, with what signs the calls to its own system if it has one. */
export function presentStore({ state, version, position }: Snapshot<StoreState>, webhookSecret: string): Store {
  const { storeId = "", name = "", phone = "", email = "", timeZone = "", address, deadlines } = state.profile ?? {};
  const { webhookUrl = "", smsPhone = "", locale = "" } = state.profile ?? {};
  const { $typeName: _address, ...place } = address ?? { $typeName: undefined };
  const { $typeName: _deadlines, ...limits } = deadlines ?? { $typeName: undefined };
  return create(StoreSchema, {
    ...{ storeId, name, phone, email, timeZone, version, webhookUrl, smsPhone, locale },
    webhookSecret,
    position: BigInt(position),
    updatedAt: timestampFromDate(state.updatedAt),
    ...(address && { address: create(AddressSchema, place) }),
    ...(deadlines && { deadlines: create(DeadlinesSchema, limits) }),
  });
}
