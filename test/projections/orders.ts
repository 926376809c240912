import { randomBytes } from "node:crypto";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Db } from "mongodb";
import { decide, evolve, type InitTracking, type OrderCommand, type OrderState, orderStream } from "../../src/domain/order.ts";
import { OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import type { Appender } from "../../src/log/appender.ts";
import { createEntry, encodeEntry } from "../../src/log/log-entry.ts";
import type { LogReader } from "../../src/log/reader.ts";
import type { Snapshot } from "../../src/log/transact.ts";
import { createLogger } from "../../src/logger.ts";
import { createDriverLocations } from "../../src/projections/driver-locations.ts";
import { createOrderTrackingProjection, ORDER_TRACKING } from "../../src/projections/order-tracking.ts";
import { type OrderTrackingDocument, toDocument } from "../../src/projections/order-tracking-document.ts";
import { foldOrder } from "../../src/projections/order-tracking-writer.ts";
import type { Projection } from "../../src/projections/projection.ts";
import { createProjector, type Projector } from "../../src/projections/projector.ts";
import { acknowledge, actor, answer, assign, deliver, go, INIT, propose, sealed } from "../domain/order-fixtures.ts";

const { STORE_NOTIFIED, PICKING_IN_PROGRESS, READY_FOR_PICKUP, DRIVER_PICKUP_COMPLETE, IN_TRANSIT } = OrderStatus;

/** The commands of an order's life after its submission, substitutions and proof of delivery included. */
export const LIFE: readonly OrderCommand[] = [
  go(STORE_NOTIFIED),
  acknowledge(true),
  go(PICKING_IN_PROGRESS, sealed("a note")),
  propose("s-1"),
  answer(true, "s-1"),
  go(READY_FOR_PICKUP),
  assign("d-1"),
  go(DRIVER_PICKUP_COMPLETE),
  go(IN_TRANSIT),
  deliver(undefined, sealed("proof")),
];

/** A writer of orders that all commands are appended through, one entry each. */
export type OrderWriter = {
  /** Submits an order. */
  submit(order: Partial<InitTracking> & { readonly orderId: string }): Promise<number>;
  /** Carries out commands on an order, which is submitted first if it is new; answers the position of the last entry. */
  append(orderId: string, ...commands: readonly OrderCommand[]): Promise<number>;
  /** Submits orders and takes each through its life, all of them side by side. */
  appendLives(orderIds: readonly string[], steps?: number): Promise<number>;
};

export function createOrderWriter(appender: Appender): OrderWriter {
  const orders = new Map<string, { state: OrderState | undefined; version: number }>();

  async function carryOut(orderId: string, command: OrderCommand): Promise<number> {
    const order = orders.get(orderId) ?? { state: undefined, version: 0 };
    const by = actor(Role.SERVICE);
    const at = new Date();
    const events = decide(order.state, command, by);
    const state = events.reduce<OrderState | undefined>(
      (before, event) => evolve(before, event, { actor: by, recordedAt: at }),
      order.state,
    );
    const version = order.version + 1;
    orders.set(orderId, { state, version });
    const entry = createEntry({
      entryId: randomBytes(16),
      stream: orderStream(orderId),
      version,
      recordedAt: timestampFromDate(at),
      actor: by,
      events,
    });
    return await appender.append(encodeEntry(entry, at));
  }

  async function append(orderId: string, ...commands: readonly OrderCommand[]): Promise<number> {
    let position = orders.has(orderId) ? 0 : await carryOut(orderId, { ...INIT, orderId });
    for (const command of commands) position = await carryOut(orderId, command);
    return position;
  }

  return {
    submit: (order) => carryOut(order.orderId, { ...INIT, ...order }),
    append,
    appendLives: async (orderIds, steps = LIFE.length) =>
      Math.max(...(await Promise.all(orderIds.map((id) => append(id, ...LIFE.slice(0, steps)))))),
  };
}

export const orderIds = (prefix: string, count: number): string[] => Array.from({ length: count }, (_, n) => `${prefix}-${n}`);

/** The projection of orders in a database, as the application has it. */
export function orderTracking(db: Db, reader: LogReader): Projection {
  return createOrderTrackingProjection(db, reader, createDriverLocations(db, ORDER_TRACKING));
}

export type ProjectorParts = { readonly leaseMs?: number; readonly projection?: Projection };

/** A process's projector; stopped at the end of the `await using` block. */
export function projectorOf(
  { db, reader }: { readonly db: Db; readonly reader: LogReader },
  parts: ProjectorParts = {},
): Projector & AsyncDisposable {
  const { leaseMs = 500, projection = orderTracking(db, reader) } = parts;
  const projector = createProjector({ db, reader, logger: createLogger("silent"), leaseMs }, [projection]);
  return { ...projector, [Symbol.asyncDispose]: () => projector.stop() };
}

/** A deadline for one step of a test. */
export const soon = () => AbortSignal.timeout(20_000);

/** What is in `order_tracking`, by order_id. */
export async function projected(db: Db): Promise<Omit<OrderTrackingDocument, "driver_location">[]> {
  const fields = { _id: 0, driver_location: 0 };
  return await db.collection<OrderTrackingDocument>(ORDER_TRACKING).find({}, { projection: fields }).sort({ order_id: 1 }).toArray();
}

/** What ought to be there, folded from the log with nothing in between. */
export async function folded(reader: LogReader): Promise<object[]> {
  const orders = new Map<string, Snapshot<OrderState>>();
  for await (const entries of reader.readForward({ after: 0 })) {
    for (const recorded of entries) {
      const { stream } = recorded.entry;
      if (stream.startsWith(orderStream(""))) orders.set(stream, foldOrder(orders.get(stream), recorded));
    }
  }
  return [...orders.values()].map((order) => asRead(toDocument(order))).sort((a, b) => (a.order_id < b.order_id ? -1 : 1));
}

/** A document with its 64-bit integers as the driver reads them. */
function asRead<Document extends { readonly position: unknown }>(document: Document): Document {
  return withNumbers(document) as Document;
}

function withNumbers(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withNumbers);
  if (typeof value !== "object" || value === null || value instanceof Date || "sub_type" in value) return value;
  if ("toBigInt" in value) return Number(value);
  return Object.fromEntries(Object.entries(value).map(([field, inside]) => [field, withNumbers(inside)]));
}

/** The collections that a rebuild or comparison has left. */
export async function leftOvers(db: Db): Promise<string[]> {
  const found = await db.listCollections({ name: /^order_tracking_/ }, { nameOnly: true }).toArray();
  return found.map(({ name }) => name);
}
