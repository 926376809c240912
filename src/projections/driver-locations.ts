import { type AnyBulkWriteOperation, type Collection, type Db, type Filter, MongoBulkWriteError, type WriteError } from "mongodb";
import type { DriverPoint } from "../domain/driver-point.ts";
import { STATUSES_WITH_LOCATION } from "../domain/order-location.ts";
import type { Sealed } from "../gen/ordertrail/events/v1/values_pb.js";
import { batched } from "../log/batched.ts";
import {
  fromSealedDocument,
  type LocationDocument,
  type OrderTrackingDocument,
  statusName,
  toSealedDocument,
} from "./order-tracking-document.ts";

/** Where the driver of an order was last seen, the place sealed, and when they are expected at the customer's, as of then. */
export type SealedPoint = Omit<DriverPoint, "latitude" | "longitude" | "isTimeOfReport"> & {
  readonly place: Sealed;
  readonly eta?: Date | undefined;
};

/** A point, and whose it is: an order's driver may be another in the meantime. */
export type OwnedPoint = SealedPoint & { readonly driverId: string };

/** Where the drivers of the orders now under way were last seen. Not part of the log, and not made of it. */
export type DriverLocations = {
  /** Makes the collection ready. */
  ensureIndexes(): Promise<void>;
  /** Keeps, of each order, the point that is the newest by the device's time, or of another driver than the one before. Shows it in `order_tracking`, too, once the order is there. */
  record(points: ReadonlyMap<string, OwnedPoint>): Promise<void>;
  /** The newest point of an order. */
  find(orderId: string): Promise<OwnedPoint | undefined>;
  /** Forgets the points of orders, other than those of the driver whom an order has now, if it has one. */
  removeOthers(orders: readonly { readonly orderId: string; readonly driverId: string | undefined }[]): Promise<void>;
  /** Shows the points of these orders in `order_tracking`, as far as there are any. */
  showStored(orderIds: readonly string[]): Promise<void>;
  /** Brings every point into a copy of `order_tracking`. */
  copyInto(collection: string): Promise<void>;
};

type Located = { readonly orderId: string; readonly driverId: string; readonly location: LocationDocument };

type DriverLocationDocument = LocationDocument & {
  readonly _id: string;
  readonly driver_id: string;
  /** When it reached the database. */
  readonly stored_at: Date;
};

const NAMES_WITH_LOCATION = [...STATUSES_WITH_LOCATION].map(statusName);
const DUPLICATE_KEY = 11000;
const COPY_BATCH = 1000;
/** A point that comes while its order ends may be stored after the order's points were removed; it goes by itself. */
const KEPT_AT_MOST_SECONDS = 24 * 3600;

/** The driver locations in `db`; `trackings` is the collection that shows them. */
export function createDriverLocations(db: Db, trackings: string): DriverLocations {
  const points: Collection<DriverLocationDocument> = db.collection("driver_locations");

  /** Reads at the same time share a round trip. */
  const find = batched<string, OwnedPoint | undefined>(async (orderIds) => {
    const found = await points.find({ _id: { $in: [...orderIds] } }).toArray();
    const byOrder = new Map(found.map((document) => [document._id, { ...fromLocationDocument(document), driverId: document.driver_id }]));
    return orderIds.map((orderId) => byOrder.get(orderId));
  });

  async function keepNewest(locations: readonly Located[], upsert: boolean): Promise<void> {
    const updates = locations.map(({ orderId, driverId, location }): AnyBulkWriteOperation<DriverLocationDocument> => {
      const isNews = [{ recorded_at: { $lt: location.recorded_at } }, { driver_id: { $ne: driverId } }];
      const filter: Filter<DriverLocationDocument> = { _id: orderId, $or: isNews };
      const update = { $set: { ...location, driver_id: driverId }, $currentDate: { stored_at: true } } as const;
      return { updateOne: { filter, update, upsert } };
    });
    try {
      await points.bulkWrite(updates, { ordered: false });
    } catch (error) {
      if (!(error instanceof MongoBulkWriteError) || error.result.getWriteConcernError()) throw error;
      const failures: readonly WriteError[] = [error.writeErrors].flat();
      if (!upsert || failures.some(({ code }) => code !== DUPLICATE_KEY)) throw error;
      // There is one already: a newer one, or one that was first stored at this same moment.
      await keepNewest(
        failures.flatMap(({ index }) => (locations[index] ? [locations[index]] : [])),
        false,
      );
    }
  }

  const show = ({ orderId, driverId, location }: Located) => ({
    filter: {
      order_id: orderId,
      "driver_details.driver_id": driverId,
      current_status: { $in: NAMES_WITH_LOCATION },
      $or: [{ driver_location: null }, { "driver_location.recorded_at": { $lt: location.recorded_at } }],
    },
    update: { $set: { driver_location: location } },
  });

  async function showIn(collection: string, which: Filter<DriverLocationDocument>): Promise<void> {
    const target = db.collection<OrderTrackingDocument>(collection);
    const cursor = points.find(which, { batchSize: COPY_BATCH });
    while (await cursor.hasNext()) {
      const updates = cursor
        .readBufferedDocuments(COPY_BATCH)
        .map(({ _id, stored_at: _, driver_id, ...location }) => ({ updateOne: show({ orderId: _id, driverId: driver_id, location }) }));
      await target.bulkWrite(updates, { ordered: false });
    }
  }

  return {
    async ensureIndexes() {
      // Points of before places were sealed and drivers named.
      await points.deleteMany({ driver_id: { $exists: false } });
      await points.createIndex({ stored_at: 1 }, { expireAfterSeconds: KEPT_AT_MOST_SECONDS });
    },
    async record(newest) {
      if (newest.size === 0) return;
      const locations = [...newest].map(([orderId, point]): Located => {
        return { orderId, driverId: point.driverId, location: toLocationDocument(point) };
      });
      await keepNewest(locations, true);
      const shown = locations.map((located) => ({ updateOne: show(located) }));
      await db.collection<OrderTrackingDocument>(trackings).bulkWrite(shown, { ordered: false });
    },
    find,
    async removeOthers(orders) {
      if (orders.length === 0) return;
      const filters = orders.map(({ orderId, driverId }) => ({
        _id: orderId,
        ...(driverId !== undefined && { driver_id: { $ne: driverId } }),
      }));
      await points.deleteMany({ $or: filters });
    },
    showStored: (orderIds) => showIn(trackings, { _id: { $in: [...orderIds] } }),
    copyInto: (collection) => showIn(collection, {}),
  };
}

function toLocationDocument(point: SealedPoint): LocationDocument {
  return {
    place: toSealedDocument(point.place),
    heading_deg: point.headingDeg ?? null,
    speed_mps: point.speedMps ?? null,
    accuracy_m: point.accuracyM ?? null,
    recorded_at: point.recordedAt,
    eta: point.eta ?? null,
  };
}

/** The point of a document. */
export function fromLocationDocument(location: LocationDocument): SealedPoint {
  return {
    place: fromSealedDocument(location.place),
    headingDeg: location.heading_deg ?? undefined,
    speedMps: location.speed_mps ?? undefined,
    accuracyM: location.accuracy_m ?? undefined,
    recordedAt: location.recorded_at,
    eta: location.eta ?? undefined,
  };
}
