import { setTimeout as pause } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { LRUCache } from "lru-cache";
import { mayAccess } from "../access/permissions.ts";
import type { Caller } from "../domain/caller.ts";
import { type OrderState, orderStream } from "../domain/order.ts";
import { showsLocation } from "../domain/order-location.ts";
import { isFinal } from "../domain/order-moves.ts";
import { orderNotFound } from "../domain/order-refusals.ts";
import { Refusal } from "../domain/refusal.ts";
import type { Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { OrderTracking } from "../gen/ordertrail/v1/order_tracking_pb.js";
import {
  type OrderTrackingService,
  type WatchTrackingResponse,
  WatchTrackingResponseSchema,
} from "../gen/ordertrail/v1/order_tracking_service_pb.js";
import type { LogWatch, News } from "../live/watch.ts";
import { eventType, type RecordedEntry } from "../log/log-entry.ts";
import type { LogReader } from "../log/reader.ts";
import type { Snapshot, Transactor } from "../log/transact.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import { foldOrder } from "../projections/order-tracking-writer.ts";
import type { ServiceHandlers } from "./call.ts";
import type { LocationIntake } from "./location-intake.ts";
import { presentOrders } from "./present-order.ts";

export type WatchTrackingDependencies = {
  readonly watch: LogWatch;
  readonly orders: Pick<Transactor<OrderState>, "read">;
  readonly reader: Pick<LogReader, "readStream">;
  readonly locations: Pick<LocationIntake, "find">;
  readonly keys: PersonalKeys;
  readonly now: () => Date;
};

type Order = Snapshot<OrderState>;
/** An order after an entry, and how it is shown, by role. */
type Shared = { readonly order: Order; readonly shown: Map<Role, Promise<WatchTrackingResponse>> };

/** For so many of the newest entries, as those who keep up with an order ask within milliseconds. */
const SHARED_ENTRIES = 500;
/** No longer than that, for personal data is in what is shown. */
const SHARED_MS = 60_000;
const REREAD_MS = 50;
/** For how long a version may be unknown here that the caller has seen: a new primary may know less for a moment. */
const UNKNOWN_MS = 1500;

/** OrderTrackingService/WatchTracking: an order as it changes. */
export function createWatchTracking(
  dependencies: WatchTrackingDependencies,
): Pick<ServiceHandlers<typeof OrderTrackingService>, "watchTracking"> {
  const { watch, orders, reader, locations, keys, now } = dependencies;
  /** Many watch one order: what it is after an entry, and how it is shown to a role, is made once, and kept for a moment. */
  const shared = new LRUCache<RecordedEntry, Shared>({ max: SHARED_ENTRIES, ttl: SHARED_MS, ttlAutopurge: true });

  /** The order after the next entry of its stream, which others are being told of at the same time. */
  function after(before: Order, recorded: RecordedEntry): Shared {
    const known = shared.get(recorded);
    if (known) return known;
    const made = { order: foldOrder(before, recorded), shown: new Map() };
    shared.set(recorded, made);
    return made;
  }

  async function show(order: Order, caller: Caller): Promise<OrderTracking> {
    const location = showsLocation(order.state) ? await locations.find(order.state.orderId) : undefined;
    const [presented] = await presentOrders([{ ...order, location }], caller, keys);
    return presented as OrderTracking;
  }

  async function makeChange(order: Order, caller: Caller, eventTypes: string[], skippedVersions: number): Promise<WatchTrackingResponse> {
    const value = { order: await show(order, caller), eventTypes, skippedVersions };
    return create(WatchTrackingResponseSchema, { kind: { case: "change", value } });
  }

  function changeOf(recorded: RecordedEntry, order: Order, caller: Caller, skipped: number): Promise<WatchTrackingResponse> {
    return makeChange(order, caller, recorded.entry.events.map(eventType), skipped);
  }

  /** What is sent of an entry. To all of a role whose the order is, the same is shown. */
  function sharedChangeOf(recorded: RecordedEntry, { order, shown }: Shared, caller: Caller): Promise<WatchTrackingResponse> {
    const known = shown.get(caller.role);
    if (known) return known;
    const made = changeOf(recorded, order, caller, 0);
    shown.set(caller.role, made);
    made.catch(() => shown.delete(caller.role));
    return made;
  }

  /** The entries of a stream beyond a version; waits until the log shows those up to `upTo`, which somebody has seen in it. */
  async function readBeyond(stream: string, version: number, upTo: number, signal: AbortSignal): Promise<RecordedEntry[]> {
    for (;;) {
      const entries = await reader.readStream(stream, version);
      if ((entries.at(-1)?.entry.version ?? version) >= upTo) return entries;
      await pause(REREAD_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
    }
  }

  /** The order as it stands, if the caller may see it. */
  async function readOwn(orderId: string, caller: Caller): Promise<Order> {
    const order = await orders.read(orderId);
    if (!order || !mayAccess(caller, order.state)) throw orderNotFound(orderId);
    return order;
  }

  /** As `readOwn`, but no older than the version that the caller has seen. */
  async function readSince(orderId: string, version: number, caller: Caller, signal: AbortSignal): Promise<Order> {
    const until = performance.now() + UNKNOWN_MS;
    for (;;) {
      const order = await readOwn(orderId, caller);
      if (order.version >= version) return order;
      if (performance.now() > until) throw noSuchVersion(version, order.version);
      await pause(REREAD_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
    }
  }

  return {
    async *watchTracking({ orderId, fromVersion }, call) {
      const { caller, signal } = call;
      const stream = orderStream(orderId);
      // Begun before the order is read, so that nothing falls between the two.
      using watcher = await watch.open(stream, signal);
      const current = fromVersion === undefined ? await readOwn(orderId, caller) : await readSince(orderId, fromVersion, caller, signal);
      let known: Order = current;

      if (fromVersion === undefined) {
        yield await makeChange(current, caller, [], 0);
      } else if (fromVersion < current.version) {
        let past: Order | undefined;
        for (const recorded of await readBeyond(stream, 0, current.version, signal)) {
          past = foldOrder(past, recorded);
          if (past.version > fromVersion) yield await changeOf(recorded, past, caller, 0);
        }
        known = past ?? current;
        if (!mayAccess(caller, known.state)) throw orderNotFound(orderId);
      }
      if (isFinal(known.state.status)) return;
      if (fromVersion === current.version) yield heartbeat(current.position);

      let looked = false;
      for (;;) {
        const news = await watcher.next();
        await call.reauthenticate();
        if (news.kind === "entry" && news.recorded.entry.version === known.version + 1) {
          const next = after(known, news.recorded);
          known = next.order;
          if (!mayAccess(caller, known.state)) throw orderNotFound(orderId);
          yield await sharedChangeOf(news.recorded, next, caller);
        } else {
          const entries = await missingAt(news);
          let told = known.version;
          if (news.kind === "quiet" && entries.length === 0) yield heartbeat(news.position);
          for (const recorded of entries) {
            known = foldOrder(known, recorded);
            if (!mayAccess(caller, known.state)) throw orderNotFound(orderId);
            if (news.kind === "missed" && news.slow && recorded !== entries.at(-1)) continue;
            yield await changeOf(recorded, known, caller, known.version - told - 1);
            told = known.version;
            if (isFinal(known.state.status)) return;
          }
        }
        if (isFinal(known.state.status)) return;
      }

      /** What has not been told yet, as far as the news say that there is something. */
      async function missingAt(news: News): Promise<readonly RecordedEntry[]> {
        if (news.kind === "quiet") {
          if (looked) return [];
          looked = true;
          // A new primary may have known less, when the watching began, than had been followed by then.
          return await reader.readStream(stream, known.version);
        }
        const upTo = news.kind === "entry" ? news.recorded.entry.version : news.upTo;
        return upTo <= known.version ? [] : await readBeyond(stream, known.version, upTo, signal);
      }
    },
  };

  function heartbeat(position: number): WatchTrackingResponse {
    const value = { serverTime: timestampFromDate(now()), position: BigInt(position) };
    return create(WatchTrackingResponseSchema, { kind: { case: "heartbeat", value } });
  }
}

function noSuchVersion(version: number, newest: number): Refusal {
  const detail = `is ${version}, but the order has got no further than version ${newest}: watch it anew, without a version`;
  return new Refusal("VALIDATION_FAILED", `from_version: ${detail}`, {}, [{ field: "from_version", rule: "known_version", detail }]);
}
