import type { NatsConnection, Subscription } from "nats";
import type { DriverPoint } from "../domain/driver-point.ts";
import type { NatsClient } from "../nats/nats-client.ts";
import { type Prefix, pointSubject } from "./subjects.ts";

/** Points of an order's driver that were taken together, oldest first, and when the order is expected at the customer's as of the newest. */
export type PointNews = {
  readonly points: readonly DriverPoint[];
  readonly eta?: Date | undefined;
  /** Whose they are, of points that were stored: the order's driver may be another in the meantime. */
  readonly driverId?: string | undefined;
};

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
  readonly find: (orderId: string) => Promise<(DriverPoint & { readonly eta?: Date | undefined; readonly driverId: string }) | undefined>;
};

/**
 * A feed within this process and, over NATS, between processes: one subject an order, listened to while somebody here watches it.
 */
export function createPointFeed({ nats, prefix, self, find }: PointFeedOptions): PointFeed {
  const orders = new Map<string, Listened>();
  const asSelf = { reply: self };
  /** What is to go over NATS with the next turn of the event loop. */
  let outgoing: { readonly orderId: string; readonly news: PointNews }[] = [];
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

  /** Points of many drivers come in one turn, each on a stream of its own; sent one by one, each would be a write to the socket. */
  function send(): void {
    const connection = nats?.connected();
    const sending = outgoing;
    outgoing = [];
    if (!connection) return;
    for (const { orderId, news } of sending) connection.publish(pointSubject(prefix, orderId), encode(news), asSelf);
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
      const found = await find(orderId);
      if (!found) return;
      const { eta, driverId, ...point } = found;
      tell(listened, { points: [point], eta, driverId });
    });
    await Promise.all(looked);
  }

  return {
    publish(orderId, news) {
      const listened = orders.get(orderId);
      if (listened) tell(listened, news);
      if (!nats?.connected()) return;
      if (outgoing.length === 0) setImmediate(send);
      outgoing.push({ orderId, news });
    },

    subscribe(orderId, listener) {
      let listened = orders.get(orderId);
      if (!listened) {
        listened = { listeners: new Set(), subscription: undefined };
        orders.set(orderId, listened);
        const connection = nats?.connection();
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

/** What stands first in a message; another would be of a format that is not known here. */
const FORMAT = 1;
const HEADER_NUMBERS = 2;
const POINT_NUMBERS = 6;

/** 64-bit floating-point numbers, little-endian: the format, the ETA, and six for each point; times in ms since 1970, NaN for what is absent. */
function encode({ points, eta }: PointNews): Uint8Array {
  const numbers = new Float64Array(HEADER_NUMBERS + POINT_NUMBERS * points.length);
  numbers[0] = FORMAT;
  numbers[1] = eta ? eta.getTime() : Number.NaN;
  let at = HEADER_NUMBERS;
  for (const { latitude, longitude, headingDeg, speedMps, accuracyM, recordedAt } of points) {
    numbers[at++] = latitude;
    numbers[at++] = longitude;
    numbers[at++] = headingDeg ?? Number.NaN;
    numbers[at++] = speedMps ?? Number.NaN;
    numbers[at++] = accuracyM ?? Number.NaN;
    numbers[at++] = recordedAt.getTime();
  }
  return new Uint8Array(numbers.buffer);
}

/** Undefined for what is no message of this format, as of another release. */
function decode(bytes: Uint8Array): PointNews | undefined {
  if (bytes.length % Float64Array.BYTES_PER_ELEMENT !== 0) return undefined;
  // A copy, as what arrives may lie anywhere in memory.
  const numbers = new Float64Array(new Uint8Array(bytes).buffer);
  if (numbers[0] !== FORMAT || (numbers.length - HEADER_NUMBERS) % POINT_NUMBERS !== 0) return undefined;
  const points: DriverPoint[] = [];
  for (let at = HEADER_NUMBERS; at < numbers.length; at += POINT_NUMBERS) {
    const [latitude = 0, longitude = 0, headingDeg, speedMps, accuracyM, recordedAt = 0] = numbers.subarray(at, at + POINT_NUMBERS);
    points.push({
      ...{ latitude, longitude, recordedAt: new Date(recordedAt) },
      ...{ headingDeg: present(headingDeg), speedMps: present(speedMps), accuracyM: present(accuracyM) },
    });
  }
  const eta = present(numbers[1]);
  return { points, eta: eta === undefined ? undefined : new Date(eta) };
}

function present(number: number | undefined): number | undefined {
  return number === undefined || Number.isNaN(number) ? undefined : number;
}
