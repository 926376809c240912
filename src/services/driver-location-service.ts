import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate, timestampMs } from "@bufbuild/protobuf/wkt";
import { mayAccess, seesDriver } from "../access/permissions.ts";
import type { Caller } from "../domain/caller.ts";
import type { DriverPoint } from "../domain/driver-point.ts";
import type { OrderState } from "../domain/order.ts";
import { showsLocation } from "../domain/order-location.ts";
import { isFinal } from "../domain/order-moves.ts";
import { orderNotFound } from "../domain/order-refusals.ts";
import { Refusal, type Violation } from "../domain/refusal.ts";
import {
  type DriverLocationService,
  type DriverLocationUpdateSchema,
  type DroppedPoint,
  DroppedPointSchema,
  type LocationPoint,
  type StreamLocationsRequest,
  type StreamLocationsResponseSchema,
  type WatchDriverLocationResponse,
  WatchDriverLocationResponseSchema,
} from "../gen/ordertrail/v1/driver_location_service_pb.js";
import { LocationDropReason } from "../gen/ordertrail/v1/order_tracking_pb.js";
import { openLocationWatch } from "../live/location-watch.ts";
import type { PointFeed } from "../live/point-feed.ts";
import type { LogWatch } from "../live/watch.ts";
import type { Snapshot, Transactor } from "../log/transact.ts";
import type { Checked, ServiceHandlers } from "./call.ts";
import type { LocationIntake, NotTaken, Reported } from "./location-intake.ts";
import { orderAfterNews } from "./order-after-news.ts";
import { presentLocation } from "./present-order.ts";

type Order = Snapshot<OrderState>;
type Response = MessageInitShape<typeof StreamLocationsResponseSchema>;
type ShownPoint = DriverPoint & { readonly eta?: Date | undefined };
type Update = Exclude<MessageInitShape<typeof DriverLocationUpdateSchema>, { readonly $typeName: string }>;

const POINTS_A_RESPONSE = 1000;
const RESPONSE_MS = 5000;
const MOST_EXAMPLES = 20;
/** The path of something in a point: its index, and what of it. */
const POINT_FIELD = /^points\[(\d+)\]\.?(.*)$/;
/** For so many orders at most that are not the caller's a denial is recorded, each once. */
const MOST_DENIED = 1000;

/** What is said of a point that was not taken. */
export const WHY_DROPPED: Readonly<Record<NotTaken, string>> = {
  UNKNOWN_ORDER: "there is no such order that you may report on",
  NO_DRIVER: "the order has no driver on the way",
  DUPLICATE: "a point of this time is there already",
  OUT_OF_ORDER: "a later point is there already",
  STALE: "it was measured too long ago",
  FUTURE: "it was measured in the future: set the device's clock",
  IMPOSSIBLE: "it is over 200 km/h away from the point before",
};

/** DriverLocationService: points of drivers in, and out to those who watch. */
export function createDriverLocationService({
  intake,
  feed,
  watch,
  orders,
  now,
}: {
  readonly intake: LocationIntake;
  readonly feed: PointFeed;
  readonly watch: LogWatch;
  readonly orders: Pick<Transactor<OrderState>, "read">;
  readonly now: () => Date;
}): ServiceHandlers<typeof DriverLocationService> {
  async function readOwn(orderId: string, may: (state: OrderState) => boolean): Promise<Order> {
    const order = await orders.read(orderId);
    if (!order || !may(order.state)) throw orderNotFound(orderId);
    return order;
  }

  return {
    async *streamLocations(requests, call) {
      const tally = createTally();
      const denied = new Set<string>();
      const mayReport = (state: OrderState) => mayAccess(call.caller, state);
      for await (const batch of orEvery(RESPONSE_MS, requests, () => tally.isOwed())) {
        if (batch) {
          await call.reauthenticate();
          const { points, reported, refusal } = readPoints(batch);
          const judged = await intake.take(reported, mayReport);
          let next = 0;
          for (const { point, broken } of points) {
            const reason = broken === undefined ? judged[next++] : "INVALID";
            if (!reason) tally.take();
            else tally.drop(point, reason, broken ?? WHY_DROPPED[reason as NotTaken]);
            if (reason !== "UNKNOWN_ORDER" || denied.size >= MOST_DENIED || denied.has(point.orderId)) continue;
            denied.add(point.orderId);
            call.recordDenial(orderNotFound(point.orderId));
          }
          if (refusal) throw refusal;
        }
        if (!batch || tally.isDue()) yield tally.response(false);
      }
      yield tally.response(true);
    },

    async *watchDriverLocation({ orderId }, call) {
      const { caller } = call;
      const may = (state: OrderState) => mayAccess(caller, state);
      const isShown = (state: OrderState) => showsLocation(state) && seesDriver(caller, state);
      // Begun before the order and its last point are read, so that nothing falls between.
      let order: Order | undefined;
      const isDriver = (driverId: string) => order?.state.driver?.driverId === driverId;
      using watcher = await openLocationWatch({ feed, watch, isDriver }, orderId, call.signal);
      order = await readOwn(orderId, may);
      const shownPoint = async ({ state }: Order) => {
        const found = isShown(state) ? await intake.find(state.orderId) : undefined;
        return found && isDriver(found.driverId) ? found : undefined;
      };
      let shown: ShownPoint | undefined = await shownPoint(order);
      if (shown) watcher.offer(shown, shown.eta);
      else yield show(order, caller, undefined);
      if (isFinal(order.state.status)) return;
      for (;;) {
        const news = await watcher.next();
        await call.reauthenticate();
        if (news.kind === "point") {
          if (!isShown(order.state)) continue;
          shown = { ...news.point, eta: news.eta };
          yield show(order, caller, shown, news.skipped);
          continue;
        }
        const before = order.state;
        order = await orderAfterNews(order, news.news, orders);
        if (!may(order.state)) throw orderNotFound(orderId);
        const { status, driver } = order.state;
        const isReplaced = before.driver?.driverId !== driver?.driverId;
        if (isReplaced) {
          watcher.forget();
          shown = undefined;
        }
        if (isReplaced || before.status !== status) {
          // A driver who was booked early has reported before there was anything to show.
          if (!isShown(before) && !(isReplaced && before.driver)) shown = await shownPoint(order);
          if (!isShown(order.state)) shown = undefined;
          yield show(order, caller, shown);
          if (isFinal(status)) return;
        } else if (news.news.kind === "quiet") yield heartbeat(news.news.position);
      }
    },
  };

  function heartbeat(position: number): WatchDriverLocationResponse {
    const value = { serverTime: timestampFromDate(now()), position: BigInt(position) };
    return create(WatchDriverLocationResponseSchema, { kind: { case: "heartbeat", value } });
  }
}

