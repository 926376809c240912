import { type Collection, type Db, type Filter, MongoServerError, type UpdateFilter } from "mongodb";
import { OrderStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import { batched } from "../log/batched.ts";
import { type LocationDocument, type OrderTrackingDocument, statusName } from "./order-tracking-document.ts";

/** Where a driver was, as their device measured it. */
export type DriverPoint = {
  readonly latitude: number;
  readonly longitude: number;
  readonly headingDeg?: number | undefined;
  readonly speedMps?: number | undefined;
  readonly accuracyM?: number | undefined;
  readonly recordedAt: Date;
};

/** Where the drivers of the orders now under way were last seen. Not part of the log, and not made of it. */
export type DriverLocations = {
  /** Creates the collection's index. */
  ensureIndexes(): Promise<void>;
  /** Keeps a point if it is newer than the one known, by the device's time; answers whether it was. Shows it in `order_tracking`, too, once the order is there. */
  record(orderId: string, point: DriverPoint): Promise<boolean>;
  /** The newest point of an order. */
  find(orderId: string): Promise<DriverPoint | undefined>;
  /** Forgets the points of orders that have no driver any more. */
  remove(orderIds: readonly string[]): Promise<void>;
  /** Brings every point into a copy of `order_tracking`. */
  copyInto(collection: string): Promise<void>;
};

type DriverLocationDocument = LocationDocument & {
  readonly _id: string;
  /** When it reached the database. */
  readonly stored_at: Date;
};

/** In which statuses the driver of an order has a place worth showing. */
export const STATUSES_WITH_LOCATION: ReadonlySet<OrderStatus> = new Set([
  OrderStatus.DRIVER_ASSIGNED,
  OrderStatus.DRIVER_PICKUP_COMPLETE,
  OrderStatus.IN_TRANSIT,
  OrderStatus.RETURNING,
]);

const NAMES_WITH_LOCATION = [...STATUSES_WITH_LOCATION].map(statusName);
const DUPLICATE_KEY = 11000;
const COPY_BATCH = 1000;
/** A point that comes while its order ends may be stored after the order's points were removed; it goes by itself. */
const KEPT_AT_MOST_SECONDS = 24 * 3600;

/** The driver locations in `db`; `trackings` is the collection that shows them. */
export function createDriverLocations(db: Db, trackings: string): DriverLocations {
  const points: Collection<DriverLocationDocument> = db.collection("driver_locations");

  /** Reads at the same time share a round trip. */
  const find = batched<string, DriverPoint | undefined>(async (orderIds) => {
    const found = await points.find({ _id: { $in: [...orderIds] } }).toArray();
    const byOrder = new Map(found.map((document) => [document._id, fromLocationDocument(document)]));
    return orderIds.map((orderId) => byOrder.get(orderId));
  });

  async function keepNewest(orderId: string, location: LocationDocument): Promise<boolean> {
    const older: Filter<DriverLocationDocument> = { _id: orderId, recorded_at: { $lt: location.recorded_at } };
    const update: UpdateFilter<DriverLocationDocument> = { $set: location, $currentDate: { stored_at: true } };
    try {
      await points.updateOne(older, update, { upsert: true });
      return true;
    } catch (error) {
      if (!(error instanceof MongoServerError && error.code === DUPLICATE_KEY)) throw error;
      // There is one already: a newer one, or one that was first stored at this same moment.
      const { matchedCount } = await points.updateOne(older, update);
      return matchedCount === 1;
    }
  }

  const show = (orderId: string, location: LocationDocument) => ({
    filter: {
      order_id: orderId,
      current_status: { $in: NAMES_WITH_LOCATION },
      $or: [{ driver_location: null }, { "driver_location.recorded_at": { $lt: location.recorded_at } }],
    },
    update: { $set: { driver_location: location } },
  });

  return {
    async ensureIndexes() {
      await points.createIndex({ stored_at: 1 }, { expireAfterSeconds: KEPT_AT_MOST_SECONDS });
    },
    async record(orderId, point) {
      const location = toLocationDocument(point);
      if (!(await keepNewest(orderId, location))) return false;
      const { filter, update } = show(orderId, location);
      await db.collection<OrderTrackingDocument>(trackings).updateOne(filter, update);
      return true;
    },
    find,
    async remove(orderIds) {
      if (orderIds.length > 0) await points.deleteMany({ _id: { $in: [...orderIds] } });
    },
    async copyInto(collection) {
      const target = db.collection<OrderTrackingDocument>(collection);
      const cursor = points.find({}, { batchSize: COPY_BATCH });
      while (await cursor.hasNext()) {
        const updates = cursor
          .readBufferedDocuments(COPY_BATCH)
          .map(({ _id, stored_at: _, ...location }) => ({ updateOne: show(_id, location) }));
        await target.bulkWrite(updates, { ordered: false });
      }
    },
  };
}

function toLocationDocument(point: DriverPoint): LocationDocument {
  return {
    latitude: point.latitude,
    longitude: point.longitude,
    heading_deg: point.headingDeg ?? null,
    speed_mps: point.speedMps ?? null,
    accuracy_m: point.accuracyM ?? null,
    recorded_at: point.recordedAt,
  };
}

/** The point of a document. */
export function fromLocationDocument(location: LocationDocument): DriverPoint {
  return {
    latitude: location.latitude,
    longitude: location.longitude,
    headingDeg: location.heading_deg ?? undefined,
    speedMps: location.speed_mps ?? undefined,
    accuracyM: location.accuracy_m ?? undefined,
    recordedAt: location.recorded_at,
  };
}
