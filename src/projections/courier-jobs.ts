import { type Db, type Filter, MongoServerError } from "mongodb";
import { type DeliveryProvider, OrderStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import { ORDER_TRACKING } from "./order-tracking.ts";
import { type OrderTrackingDocument, providerName, statusName } from "./order-tracking-document.ts";

/** Couriers' jobs, found among the orders. What is found is where to look: how an order stands, the log says. */
export type CourierJobs = {
  /** Creates the index of the claims. */
  ensureIndexes(): Promise<void>;
  /** Whose a provider's delivery is. */
  orderOf(provider: DeliveryProvider, providerDeliveryId: string): Promise<string | undefined>;
  /**
   * Orders with something to settle: a request made by `requestedBy` and without an answer; one that was left unanswered, if anything has been
   * recorded of the order since `unansweredSince`; a courier who is not to come, because the order is over or somebody else brings it, likewise.
   */
  toSettle(
    times: { readonly requestedBy: Date; readonly unansweredSince: Date; readonly unwantedSince: Date },
    limit: number,
  ): Promise<string[]>;
  /** Orders on which a courier is at work and of which nothing has been heard since that time; the quietest first. */
  quietSince(time: Date, limit: number): Promise<string[]>;
  /** Takes an order's job for this process: true unless this or another process did so since that time. */
  claim(orderId: string, since: Date, now: Date): Promise<boolean>;
  /** Notes when something happened that a provider has told of a request; false when what it has told before happened later. */
  noteTold(orderId: string, attempt: number, at: Date): Promise<boolean>;
  /** Notes, durably, that a request is about to be called off with its provider. */
  noteCallOff(orderId: string, attempt: number, now: Date): Promise<void>;
  /** Whether that was noted: then the provider's own report of it is no reason to ask the next one. */
  isCallOffNoted(orderId: string, attempt: number): Promise<boolean>;
};

type ClaimDocument = { readonly _id: string; readonly at: Date; readonly stored_at: Date };

const UNDER_WAY = [
  OrderStatus.SUBMITTED,
  OrderStatus.STORE_NOTIFIED,
  OrderStatus.STORE_ACKNOWLEDGED,
  OrderStatus.PICKING_IN_PROGRESS,
  OrderStatus.SUBSTITUTIONS_NEEDED,
  OrderStatus.READY_FOR_PICKUP,
  OrderStatus.DRIVER_ASSIGNED,
  OrderStatus.DRIVER_PICKUP_COMPLETE,
  OrderStatus.IN_TRANSIT,
].map(statusName);
const ENDED = [OrderStatus.DELIVERED, OrderStatus.CANCELLED].map(statusName);
const CLAIMS_KEPT_SECONDS = 24 * 3600;
const DUPLICATE_KEY = 11000;

/** The couriers' jobs in `order_tracking` of `db`. */
export function createCourierJobs(db: Db): CourierJobs {
  const orders = () => db.collection<OrderTrackingDocument>(ORDER_TRACKING);
  const claims = db.collection<ClaimDocument>("courier_claims");

  async function find(filter: Filter<OrderTrackingDocument>, limit: number): Promise<string[]> {
    const found = await orders()
      .find(filter, { projection: { _id: 0, order_id: 1 }, readPreference: "primary" })
      .sort({ updated_at: 1 })
      .limit(limit)
      .toArray();
    return found.map(({ order_id }) => order_id);
  }

  const callOff = (orderId: string, attempt: number) => `${orderId}/${attempt}/call-off`;

  return {
    async ensureIndexes() {
      await claims.createIndex({ stored_at: 1 }, { expireAfterSeconds: CLAIMS_KEPT_SECONDS });
    },
    async orderOf(provider, providerDeliveryId) {
      const [orderId] = await find(
        { "courier_job.delivery.provider_delivery_id": providerDeliveryId, "courier_job.provider": providerName(provider) },
        1,
      );
      return orderId;
    },
    async toSettle({ requestedBy, unansweredSince, unwantedSince }, limit) {
      return await find(
        {
          $or: [
            { "courier_job.state": "REQUESTED", "courier_job.requested_at": { $lte: requestedBy } },
            { "courier_job.state": "ACCEPTED", current_status: { $in: ENDED }, updated_at: { $gte: unwantedSince } },
            { "courier_job.state": "ACCEPTED", "courier_job.overruled": true, updated_at: { $gte: unwantedSince } },
            { "courier_job.unanswered.attempt": { $gt: 0 }, updated_at: { $gte: unansweredSince } },
          ],
        },
        limit,
      );
    },
    async quietSince(time, limit) {
      return await find({ "courier_job.state": "ACCEPTED", current_status: { $in: UNDER_WAY }, updated_at: { $lt: time } }, limit);
    },
    async claim(orderId, since, now) {
      try {
        const { modifiedCount, upsertedCount } = await claims.updateOne(
          { _id: orderId, at: { $lte: since } },
          { $set: { at: now }, $currentDate: { stored_at: true } },
          { upsert: true },
        );
        return modifiedCount + upsertedCount === 1;
      } catch (error) {
        if (error instanceof MongoServerError && error.code === DUPLICATE_KEY) return false;
        throw error;
      }
    },
    async noteTold(orderId, attempt, at) {
      const update = { $max: { at }, $currentDate: { stored_at: true } } as const;
      const before = await claims.findOneAndUpdate({ _id: `${orderId}/${attempt}/told` }, update, { upsert: true });
      return before === null || before.at <= at;
    },
    async noteCallOff(orderId, attempt, now) {
      const update = { $set: { at: now }, $currentDate: { stored_at: true } } as const;
      await claims.updateOne({ _id: callOff(orderId, attempt) }, update, { upsert: true, writeConcern: { w: "majority", journal: true } });
    },
    async isCallOffNoted(orderId, attempt) {
      return (await claims.findOne({ _id: callOff(orderId, attempt) }, { readPreference: "primary" })) !== null;
    },
  };
}
