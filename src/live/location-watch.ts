import type { DriverPoint } from "../domain/driver-point.ts";
import { orderStream } from "../domain/order.ts";
import type { PointFeed } from "./point-feed.ts";
import type { LogWatch, News } from "./watch.ts";

/** What one who follows a driver is told: the next point, or what the log says of the order. */
export type LocationNews =
  | {
      readonly kind: "point";
      readonly point: DriverPoint;
      readonly eta?: Date | undefined;
      /** How many points before it were passed over, because the watcher was too slow for them. */
      readonly skipped: number;
    }
  | { readonly kind: "log"; readonly news: News };

/** One who follows the driver of an order. */
export type LocationWatcher = Disposable & {
  /** What comes next, once it has come. Rejects with what ends the watching. Asked by one at a time. */
  next(): Promise<LocationNews>;
  /** Brings in a point that came by another way; one that is no newer than those told already is left. */
  offer(point: DriverPoint, eta: Date | undefined): void;
  /** Forgets all points, as of a driver who has left the order. */
  forget(): void;
};

/** How many points wait for a watcher that does not ask; when there are more, only the newest is kept. */
const MOST_WAITING = 16;

/**
 * Begins to follow the driver of an order, until it is disposed of or the signal ends it with its reason. `isDriver` tells
 * whether somebody is the order's driver at present.
 */
export async function openLocationWatch(
  { feed, watch, isDriver }: { readonly feed: PointFeed; readonly watch: LogWatch; readonly isDriver: (driverId: string) => boolean },
  orderId: string,
  signal: AbortSignal,
): Promise<LocationWatcher> {
  type Waiting = { readonly point: DriverPoint; readonly eta: Date | undefined };
  const log = await watch.open(orderStream(orderId), signal);
  let waiting: Waiting[] = [];
  let skipped = 0;
  let newestMs = Number.NEGATIVE_INFINITY;
  let told: News | undefined;
  let taken: (() => void) | undefined;
  let ended: { readonly reason: unknown } | undefined;
  let wake: (() => void) | undefined;

  function offer(point: DriverPoint, eta: Date | undefined): void {
    // Two processes may take points of one driver, and their own come back over NATS.
    const at = point.recordedAt.getTime();
    if (at <= newestMs) return;
    newestMs = at;
    if (waiting.length >= MOST_WAITING) {
      skipped += waiting.length;
      waiting = [];
    }
    waiting.push({ point, eta });
    wake?.();
  }

  const leave = feed.subscribe(orderId, ({ points, eta, driverId }) => {
    if (driverId !== undefined && !isDriver(driverId)) return;
    for (const point of points) offer(point, eta);
  });

  /** Hands on what the log says, one at a time: what comes meanwhile waits at its own watcher, which bounds it. */
  async function listen(): Promise<void> {
    for (;;) {
      told = await log.next();
      wake?.();
      await new Promise<void>((resolve) => {
        taken = resolve;
      });
    }
  }

  listen().catch((reason: unknown) => {
    ended = { reason };
    wake?.();
  });

  function found(): LocationNews | undefined {
    if (ended) throw ended.reason;
    if (told) {
      const news = told;
      told = undefined;
      taken?.();
      return { kind: "log", news };
    }
    const next = waiting.shift();
    if (!next) return undefined;
    const passedOver = skipped;
    skipped = 0;
    return { kind: "point", ...next, skipped: passedOver };
  }

  return {
    async next() {
      for (;;) {
        const news = found();
        if (news) return news;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
    offer,
    forget() {
      waiting = [];
      skipped = 0;
      newestMs = Number.NEGATIVE_INFINITY;
    },
    [Symbol.dispose]() {
      leave();
      log[Symbol.dispose]();
      waiting = [];
    },
  };
}
