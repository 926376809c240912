import { randomUUID } from "node:crypto";
import { fromBinary } from "@bufbuild/protobuf";
import { LRUCache } from "lru-cache";
import type { Logger } from "pino";
import { type EstimateArrival, recentSpeed } from "../domain/arrival.ts";
import {
  type DriverPoint,
  distanceMeters,
  judgePoint,
  newTrail,
  type Place,
  type PointFault,
  type Trail,
  tellSpeed,
} from "../domain/driver-point.ts";
import { decide, type OrderState, orderStream } from "../domain/order.ts";
import { showsLocation, takesLocation } from "../domain/order-location.ts";
import { milestoneAt, nextStop, type Radii, type Stops } from "../domain/order-milestones.ts";
import type { StoreState } from "../domain/store.ts";
import { Door, DriverMilestone, Role } from "../gen/ordertrail/events/v1/values_pb.js";
import { RecipientSchema } from "../gen/ordertrail/v1/order_tracking_pb.js";
import type { PointFeed } from "../live/point-feed.ts";
import type { LogWatch, Watcher } from "../live/watch.ts";
import type { Snapshot, Transactor } from "../log/transact.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import { orderAfterNews } from "./order-after-news.ts";
import { sealedContext } from "./present-order.ts";
import type { LastPoint, SealedLocations } from "./sealed-locations.ts";

/** A point of an order's driver, as it came in. */
export type Reported = { readonly orderId: string; readonly point: DriverPoint };

/** Why a point is not taken: there is no such order that the sender may report on; it has no driver, or has ended; or the point is at fault. */
export type NotTaken = "UNKNOWN_ORDER" | "NO_DRIVER" | PointFault;

/** The one way in for the points of drivers, whoever reports them. */
export type LocationIntake = {
  /**
   * Judges points in their order, passes those that are taken on to who watches, and has them stored and their milestones recorded
   * by and by. Answers, for each, why it is not taken, if it is not. `mayReport` says whether an order is the sender's to report on.
   */
  take(reported: readonly Reported[], mayReport: (order: OrderState) => boolean): Promise<readonly (NotTaken | undefined)[]>;
  /** Takes in how an order stands, from whoever has just read it: the log's news of it may still be on their way. */
  learn(order: Snapshot<OrderState>): void;
  /** Resolves when an order's newest point is stored, or at once when one of the last few seconds is. */
  stored(orderId: string): Promise<void>;
  /** Where an order's driver was last seen: by a point that was taken here, or that is stored. */
  find(orderId: string): Promise<LastPoint | undefined>;
  /** Lets go of orders of which no point has come for long. */
  forgetIdle(): void;
  /** Stores what is not stored yet. */
  stop(): Promise<void>;
};

export type LocationIntakeOptions = {
  readonly orders: Transactor<OrderState>;
  readonly stores: Pick<Transactor<StoreState>, "read">;
  readonly keys: PersonalKeys;
  readonly locations: SealedLocations;
  readonly feed: PointFeed;
  readonly watch: LogWatch;
  readonly radii: Radii;
  readonly estimateArrival: EstimateArrival;
  /** Points measured longer ago are of no use. */
  readonly staleMs: number;
  /** How often an order's newest point is stored at most. */
  readonly storeMs: number;
  readonly now: () => Date;
  readonly logger: Logger;
};

/** An order whose driver reports, kept up to date by the log. */
type Followed = {
  readonly orderId: string;
  readonly watcher: Watcher;
  order: Snapshot<OrderState>;
  trail: Trail;
  stops: Stops;
  stopsReadAt: number;
  speedMps: number | undefined;
  eta: Date | undefined;
  /** When its newest point was last stored, by `performance.now`. */
  storedAt: number;
  isRecording: boolean;
  /** The newest point that came while a milestone was being recorded. */
  waiting: DriverPoint | undefined;
};

const MOST_FOLLOWED = 50_000;
const IDLE_MS = 10 * 60_000;
const MOST_UNKNOWN = 10_000;
/** An order that is not there may be in a moment. */
const UNKNOWN_MS = 1000;
/** Where an order goes is personal: it is looked up again as often as keys are. */
const STOPS_MS = 5 * 60_000;
const STORE_LOOK_MS = 100;
/** So many are stored at one look, however few wait. */
const LEAST_STORED = 100;
const MOST_STORED = 1000;
/** A time to the second would change with every point and say no more. */
const ETA_STEP_MS = 10_000;
const LOCATIONS = { role: Role.SYSTEM, subject: "driver-locations" };