function show({ state }: Order, caller: Caller, point: ShownPoint | undefined, skippedPoints = 0): WatchDriverLocationResponse {
  const eta = point?.eta ?? state.eta;
  const value: Update = {
    currentStatus: state.status,
    driverId: seesDriver(caller, state) ? (state.driver?.driverId ?? "") : "",
    skippedPoints,
    ...(point && { location: presentLocation(point) }),
    ...(eta && !isFinal(state.status) && { eta: timestampFromDate(eta) }),
  };
  return create(WatchDriverLocationResponseSchema, { kind: { case: "update", value } });
}

/** The points of messages, each with what is wrong with it if it breaks a rule; those that break none; and why there are no more, if a message breaks a rule as a whole. */
function readPoints(messages: readonly Checked<StreamLocationsRequest>[]) {
  const points: { readonly point: LocationPoint; readonly broken: string | undefined }[] = [];
  const reported: Reported[] = [];
  for (const { message, violations } of messages) {
    const ofMessage = violations.find(({ field }) => !POINT_FIELD.test(field));
    if (ofMessage) {
      const refusal = new Refusal("VALIDATION_FAILED", `${ofMessage.field} ${ofMessage.detail}`, {}, [ofMessage]);
      return { points, reported, refusal };
    }
    const brokenAt = violations.length === 0 ? undefined : brokenPoints(violations);
    for (const [index, point] of message.points.entries()) {
      const broken = brokenAt?.get(index);
      points.push({ point, broken });
      const { orderId, latitude = 0, longitude = 0, headingDeg, speedMps, accuracyM, recordedAt } = point;
      if (broken !== undefined || !recordedAt) continue;
      const at = new Date(timestampMs(recordedAt));
      reported.push({ orderId, point: { latitude, longitude, headingDeg, speedMps, accuracyM, recordedAt: at } });
    }
  }
  return { points, reported, refusal: undefined };
}

/** What is wrong with which points of a message, by their index. */
function brokenPoints(violations: readonly Violation[]): ReadonlyMap<number, string> {
  const broken = new Map<number, string>();
  for (const { field, detail } of violations) {
    const [, index, inside = ""] = POINT_FIELD.exec(field) ?? [];
    if (!broken.has(Number(index))) broken.set(Number(index), `${inside} ${detail}`);
  }
  return broken;
}

/** Counts what becomes of the points of a stream. */
function createTally() {
  let received = 0;
  let taken = 0;
  let told = 0;
  const dropped = new Map<LocationDropReason, number>();
  let examples: DroppedPoint[] = [];
  return {
    take() {
      received++;
      taken++;
    },
    drop({ orderId, recordedAt }: LocationPoint, why: NotTaken | "INVALID", detail: string) {
      received++;
      const reason = LocationDropReason[why];
      dropped.set(reason, (dropped.get(reason) ?? 0) + 1);
      if (examples.length < MOST_EXAMPLES)
        examples.push(
          create(DroppedPointSchema, {
            ...{ number: BigInt(received), orderId: orderId.slice(0, 64), reason, detail },
            ...(recordedAt && { recordedAt }),
          }),
        );
    },
    isOwed: () => received > told,
    isDue: () => received - told >= POINTS_A_RESPONSE,
    response(final: boolean): Response {
      told = received;
      const response = {
        ...{ received: BigInt(received), taken: BigInt(taken), final, examples },
        dropped: [...dropped].map(([reason, count]) => ({ reason, count: BigInt(count) })),
      };
      examples = [];
      return response;
    },
  };
}

/** What comes; and undefined whenever nothing has come for a time, or much has, while something is owed. */
async function* orEvery<Item>(ms: number, items: AsyncIterable<Item>, isOwed: () => boolean): AsyncGenerator<Item | undefined> {
  const iterator = items[Symbol.asyncIterator]();
  let found: { readonly result: Promise<IteratorResult<Item>> } | undefined;
  let isTime = false;
  let timer: NodeJS.Timeout | undefined;
  let wake: (() => void) | undefined;

  function tick(): void {
    timer = undefined;
    isTime = true;
    wake?.();
  }

  function ask(): void {
    const result = iterator.next();
    const settled = () => {
      found = { result };
      wake?.();
    };
    result.then(settled, settled);
  }

  try {
    ask();
    for (;;) {
      if (isOwed()) timer ??= setTimeout(tick, ms);
      // Not Promise.race: a timer that is raced again and again holds all that won against it, until it is due.
      if (!found && !isTime)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      if (found) {
        const next = await found.result;
        found = undefined;
        if (next.done) return;
        ask();
        yield next.value;
      } else {
        isTime = false;
        if (isOwed()) yield undefined;
      }
    }
  } finally {
    clearTimeout(timer);
  }
}
