import { create } from "@bufbuild/protobuf";
import type { StoreState } from "../domain/store.ts";
import { type OrderDeadlines, OrderDeadlinesSchema } from "../gen/ordertrail/events/v1/order_events_pb.js";
import type { Transactor } from "../log/transact.ts";

/** How long orders may wait for what, where their store does not say. */
export type DefaultLimits = {
  readonly acknowledgmentSeconds: number;
  readonly substitutionsSeconds: number;
  readonly driverAssignmentSeconds: number;
  readonly pickupSeconds: number;
  readonly escalationSeconds: number;
  readonly cancelUnacknowledged: boolean;
};

/** Tells how long an order of a store may wait for what: as the store has it, and for the rest as the configuration has it. */
export function createOrderLimits(stores: Transactor<StoreState>, defaults: DefaultLimits): (storeId: string) => Promise<OrderDeadlines> {
  return async (storeId) => {
    const own = (await stores.read(storeId))?.state.profile?.deadlines;
    return create(OrderDeadlinesSchema, {
      acknowledgmentSeconds: own?.acknowledgmentSeconds ?? defaults.acknowledgmentSeconds,
      substitutionsSeconds: own?.substitutionsSeconds ?? defaults.substitutionsSeconds,
      driverAssignmentSeconds: own?.driverAssignmentSeconds ?? defaults.driverAssignmentSeconds,
      pickupSeconds: own?.pickupSeconds ?? defaults.pickupSeconds,
      escalationSeconds: own?.escalationSeconds ?? defaults.escalationSeconds,
      cancelUnacknowledged: own?.cancelUnacknowledged ?? defaults.cancelUnacknowledged,
    });
  };
}
