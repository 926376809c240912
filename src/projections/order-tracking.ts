import { type Db, type Filter, type FindOptions, type IndexDescription, MongoServerError } from "mongodb";
import type { OrderState } from "../domain/order.ts";
import { orderStream } from "../domain/order.ts";
import type { DeliveryProvider, OrderStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import type { LogReader } from "../log/reader.ts";
import type { Snapshot } from "../log/transact.ts";
import { type DriverLocations, fromLocationDocument, type SealedPoint } from "./driver-locations.ts";
import { fromDocument, type OrderTrackingDocument, providerName, statusName, toDocument } from "./order-tracking-document.ts";
import { foldOrder, openOrderTracking } from "./order-tracking-writer.ts";
import type { Projection } from "./projection.ts";

/** The collection, and the projection's name. */
export const ORDER_TRACKING = "order_tracking";

/** To be raised when `toDocument` or the domain's `evolve` yield other documents than before for the same entries. */
const REVISION = 5;

/** The live collection is written with every batch, so that orders in memory only spare reads: some 1,500 of usual size. */
const LIVE_WEIGHT = 3_000_000;
/** A copy need not be written before the order leaves memory: best if all that are open at one time fit in, here some 5,000. */
const COPY_WEIGHT = 10_000_000;

const INDEXES: readonly IndexDescription[] = [
  { key: { store_id: 1 } },
  { key: { customer_id: 1 } },
  { key: { current_status: 1 } },
  { key: { delivery_provider: 1 } },
  { key: { created_at: 1 } },
  // Pages, newest first, of all orders and of those of a store, customer or driver.
  { key: { created_at: -1, order_id: 1 } },
  { key: { store_id: 1, created_at: -1, order_id: 1 } },
  { key: { customer_id: 1, created_at: -1, order_id: 1 } },
  { key: { "driver_details.driver_id": 1, created_at: -1, order_id: 1 } },
  // Whose a provider's delivery is, and which couriers' jobs are to be looked after.
  { key: { "courier_job.delivery.provider_delivery_id": 1 }, sparse: true },
  {
    key: { "courier_job.state": 1, current_status: 1, updated_at: 1 },
    partialFilterExpression: { "courier_job.state": { $exists: true } },
  },
  { key: { "courier_job.unanswered.attempt": 1 }, sparse: true },
];

/** The projection `order_tracking`: every order as it stands, for lists. */
export function createOrderTrackingProjection(db: Db, reader: LogReader, locations: DriverLocations): Projection {
  const collection = (name: string) =>
    db.collection<OrderTrackingDocument>(name, { writeConcern: { w: "majority", journal: true }, readPreference: "primary" });
  return {
    name: ORDER_TRACKING,
    collection: ORDER_TRACKING,
    revision: REVISION,
    key: "order_id",
    keyIndex: { key: { order_id: 1 }, unique: true },
    indexes: INDEXES,
    foreignFields: ["driver_location"],
    open: (name, options) =>
      openOrderTracking({
        ...options,
        target: collection(name),
        reader,
        ...(name === ORDER_TRACKING
          ? { maxWeight: LIVE_WEIGHT, onDriverLeft: locations.removeOthers, onDriverComes: locations.showStored }
          : { maxWeight: COPY_WEIGHT }),
      }),
    carryOver: locations.copyInto,
    async documentAt(orderId, version) {
      const entries = (await reader.readStream(orderStream(orderId), 0)).filter(({ entry }) => entry.version <= version);
      const order = entries.reduce<Snapshot<OrderState> | undefined>(foldOrder, undefined);
      return order?.version === version ? toDocument(order) : undefined;
    },
  };
}

/** An order of a list, with where its driver was last seen while that is of interest. */
export type ListedOrder = Snapshot<OrderState> & { readonly location?: SealedPoint };

/** Which orders a list holds: those that match all that is set, in the scope and in the filters. */
export type OrderListing = {
  readonly scope: {
    readonly customerId?: string;
    readonly storeId?: string;
    readonly driverId?: string;
    readonly provider?: DeliveryProvider;
  };
  readonly filters: {
    readonly storeId?: string;
    readonly customerId?: string;
    readonly statuses?: readonly OrderStatus[];
    readonly deliveryProvider?: DeliveryProvider;
    /** Submitted at this time or later. */
    readonly createdFrom?: Date;
    /** Submitted before this time. */
    readonly createdBefore?: Date;
  };
  /** The last order of the page before. */
  readonly after?: { readonly createdAt: Date; readonly orderId: string };
  readonly limit: number;
};

/** Lists of orders. */
export type OrderTrackings = {
  /** Newest first; of those submitted at the same time, by order_id. Going on after the last one of a page skips none and repeats none. */
  list(listing: OrderListing): Promise<ListedOrder[]>;
};

/** What a query meets when the collection that it reads is swapped for a rebuilt one: QueryPlanKilled, CursorNotFound, CursorKilled. */
const SWAPPED_AWAY: ReadonlySet<unknown> = new Set([175, 43, 237]);
const FIELDS: FindOptions = { projection: { _id: 0 }, readPreference: "primary" };

/** Lists from `order_tracking` in `db`. */
export function createOrderTrackings(db: Db): OrderTrackings {
  const orders = db.collection<OrderTrackingDocument>(ORDER_TRACKING);
  const find = (listing: OrderListing) =>
    orders.find(toFilter(listing), FIELDS).sort({ created_at: -1, order_id: 1 }).limit(listing.limit).toArray();
  return {
    async list(listing) {
      const documents = await find(listing).catch((error: unknown) => {
        if (error instanceof MongoServerError && SWAPPED_AWAY.has(error.code)) return find(listing);
        throw error;
      });
      return documents.map((document) => ({
        ...fromDocument(document),
        ...(document.driver_location && { location: fromLocationDocument(document.driver_location) }),
      }));
    },
  };
}

function toFilter({ scope, filters, after }: OrderListing): Filter<OrderTrackingDocument> {
  const all: Filter<OrderTrackingDocument>[] = [];
  if (scope.customerId !== undefined) all.push({ customer_id: scope.customerId });
  if (scope.storeId !== undefined) all.push({ store_id: scope.storeId });
  if (scope.driverId !== undefined) all.push({ "driver_details.driver_id": scope.driverId });
  if (scope.provider !== undefined) all.push({ delivery_provider: providerName(scope.provider) });
  if (filters.storeId !== undefined) all.push({ store_id: filters.storeId });
  if (filters.customerId !== undefined) all.push({ customer_id: filters.customerId });
  if (filters.statuses !== undefined) all.push({ current_status: { $in: filters.statuses.map(statusName) } });
  if (filters.deliveryProvider !== undefined) all.push({ delivery_provider: providerName(filters.deliveryProvider) });
  if (filters.createdFrom) all.push({ created_at: { $gte: filters.createdFrom } });
  if (filters.createdBefore) all.push({ created_at: { $lt: filters.createdBefore } });
  if (after) {
    const { createdAt, orderId } = after;
    // The first condition bounds the scan of the index, which the second alone does not.
    all.push({ created_at: { $lte: createdAt } }, { $or: [{ created_at: { $lt: createdAt } }, { order_id: { $gt: orderId } }] });
  }
  return all.length === 0 ? {} : { $and: all };
}
