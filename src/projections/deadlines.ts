import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Collection, Db } from "mongodb";
import { orderStream } from "../domain/order.ts";
import { nextAct, type Waiting, waitingAfter } from "../domain/order-deadlines.ts";
import { statusAfter } from "../domain/order-moves.ts";
import type { OrderDeadlines } from "../gen/ordertrail/events/v1/order_events_pb.js";
import { OrderStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import type { RecordedEntry } from "../log/log-entry.ts";
import type { LogReader } from "../log/reader.ts";
import {
  type DeadlinesDocument,
  deadlinesFromDocument,
  deadlinesToDocument,
  statusName,
  statusOf,
  type WaitingDocument,
  waitingFromDocument,
  waitingToDocument,
} from "./order-tracking-document.ts";
import type { Projection, ProjectionWriter } from "./projection.ts";
import { writeDocuments } from "./write-documents.ts";

/** The collection, and the projection's name. */
export const DEADLINES = "deadlines";

/** To be raised when other documents come of the same entries than before. */
const REVISION = 1;
/** Deadlines are minutes: an order that moves on within this time is written once. */
const REST_MS = 2000;
const ORDER_STREAMS = orderStream("");

/** A document of `deadlines`: what an order waits for, and when something is to be done about it. */
type DeadlineDocument = {
  readonly order_id: string;
  readonly current_status: string;
  readonly limits: DeadlinesDocument | null;
  readonly waiting_for: WaitingDocument | null;
  /** Null when there is nothing to be done. */
  readonly next_at: Date | null;
  readonly version: number;
};

/** What of an order decides what it waits for. */
type Wait = {
  readonly status: OrderStatus;
  readonly limits: OrderDeadlines | undefined;
  readonly waiting: Waiting | undefined;
  readonly version: number;
};

const BEFORE: Wait = { status: OrderStatus.UNSPECIFIED, limits: undefined, waiting: undefined, version: 0 };

/** The projection `deadlines`: what each order waits for, for those who see to it that nothing is forgotten. */
export function createDeadlinesProjection(db: Db, reader: LogReader): Projection {
  const collection = (name: string) =>
    db.collection<DeadlineDocument>(name, { writeConcern: { w: "majority", journal: true }, readPreference: "primary" });
  return {
    name: DEADLINES,
    collection: DEADLINES,
    revision: REVISION,
    key: "order_id",
    keyIndex: { key: { order_id: 1 }, unique: true },
    indexes: [{ key: { next_at: 1, order_id: 1 }, partialFilterExpression: { next_at: { $type: "date" } } }],
    foreignFields: [],
    restMs: REST_MS,
    open: (name) => openDeadlines(collection(name), reader),
    carryOver: async () => undefined,
    async documentAt(orderId, version) {
      const entries = (await reader.readStream(orderStream(orderId), 0)).filter(({ entry }) => entry.version <= version);
      const wait = entries.reduce(foldWait, BEFORE);
      return wait.version === version ? toDocument(orderId, wait) : undefined;
    },
  };
}

/** The orders of which something is due, in the order of time. */
export type Deadlines = {
  /** At most `limit` that are due by a time, after the one given. */
  due(at: Date, limit: number, after?: DueOrder): Promise<DueOrder[]>;
};

export type DueOrder = { readonly orderId: string; readonly nextAt: Date };

/** Reads `deadlines` in `db`. */
export function createDeadlines(db: Db): Deadlines {
  const deadlines = db.collection<DeadlineDocument>(DEADLINES, { readPreference: "primary" });
  return {
    async due(at, limit, after) {
      const beyond = after && { $or: [{ next_at: { $gt: after.nextAt } }, { next_at: after.nextAt, order_id: { $gt: after.orderId } }] };
      const found = await deadlines
        .find({ next_at: { $type: "date", $lte: at }, ...beyond }, { projection: { order_id: 1, next_at: 1 } })
        .sort({ next_at: 1, order_id: 1 })
        .limit(limit)
        .toArray();
      return found.map(({ order_id, next_at }) => ({ orderId: order_id, nextAt: next_at as Date }));
    },
  };
}

/** Writes the documents of one copy. What a batch changes is written at its end: nothing is held beyond that. */
function openDeadlines(target: Collection<DeadlineDocument>, reader: LogReader): ProjectionWriter {
  async function load(orderIds: readonly string[]): Promise<Map<string, Wait>> {
    const found = new Map<string, Wait>();
    if (orderIds.length === 0) return found;
    for await (const document of target.find({ order_id: { $in: [...orderIds] } })) found.set(document.order_id, fromDocument(document));
    return found;
  }

  /** Makes good what the copy does not have, such as a document that somebody has deleted. */
  async function loadFromLog(orderId: string, before: Wait, version: number): Promise<Wait> {
    const entries = await reader.readStream(orderStream(orderId), before.version);
    return entries.filter(({ entry }) => entry.version <= version).reduce(foldWait, before);
  }

  return {
    async apply(entries) {
      const byOrder = Map.groupBy(
        entries.filter(({ entry }) => entry.stream.startsWith(ORDER_STREAMS)),
        ({ entry }) => entry.stream.slice(ORDER_STREAMS.length),
      );
      const known = await load([...byOrder].flatMap(([orderId, [first]]) => (first?.entry.version === 1 ? [] : [orderId])));
      const updates = [];
      for (const [orderId, ofOrder] of byOrder) {
        const first = ofOrder[0]?.entry.version ?? 1;
        let wait = known.get(orderId) ?? BEFORE;
        if (wait.version < first - 1) wait = await loadFromLog(orderId, wait, first - 1);
        const fresh = ofOrder.filter(({ entry }) => entry.version > wait.version);
        if (fresh.length === 0) continue;
        const after = fresh.reduce(foldWait, wait);
        updates.push({
          q: { order_id: orderId, version: { $lt: after.version } },
          u: { $set: toDocument(orderId, after) },
          upsert: true,
        });
      }
      await writeDocuments(target, updates);
    },
    flush: async () => undefined,
  };
}

function foldWait(before: Wait, { entry }: RecordedEntry): Wait {
  const at = entry.recordedAt ? timestampDate(entry.recordedAt) : new Date(0);
  return entry.events.reduce<Wait>(
    (wait, event) => {
      const status = statusAfter(event) ?? wait.status;
      const limits = event.kind.case === "orderSubmitted" ? event.kind.value.deadlines : wait.limits;
      return { status, limits, waiting: waitingAfter(wait, limits, event, status, at), version: entry.version };
    },
    { ...before, version: entry.version },
  );
}

function toDocument(orderId: string, { status, limits, waiting, version }: Wait): DeadlineDocument {
  return {
    order_id: orderId,
    current_status: statusName(status),
    limits: deadlinesToDocument(limits),
    waiting_for: waitingToDocument(waiting),
    next_at: nextAct(waiting) ?? null,
    version,
  };
}

function fromDocument({ current_status, limits, waiting_for, version }: DeadlineDocument): Wait {
  return { status: statusOf(current_status), limits: deadlinesFromDocument(limits), waiting: waitingFromDocument(waiting_for), version };
}
