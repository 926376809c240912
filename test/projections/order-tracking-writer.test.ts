import { describe, expect, it } from "vitest";
import { OrderStatus } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import type { RecordedEntry } from "../../src/log/log-entry.ts";
import { ORDER_TRACKING } from "../../src/projections/order-tracking.ts";
import type { OrderTrackingDocument } from "../../src/projections/order-tracking-document.ts";
import type { ProjectionWriter } from "../../src/projections/projection.ts";
import { go, item } from "../domain/order-fixtures.ts";
import { collect, type TestLog, testLog } from "../support/log.ts";
import { createOrderWriter, folded, orderIds, orderTracking, projected } from "./orders.ts";

describe("a writer of order_tracking", () => {
  it("does nothing to documents that are further than it is, and does not stop there", async () => {
    await using log = await testLog();
    await createOrderWriter(log.appender).appendLives(orderIds("o", 10));
    const entries = await collect(log.reader.readForward({ after: 0 }));
    await write(await writerOf(log), entries);
    const complete = await log.db.collection(ORDER_TRACKING).find().toArray();
    for (const count of [5, 40, 105]) {
      await write(await writerOf(log), entries.slice(0, count));
      expect(await log.db.collection(ORDER_TRACKING).find().toArray()).toEqual(complete);
    }
    await log.db.collection(ORDER_TRACKING).deleteOne({ order_id: "o-3" });
    const late = await writerOf(log);
    await write(late, entries.slice(0, 50));
    await write(late, entries.slice(50));
    expect(await projected(log.db)).toEqual(await folded(log.reader));
  });

  it("writes whole what it finds older than it left it, as after a restored backup", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    await orders.appendLives(orderIds("o", 3), 6);
    const entries = await collect(log.reader.readForward({ after: 0 }));
    const writer = await writerOf(log);
    const documents = log.db.collection<OrderTrackingDocument>(ORDER_TRACKING);
    await write(writer, entries.slice(0, 6));
    const old = await documents.findOne({ order_id: "o-1" });
    await write(writer, entries.slice(6, -1));
    if (old) await documents.replaceOne({ order_id: "o-1" }, old);
    await orders.append("o-1", { type: "CancelOrder", reason: "late" });
    await write(writer, await collect(log.reader.readForward({ after: entries.length - 1 })));
    expect(await projected(log.db)).toEqual(await folded(log.reader));
  });

  it("agrees with others that write the same entries at the same time", async () => {
    await using log = await testLog();
    await createOrderWriter(log.appender).appendLives(orderIds("o", 40));
    const entries = await collect(log.reader.readForward({ after: 0 }));
    await Promise.all([7, 50, 13, 50].map(async (size) => write(await writerOf(log), entries, size)));
    expect(await projected(log.db)).toEqual(await folded(log.reader));
  });

  it("keeps only so much in memory: what is too much goes to the copy, and comes back when it is needed", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    const items = Array.from({ length: 150 }, (_, n) => item(`item-${n}`));
    const ids = orderIds("o", 200);
    for (const orderId of ids) await orders.submit({ orderId, items });
    for (const orderId of ids) await orders.append(orderId, go(OrderStatus.STORE_NOTIFIED));
    const entries = await collect(log.reader.readForward({ after: 0 }));
    const writer = await writerOf(log);
    for (let from = 0; from < entries.length; from += 100) await writer.apply(entries.slice(from, from + 100));
    const written = await log.db.collection(ORDER_TRACKING).countDocuments();
    expect(written).toBeGreaterThan(30);
    expect(written).toBeLessThanOrEqual(200);
    await writer.flush();
    expect(await projected(log.db)).toEqual(await folded(log.reader));
  });
});

async function writerOf(log: TestLog): Promise<ProjectionWriter> {
  const projection = orderTracking(log.db, log.reader);
  await log.db.collection(ORDER_TRACKING).createIndexes([{ ...projection.keyIndex }]);
  return projection.open(ORDER_TRACKING, { trusted: true });
}

async function write(writer: ProjectionWriter, entries: readonly RecordedEntry[], batchSize = entries.length): Promise<void> {
  for (let from = 0; from < entries.length; from += batchSize) {
    await writer.apply(entries.slice(from, from + batchSize));
    await writer.flush();
  }
}
