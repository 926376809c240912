import { timestampDate } from "@bufbuild/protobuf/wkt";
import { type Collection, type Filter, MongoBulkWriteError, type UpdateFilter } from "mongodb";
import { evolve, type OrderState, orderStream } from "../domain/order.ts";
import { STATUSES_WITH_LOCATION, showsLocation } from "../domain/order-location.ts";
import { isFinal } from "../domain/order-moves.ts";
import { Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { RecordedEntry } from "../log/log-entry.ts";
import { checkVersions, type LogReader } from "../log/reader.ts";
import type { Snapshot } from "../log/transact.ts";
import { fromDocument, type OrderDocument, type OrderTrackingDocument, toChanges, toDocument } from "./order-tracking-document.ts";
import type { ProjectionWriter } from "./projection.ts";

/** The entries of a stream do not make an order, so that nothing can be projected from here on. */
export class NotAnOrder extends Error {
  override readonly name = "NotAnOrder";
  constructor(position: number, what: string) {
    super(`the entry at position ${position} cannot be applied: ${what}`);
  }
}

type Held = {
  order: Snapshot<OrderState> | undefined;
  /** What the copy is known to hold of it; undefined when nothing is known. */
  written: Snapshot<OrderState> | undefined;
  /** True when its driver has left it since it was last written: where they were says nothing any more. */
  driverLeft: boolean;
  weight: number;
};

const ORDER_STREAMS = orderStream("");
const WRITE_BATCH = 250;
/** Where others are to be let through between two commands. */
const BREATHING_WRITE_BATCH = 50;
const LOG_READ_STREAMS = 500;
const DUPLICATE_KEY = 11000;

/**
 * Writes the documents of one copy of `order_tracking`. Changes stay in memory until `flush`, until the order has ended, or
 * until all weigh too much; so in a rebuild most documents are written once. `onDriverLeft` hears of the orders
 * whose driver's place has no meaning any more, after that was written, and `onDriverComes` of those that show it from then on.
 */
export function openOrderTracking(options: {
  readonly target: Collection<OrderTrackingDocument>;
  readonly reader: LogReader;
  /** Whether the documents of the copy may be taken for the state of their orders; otherwise it is read from the log. */
  readonly trusted: boolean;
  /** What the orders in memory may weigh together; each takes some five bytes of memory for each that `weigh` counts. */
  readonly maxWeight: number;
  readonly onDriverLeft?: (orders: readonly { readonly orderId: string; readonly driverId: string | undefined }[]) => Promise<void>;
  readonly onDriverComes?: (orderIds: readonly string[]) => Promise<void>;
  readonly breathe?: (tookMs: number) => Promise<void>;
}): ProjectionWriter {
  const { target, reader, trusted, maxWeight, onDriverLeft, onDriverComes, breathe } = options;
  const writeBatch = breathe ? BREATHING_WRITE_BATCH : WRITE_BATCH;
  /** By order id, the most recently used last. */
  const held = new Map<string, Held>();
  /** Those among them of which no more is to be expected. */
  const ended = new Set<string>();
  let weight = 0;

  function touch(orderId: string, known: Held): void {
    held.delete(orderId);
    held.set(orderId, known);
  }

  function hold(orderId: string, order: Snapshot<OrderState> | undefined, written: Snapshot<OrderState> | undefined): void {
    const known = { order, written, driverLeft: false, weight: order ? weigh(order.state) : 0 };
    weight += known.weight;
    held.set(orderId, known);
  }

  /** Brings in the orders that these entries go on from. */
  async function load(entries: readonly RecordedEntry[]): Promise<void> {
    /** Up to which version each order has to be there. */
    const wanted = new Map<string, number>();
    for (const { entry } of entries) {
      const orderId = orderIdOf(entry.stream);
      if (held.has(orderId) || wanted.has(orderId)) continue;
      if (entry.version === 1) hold(orderId, undefined, undefined);
      else wanted.set(orderId, entry.version - 1);
    }
    if (wanted.size === 0) return;
    if (trusted) await loadDocuments(wanted);
    await loadFromLog(wanted);
  }

  async function loadDocuments(wanted: ReadonlyMap<string, number>): Promise<void> {
    for await (const document of target.find({ order_id: { $in: [...wanted.keys()] } })) {
      const order = fromDocument(document);
      hold(document.order_id, order, order);
    }
  }

  /** Makes good what the copy does not have, such as a document that somebody has deleted. */
  async function loadFromLog(wanted: ReadonlyMap<string, number>): Promise<void> {
    const missing = [...wanted].filter(([orderId, version]) => (held.get(orderId)?.order?.version ?? 0) < version);
    for (let from = 0; from < missing.length; from += LOG_READ_STREAMS) {
      const part = missing.slice(from, from + LOG_READ_STREAMS);
      const found = await reader.readStreams(
        new Map(part.map(([orderId]) => [orderStream(orderId), held.get(orderId)?.order?.version ?? 0])),
      );
      for (const [orderId, version] of part) {
        const known = held.get(orderId);
        const entries = found.get(orderStream(orderId))?.filter(({ entry }) => entry.version <= version) ?? [];
        checkVersions(entries, known?.order?.version ?? 0);
        const order = entries.reduce<Snapshot<OrderState> | undefined>(foldOrder, known?.order);
        if (known) weight -= known.weight;
        hold(orderId, order, known?.written);
      }
    }
  }

  function take(recorded: RecordedEntry): void {
    const orderId = orderIdOf(recorded.entry.stream);
    const known = held.get(orderId);
    if (!known) throw new Error(`${orderId} was not loaded`);
    const before = known.order;
    if (before && recorded.entry.version <= before.version) return;
    const after = foldOrder(before, recorded);
    known.order = after;
    known.driverLeft ||= before !== undefined && hasDriverLeft(before.state, after.state);
    weight -= known.weight;
    known.weight = weigh(after.state);
    weight += known.weight;
    touch(orderId, known);
    if (isFinal(after.state.status)) ended.add(orderId);
  }

  async function makeRoom(): Promise<void> {
    if (weight <= maxWeight && ended.size < WRITE_BATCH) return;
    const leaving = new Map<string, Held>();
    let remaining = weight;
    const leave = (orderId: string, known: Held | undefined) => {
      if (!known) return;
      leaving.set(orderId, known);
      remaining -= known.weight;
    };
    for (const orderId of ended) leave(orderId, held.get(orderId));
    for (const [orderId, known] of held) {
      if (remaining <= maxWeight) break;
      if (!leaving.has(orderId)) leave(orderId, known);
    }
    await writeChanged(leaving.values());
    for (const orderId of leaving.keys()) held.delete(orderId);
    ended.clear();
    weight = remaining;
  }

  async function writeChanged(among: Iterable<Held>): Promise<void> {
    const changed = [...among].filter(({ order, written }) => order !== undefined && order.version > (written?.version ?? 0));
    const coming = changed.filter(
      ({ order, written, driverLeft }) => order && showsLocation(order.state) && (driverLeft || !(written && showsLocation(written.state))),
    );
    for (let from = 0; from < changed.length; from += writeBatch) {
      const started = performance.now();
      await write(changed.slice(from, from + writeBatch));
      await breathe?.(performance.now() - started);
    }
    const left = changed.filter(({ driverLeft }) => driverLeft);
    if (onDriverLeft && left.length > 0) await onDriverLeft(left.map(driverOf));
    for (const known of left) known.driverLeft = false;
    // Their drivers may have reported before it was written that they come.
    if (onDriverComes && coming.length > 0) await onDriverComes(coming.map((known) => orderOf(known).state.orderId));
  }

  async function write(changed: readonly Held[]): Promise<void> {
    const known = changed.filter(({ written }) => written !== undefined);
    const unknown = changed.filter(({ written }) => written === undefined);
    // What was not known to be there may be, and a document may have been put back to what it was: a whole one mends either.
    const stale = [...(await update(known)), ...(await insert(unknown))];
    await send(stale.map(replaceFields));
    for (const held of changed) held.written = held.order;
  }

  /** Brings documents up to date by what has changed; answers those for which that may not have been enough. */
  async function update(known: readonly Held[]): Promise<readonly Held[]> {
    return (await send(known.map(updateFields))) === known.length ? [] : known;
  }

  /**
   * Sends updates and answers how many documents they met. As a command of our own: a `bulkWrite` of a client that retries
   * writes has the server keep account of each update, which costs it a quarter more, and what fails here is done again anyway.
   */
  async function send(updates: readonly Update[]): Promise<number> {
    if (updates.length === 0) return 0;
    const command = { update: target.collectionName, updates, ordered: false, writeConcern: { w: "majority", j: true } };
    const { n, writeErrors } = await target.db.command(command);
    if (writeErrors) throw new Error(`${target.collectionName} cannot be updated: ${writeErrors[0].errmsg}`);
    return n;
  }

  /** Inserts documents; answers those that are there already. */
  async function insert(unknown: readonly Held[]): Promise<readonly Held[]> {
    if (unknown.length === 0) return unknown;
    try {
      await target.insertMany(
        unknown.map((held) => ({ ...toDocument(orderOf(held)), driver_location: null })),
        { ordered: false },
      );
      return [];
    } catch (error) {
      if (!(error instanceof MongoBulkWriteError)) throw error;
      const failures = Array.isArray(error.writeErrors) ? error.writeErrors : [error.writeErrors];
      if (failures.length === 0 || failures.some(({ code }) => code !== DUPLICATE_KEY) || error.result.getWriteConcernError()) throw error;
      return failures.flatMap(({ index }) => unknown[index] ?? []);
    }
  }

  return {
    async apply(entries) {
      const ofOrders = entries.filter(({ entry }) => entry.stream.startsWith(ORDER_STREAMS));
      await load(ofOrders);
      for (const recorded of ofOrders) take(recorded);
      await makeRoom();
    },
    flush: () => writeChanged(held.values()),
  };
}

/** An order after one more entry of its stream. */
export function foldOrder(before: Snapshot<OrderState> | undefined, { position, entry }: RecordedEntry): Snapshot<OrderState> {
  const expected = (before?.version ?? 0) + 1;
  if (entry.version !== expected)
    throw new NotAnOrder(position, `it is version ${entry.version} of ${entry.stream}, and version ${expected} is to come`);
  const context = {
    actor: entry.actor ?? { role: Role.UNSPECIFIED, subject: "" },
    recordedAt: entry.recordedAt ? timestampDate(entry.recordedAt) : (before?.state.updatedAt ?? new Date(0)),
  };
  const state = entry.events.reduce<OrderState | undefined>((state, event) => evolve(state, event, context), before?.state);
  if (state?.orderId !== orderIdOf(entry.stream))
    throw new NotAnOrder(position, `${entry.stream} does not begin with the order's submission`);
  return { state, version: entry.version, position };
}

function orderIdOf(stream: string): string {
  return stream.slice(ORDER_STREAMS.length);
}

/** The driver who has still to do with an order. */
function driverOf(held: Held): { readonly orderId: string; readonly driverId: string | undefined } {
  const { orderId, driver, status } = orderOf(held).state;
  return { orderId, driverId: isFinal(status) ? undefined : driver?.driverId };
}

function hasDriverLeft(before: OrderState, after: OrderState): boolean {
  const replaced = before.driver !== undefined && before.driver.driverId !== after.driver?.driverId;
  return replaced || (isFinal(after.status) && !isFinal(before.status));
}

/** A statement of the command `update`. */
type Update = { readonly q: Filter<OrderTrackingDocument>; readonly u: UpdateFilter<OrderTrackingDocument> };

/** Sets what has changed since the order was written. Changes nothing when the document is older than that, or this new. */
function updateFields(held: Held): Update {
  const order = orderOf(held);
  const written = held.written ?? order;
  return toUpdate(held, { $gte: written.version, $lt: order.version }, toChanges(written, order));
}

/** Sets every field. Changes nothing when the document is this new. */
function replaceFields(held: Held): Update {
  const order = orderOf(held);
  return toUpdate(held, { $lt: order.version }, toDocument(order));
}

function toUpdate(held: Held, version: { readonly $gte?: number; readonly $lt: number }, fields: Partial<OrderDocument>): Update {
  const { orderId, status } = orderOf(held).state;
  const keepsLocation = STATUSES_WITH_LOCATION.has(status) && !held.driverLeft;
  return { q: { order_id: orderId, version }, u: { $set: keepsLocation ? fields : { ...fields, driver_location: null } } };
}

function orderOf({ order }: Held): Snapshot<OrderState> {
  if (!order) throw new Error("there is nothing to write of an order without entries");
  return order;
}

/** About how many bytes a state takes in the log. */
function weigh(state: OrderState): number {
  const metadata = state.metadata ? 40 * Object.keys(state.metadata).length : 0;
  return 300 + 120 * state.items.length + 60 * state.history.length + 300 * state.substitutions.length + metadata;
}