/** The intake of this process. */
export function createLocationIntake(options: LocationIntakeOptions): LocationIntake {
  const { orders, stores, keys, locations, feed, watch, radii, estimateArrival, staleMs, storeMs, now, logger } = options;
  const stopping = new AbortController();
  const followed = new LRUCache<string, Followed>({
    max: MOST_FOLLOWED,
    ttl: IDLE_MS,
    updateAgeOnGet: true,
    dispose: ({ watcher }) => watcher[Symbol.dispose](),
  });
  const unknown = new LRUCache<string, true>({ max: MOST_UNKNOWN, ttl: UNKNOWN_MS });
  const loading = new Map<string, Promise<void>>();
  const unstored = new Set<Followed>();
  const background = new Set<Promise<unknown>>();
  let timer: NodeJS.Timeout | undefined;
  /** When it was last looked for what is to be stored, by `performance.now`. */
  let lookedAt = performance.now();
  let storing: Promise<void> = Promise.resolve();

  async function load(orderId: string): Promise<void> {
    // Begun before the order is read, so that nothing falls between the two.
    const watcher = await watch.open(orderStream(orderId), stopping.signal);
    try {
      const [order, last] = await Promise.all([orders.read(orderId), locations.find(orderId)]);
      if (!order) {
        unknown.set(orderId, true);
        watcher[Symbol.dispose]();
        return;
      }
      const own = last?.driverId === order.state.driver?.driverId ? last : undefined;
      const one: Followed = {
        ...{ orderId, watcher, order, trail: newTrail(own), eta: own?.eta, speedMps: undefined },
        ...{ stops: await stopsOf(order.state), stopsReadAt: performance.now() },
        ...{ storedAt: Number.NEGATIVE_INFINITY, isRecording: false, waiting: undefined },
      };
      followed.set(orderId, one);
      void follow(one);
    } catch (error) {
      watcher[Symbol.dispose]();
      throw error;
    }
  }

  function loaded(orderId: string): Promise<void> {
    const made = loading.get(orderId) ?? load(orderId).finally(() => loading.delete(orderId));
    loading.set(orderId, made);
    return made;
  }

  async function stopsOf(state: OrderState): Promise<Stops> {
    try {
      const { recipient, orderId, storeId } = state;
      const [store, opened] = await Promise.all([
        stores.read(storeId),
        recipient && keys.open(recipient, sealedContext.recipient(orderId)),
      ]);
      const address = opened && fromBinary(RecipientSchema, opened).address;
      return { store: placeOf(store?.state.profile?.address), customer: placeOf(address) };
    } catch (error) {
      logger.warn({ err: error, order_id: state.orderId }, "where an order goes cannot be found out; its driver's milestones wait");
      return {};
    }
  }

  /** Keeps an order up to date, until it is let go of. */
  async function follow(one: Followed): Promise<void> {
    try {
      for (;;) {
        const news = await one.watcher.next();
        advance(one, await orderAfterNews(one.order, news, orders));
        if (performance.now() - one.stopsReadAt < STOPS_MS) continue;
        one.stopsReadAt = performance.now();
        one.stops = await stopsOf(one.order.state);
      }
    } catch (error) {
      // With the next point it is read again.
      if (followed.peek(one.orderId) === one) followed.delete(one.orderId);
      if (!stopping.signal.aborted) logger.warn({ err: error, order_id: one.orderId }, "an order whose driver reports cannot be followed");
    }
  }

  function advance(one: Followed, order: Snapshot<OrderState>): void {
    if (order.version <= one.order.version) return;
    const before = one.order.state.driver?.driverId;
    one.order = order;
    if (before === order.state.driver?.driverId) return;
    unstored.delete(one);
    one.trail = newTrail();
    one.speedMps = undefined;
    one.eta = undefined;
  }

  function expected({ order: { state }, stops: { store, customer }, speedMps }: Followed, point: DriverPoint): Date | undefined {
    const next = nextStop(state.status);
    if (!next || !customer || !showsLocation(state)) return undefined;
    const legsMeters =
      next === "store" && store ? [distanceMeters(point, store), distanceMeters(store, customer)] : [distanceMeters(point, customer)];
    const at = point.recordedAt.getTime() + estimateArrival({ legsMeters, speedMps }) * 1000;
    return new Date(Math.ceil(at / ETA_STEP_MS) * ETA_STEP_MS);
  }

  /** Puts what reaches a milestone on record. It is tried again with the next point, should that fail. */
  function noteMilestone(one: Followed, point: DriverPoint): void {
    const { orderId, order } = one;
    const driverId = order.state.driver?.driverId;
    if (driverId === undefined) return;
    if (one.isRecording) {
      one.waiting = point;
      return;
    }
    const milestone = milestoneAt(order.state, point, one.stops, radii);
    if (milestone === undefined) return;
    one.isRecording = true;
    const command = { type: "ReachMilestone", milestone, driverId, at: point.recordedAt } as const;
    const recording = orders
      .transact(orderId, {
        ...{ method: "driver locations", requestId: "", correlationId: randomUUID(), actor: LOCATIONS, door: Door.INTERNAL },
        decide: (state) => (state ? decide(state, command, LOCATIONS) : []),
      })
      .then(
        (outcome) => advance(one, outcome),
        (error: unknown) =>
          logger.warn(
            { err: error, order_id: orderId, milestone: DriverMilestone[milestone] },
            "a driver's milestone could not be recorded yet",
          ),
      )
      .finally(() => {
        one.isRecording = false;
        background.delete(recording);
        const { waiting } = one;
        one.waiting = undefined;
        if (waiting && one.order.state.driver?.driverId === driverId) noteMilestone(one, waiting);
      });
    background.add(recording);
  }

  function pass(one: Followed, points: readonly DriverPoint[]): void {
    const last = points.at(-1);
    if (!last) return;
    one.eta = expected(one, last);
    feed.publish(one.orderId, { points, eta: one.eta });
    for (const point of points) noteMilestone(one, point);
    unstored.add(one);
    if (!stopping.signal.aborted) timer ??= setTimeout(storeDue, 0);
  }

  /**
   * Stores what is due, and no more than lets all that waits have its turn within half of `storeMs`: where a fleet begins in one second, or
   * goes on after a fault, its points would otherwise be stored together in one second for ever, and hold up those who watch.
   */
  function storeDue(): void {
    const at = performance.now();
    const share = Math.ceil((unstored.size * 2 * (at - lookedAt)) / storeMs);
    lookedAt = at;
    const most = Math.min(Math.max(share, LEAST_STORED), MOST_STORED);
    const due = [...unstored].filter(({ storedAt }) => at - storedAt >= storeMs).slice(0, most);
    storing = store(due).then(() => {
      timer = unstored.size > 0 && !stopping.signal.aborted ? setTimeout(storeDue, STORE_LOOK_MS) : undefined;
    });
  }

  /** Stores the newest points of orders. What cannot be stored is tried again later. */
  async function store(due: readonly Followed[]): Promise<void> {
    const newest = due.flatMap((one) => {
      unstored.delete(one);
      one.storedAt = performance.now();
      const { orderId, trail, eta, order } = one;
      const { customerId, driver } = order.state;
      return trail.last && driver ? [{ orderId, customerId, point: { ...trail.last, eta, driverId: driver.driverId } }] : [];
    });
    try {
      await locations.record(newest);
    } catch (error) {
      for (const one of due) unstored.add(one);
      logger.warn({ err: error, orders: due.length }, "where drivers are cannot be stored at present; trying again");
    }
  }

  return {
    async take(reported, mayReport) {
      const missing = new Set<string>();
      for (const { orderId } of reported) if (!followed.has(orderId) && !unknown.has(orderId)) missing.add(orderId);
      if (missing.size > 0) await Promise.all([...missing].map(loaded));
      const nowMs = now().getTime();
      const taken = new Map<Followed, DriverPoint[]>();
      const judged = reported.map(({ orderId, point }): NotTaken | undefined => {
        const one = followed.get(orderId);
        if (!one || !mayReport(one.order.state)) return "UNKNOWN_ORDER";
        if (!takesLocation(one.order.state)) return "NO_DRIVER";
        const before = one.trail.last;
        const fault = judgePoint(one.trail, point, nowMs, staleMs);
        if (fault) return fault;
        if (before && tellSpeed(before, point))
          one.speedMps = recentSpeed(one.speedMps, distanceMeters(before, point), secondsBetween(before, point));
        const points = taken.get(one);
        if (points) points.push(point);
        else taken.set(one, [point]);
        return undefined;
      });
      for (const [one, points] of taken) pass(one, points);
      return judged;
    },

    learn(order) {
      const { orderId } = order.state;
      unknown.delete(orderId);
      const one = followed.peek(orderId);
      if (one) advance(one, order);
    },

    async stored(orderId) {
      const one = followed.peek(orderId);
      if (one && unstored.has(one) && performance.now() - one.storedAt >= storeMs) await store([one]);
    },

    async find(orderId) {
      const known = await locations.find(orderId);
      const one = followed.peek(orderId);
      const last = one?.trail.last;
      const driverId = one?.order.state.driver?.driverId;
      if (!last || driverId === undefined || (known?.driverId === driverId && known.recordedAt >= last.recordedAt)) return known;
      return { ...last, eta: one.eta, driverId };
    },

    forgetIdle: () => void followed.purgeStale(),

    async stop() {
      stopping.abort(new Error("the process ends"));
      clearTimeout(timer);
      await Promise.all([storing, ...background]);
      await store([...unstored]);
      followed.clear();
    },
  };
}

function secondsBetween(from: DriverPoint, to: DriverPoint): number {
  return (to.recordedAt.getTime() - from.recordedAt.getTime()) / 1000;
}

function placeOf(
  address: { readonly latitude?: number | undefined; readonly longitude?: number | undefined } | undefined,
): Place | undefined {
  const { latitude, longitude } = address ?? {};
  return latitude === undefined || longitude === undefined ? undefined : { latitude, longitude };
}
