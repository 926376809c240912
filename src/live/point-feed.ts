import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { NatsConnection, Subscription } from "nats";
import type { DriverPoint } from "../domain/driver-point.ts";
import { DriverPointsSchema } from "../gen/ordertrail/internal/v1/driver_points_pb.js";
import type { NatsClient } from "../nats/nats-client.ts";
import { type Prefix, pointSubject } from "./subjects.ts";

/** Points of an order's driver that were taken together, oldest first, and when the order is expected at the customer's as of the newest. */
export type PointNews = { readonly points: readonly DriverPoint[]; readonly eta?: Date | undefined };

export type PointListener = (news: PointNews) => void;

/** Carries the points of drivers from the process that takes them to those who watch, in whichever process. Not durable. */
export type PointFeed = {
  publish(orderId: string, news: PointNews): void;
  /** Calls back with the points of an order's driver; returns the function that ends it. */
  subscribe(orderId: string, listener: PointListener): () => void;
  /** While NATS is away, and a little longer: looks for points that other processes have stored, of the orders that are watched here. */
  look(): Promise<void>;
};

/** Once NATS is back it may take the other processes so long to notice. */
const SETTLED_MS = 10_000;

type Listened = { readonly listeners: Set<PointListener>; subscription: Subscription | undefined };

export type PointFeedOptions = {
  readonly nats: NatsClient | undefined;
  readonly prefix: Prefix;
  /** Names this process. */
  readonly self: string;
  /** The point of an order that is stored. */
  readonly find: (orderId: string) => Promise<(DriverPoint & { readonly eta?: Date | undefined }) | undefined>;
};

/**
 * A feed within this process and, over NATS, between processes: one subject an order, listened to while somebody here watches it.
 */
export function createPointFeed({ nats, prefix, self, find }: PointFeedOptions): PointFeed {
  const orders = new Map<string, Listened>();
  /** When NATS was last seen to be away. */
  let awayAt = performance.now();

  function hear(orderId: string, listened: Listened, connection: NatsConnection): void {
    listened.subscription = connection.subscribe(pointSubject(prefix, orderId), {
      callback(error, message) {
        // What this process says names itself as where to answer, so that it need not be read again here.
        if (error || message.reply === self) return;
        const news = decode(message.data);
        if (news) tell(listened, news);
      },
    });
  }

  function tell({ listeners }: Listened, news: PointNews): void {
    for (const listener of listeners) listener(news);
  }

  nats?.onConnected((connection) => {
    for (const [orderId, listened] of orders) hear(orderId, listened, connection);
  });

  async function look(): Promise<void> {
    if (nats?.connected() === undefined) awayAt = performance.now();
    else if (performance.now() - awayAt > SETTLED_MS) return;
    const looked = [...orders].map(async ([orderId, listened]) => {
      const { eta, ...point } = (await find(orderId)) ?? {};
      if ("recordedAt" in point) tell(listened, { points: [point], eta });
    });
    await Promise.all(looked);
  }

  return {
    publish(orderId, news) {
      const listened = orders.get(orderId);
      if (listened) tell(listened, news);
      nats?.connected()?.publish(pointSubject(prefix, orderId), encode(news), { reply: self });
    },

    subscribe(orderId, listener) {
      let listened = orders.get(orderId);
      if (!listened) {
        listened = { listeners: new Set(), subscription: undefined };
        orders.set(orderId, listened);
        const connection = nats?.connected();
        if (connection) hear(orderId, listened, connection);
      }
      const { listeners } = listened;
      listeners.add(listener);
      return () => {
        if (!listeners.delete(listener) || listeners.size > 0) return;
        orders.get(orderId)?.subscription?.unsubscribe();
        orders.delete(orderId);
      };
    },

    look,
  };
}

function encode({ points, eta }: PointNews): Uint8Array {
  const shown = points.map(({ recordedAt, ...point }) => ({ ...point, recordedAt: timestampFromDate(recordedAt) }));
  return toBinary(DriverPointsSchema, create(DriverPointsSchema, { points: shown, ...(eta && { eta: timestampFromDate(eta) }) }));
}

/** Undefined for what is none, as of another release. */
function decode(bytes: Uint8Array): PointNews | undefined {
  try {
    const { points, eta } = fromBinary(DriverPointsSchema, bytes);
    const found = points.flatMap(({ recordedAt, latitude, longitude, headingDeg, speedMps, accuracyM }) =>
      recordedAt ? [{ latitude, longitude, headingDeg, speedMps, accuracyM, recordedAt: timestampDate(recordedAt) }] : [],
    );
    return found.length > 0 ? { points: found, eta: eta && timestampDate(eta) } : undefined;
  } catch {
    return undefined;
  }
}
