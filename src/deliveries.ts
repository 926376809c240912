import { randomUUID } from "node:crypto";
import type { Db } from "mongodb";
import type { Logger } from "pino";
import type { Courier } from "./couriers/courier.ts";
import type { OrderState } from "./domain/order.ts";
import type { StoreState } from "./domain/store.ts";
import type { WebhooksOptions } from "./doors/webhooks.ts";
import { DeliveryService } from "./gen/ordertrail/v1/delivery_service_pb.js";
import type { LogReader } from "./log/reader.ts";
import type { Transactor } from "./log/transact.ts";
import type { PersonalKeys } from "./privacy/personal-keys.ts";
import { createRepeater } from "./privacy/repeater.ts";
import { createCourierJobs } from "./projections/courier-jobs.ts";
import { type ServedService, served } from "./services/call.ts";
import { BY_ITSELF, createCourierDesk } from "./services/courier-desk.ts";
import { createCourierReports, type TakePoint } from "./services/courier-reports.ts";
import { createDeliveryRequests } from "./services/delivery-request.ts";
import { createDeliveryService } from "./services/delivery-service.ts";
import type { LocationIntake } from "./services/location-intake.ts";
import { createSeenReports } from "./services/seen-reports.ts";
import { createCourierFollowUp } from "./workers/courier-follow-up.ts";

/** All that has to do with delivery providers, built. */
export type Deliveries = AsyncDisposable & {
  readonly service: ServedService;
  readonly webhooks: WebhooksOptions;
  /** Begins to follow up what nobody else has finished, where there are providers. */
  followUp(): void;
};

/** How often one provider may be asked in a request: a second time without a quote that does not hold any more. */
const ANSWERS = 2;
const FOLLOW_UP_PAUSE_MS = 2000;

/** Builds the DeliveryService, the webhooks and the follow-up of these couriers, which may be none. */
export async function createDeliveries(parts: {
  readonly db: Db;
  readonly couriers: readonly Courier[];
  readonly orders: Transactor<OrderState>;
  readonly stores: Pick<Transactor<StoreState>, "read">;
  readonly reader: LogReader;
  readonly keys: PersonalKeys;
  readonly locations: Pick<LocationIntake, "find">;
  readonly takePoint: TakePoint;
  readonly now: () => Date;
  readonly logger: Logger;
  readonly deliveryAnswerMs: number;
  readonly deliveryGiveUpSeconds: number;
  readonly deliveryQuietSeconds: number;
}): Promise<Deliveries> {
  const { db, couriers, orders, stores, reader, keys, locations, takePoint, now, logger } = parts;
  const jobs = createCourierJobs(db);
  await jobs.ensureIndexes();
  const seen = createSeenReports(db);
  await seen.ensureIndexes();
  const requests = createDeliveryRequests(stores, keys);
  const reports = createCourierReports({ orders, jobs, keys, takePoint, now, logger });
  const { deliveryAnswerMs: patienceMs, deliveryGiveUpSeconds, deliveryQuietSeconds } = parts;
  const giveUpMs = deliveryGiveUpSeconds * 1000;
  const desk = createCourierDesk({ couriers, orders, requests, reports, jobs, now, logger, patienceMs, giveUpMs });
  const byItself = () => ({ ...BY_ITSELF, correlationId: randomUUID() });
  const round = createCourierFollowUp({
    ...{ jobs, now, logger, quietMs: deliveryQuietSeconds * 1000, graceMs: ANSWERS * patienceMs },
    lookAfter: (orderId, signal) => desk.lookAfter(orderId, byItself(), signal),
    refresh: (orderId, signal) => desk.refresh(orderId, byItself(), signal),
  });
  const following = createRepeater("following up couriers", round, FOLLOW_UP_PAUSE_MS, logger);
  return {
    service: served(DeliveryService, createDeliveryService({ orders, reader, desk, requests, locations, keys, now, patienceMs })),
    webhooks: { couriers: desk.couriers, take: desk.take, seen },
    followUp() {
      if (couriers.length > 0) following.start();
    },
    async [Symbol.asyncDispose]() {
      await following.stop();
      await desk.stop();
    },
  };
}
