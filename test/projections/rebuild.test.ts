import { describe, expect, it } from "vitest";
import { OrderStatus } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import type { LogReader } from "../../src/log/reader.ts";
import { checkpointsOf } from "../../src/projections/checkpoint.ts";
import { createDriverLocations } from "../../src/projections/driver-locations.ts";
import { createOrderTrackings, ORDER_TRACKING } from "../../src/projections/order-tracking.ts";
import { toSealedDocument } from "../../src/projections/order-tracking-document.ts";
import type { RebuildProgress } from "../../src/projections/projector.ts";
import { assign, go, sealed } from "../domain/order-fixtures.ts";
import { eventually } from "../support/eventually.ts";
import { testLog } from "../support/log.ts";
import { heldRebuild } from "./held-rebuild.ts";
import { createOrderWriter, folded, leftOvers, orderIds, orderTracking, projected, projectorOf, soon } from "./orders.ts";

describe("rebuilding a projection", () => {
  it("puts a copy made of the whole log in its place, and leaves nothing behind", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    await using projector = projectorOf(log);
    projector.start();
    const position = await orders.appendLives(orderIds("o", 30));
    await projector.waitFor(ORDER_TRACKING, position, soon());
    const trackings = log.db.collection(ORDER_TRACKING);
    await trackings.updateOne({ order_id: "o-1" }, { $set: { store_id: "tampered" } });
    await trackings.deleteOne({ order_id: "o-2" });
    await trackings.insertOne({ order_id: "invented" });

    const progress = await all(projector.rebuild(ORDER_TRACKING, soon()));

    expect(progress.at(-1)).toEqual({ position, target: position, done: true });
    expect(await projected(log.db)).toEqual(await folded(log.reader));
    expect(await leftOvers(log.db)).toEqual([]);
    expect((await trackings.indexes()).length).toBe(1 + 1 + orderTracking(log.db, log.reader).indexes.length);
  });

  it("goes on while orders are written, listed and waited for, and misses none of it", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    await using projector = projectorOf(log);
    const trackings = createOrderTrackings(log.db);
    projector.start();
    await projector.waitFor(ORDER_TRACKING, await orders.appendLives(orderIds("before", 100)), soon());
    let rebuilding = true;
    const rebuilds = (async () => {
      for (let round = 0; round < 3; round++) await all(projector.rebuild(ORDER_TRACKING, soon()));
      rebuilding = false;
    })();
    let written = 0;
    const write = async () => {
      while (rebuilding) {
        const id = `during-${written++}`;
        await projector.waitFor(ORDER_TRACKING, await orders.append(id, go(OrderStatus.STORE_NOTIFIED)), soon());
        const [found] = await trackings.list({ scope: {}, filters: {}, limit: 1 });
        expect(found?.state.orderId).toBe(id);
      }
    };
    const read = async () => {
      while (rebuilding) expect((await trackings.list({ scope: {}, filters: {}, limit: 1000 })).length).toBeGreaterThanOrEqual(100);
    };
    await Promise.all([rebuilds, write(), read(), read()]);
    await eventually(async () => expect(await projected(log.db)).toEqual(await folded(log.reader)));
    expect(written).toBeGreaterThan(3);
  });

  it("keeps where the drivers were last seen", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    const locations = createDriverLocations(log.db, ORDER_TRACKING);
    await using projector = projectorOf(log);
    projector.start();
    await projector.waitFor(ORDER_TRACKING, await orders.appendLives(["one"], 7), soon());
    await locations.record(new Map([["one", { place: sealed("here"), driverId: "d-1", recordedAt: new Date(1000) }]]));
    await all(projector.rebuild(ORDER_TRACKING, soon()));
    const document = await log.db.collection(ORDER_TRACKING).findOne({ order_id: "one" });
    expect(document?.["driver_location"]).toMatchObject({ place: toSealedDocument(sealed("here")) });
  });

  it("is one for all who ask at the same time", async () => {
    await using log = await testLog();
    await createOrderWriter(log.appender).appendLives(orderIds("o", 10));
    await using asking = projectorOf(log);
    await using running = projectorOf(log, { leaseMs: 300 });
    const asked = [0, 1, 2].map(() => all(asking.rebuild(ORDER_TRACKING, soon())));
    await eventually(async () => expect((await asking.states())[0]?.rebuilding).toBe(true));
    const { rebuild } = (await checkpointsOf(log.db).findOne({ _id: ORDER_TRACKING })) ?? {};
    running.start();
    for (const progress of await Promise.all(asked)) expect(progress.at(-1)?.done).toBe(true);
    expect(rebuild?.phase).toBe("requested");
    expect((await asking.states())[0]).toMatchObject({ rebuilding: false, lastError: "" });
  });

  it("has in its copy what comes in at the last moment", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    await using live = projectorOf(log);
    let written = 0;
    // Whenever the rebuild believes that it has read the whole log, the live collection gets one order more.
    const reader: LogReader = {
      ...log.reader,
      async *readForward(range) {
        yield* log.reader.readForward(range);
        if (range.to !== undefined) return;
        // A machine that was held up may cost the projector its lease: the next term can only begin when this reader lets go.
        const given = AbortSignal.any([soon(), ...(range.signal ? [range.signal] : [])]);
        await live.waitFor(ORDER_TRACKING, await orders.append(`late-${written++}`), given);
      },
    };
    await using projector = projectorOf({ db: log.db, reader });
    await orders.appendLives(orderIds("o", 10));
    projector.start();
    await all(projector.rebuild(ORDER_TRACKING, soon()));
    expect(written).toBeGreaterThan(1);
    expect(await projected(log.db)).toEqual(await folded(log.reader));
  });

  it("happens by itself when the code's revision is newer than the collection's; until then nothing is taken from that", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    const projection = orderTracking(log.db, log.reader);
    {
      await using old = projectorOf(log, { projection });
      old.start();
      await old.waitFor(ORDER_TRACKING, await orders.appendLives(orderIds("o", 10), 4), soon());
    }
    await log.db.collection(ORDER_TRACKING).updateMany({}, { $set: { store_id: "of the old format" } });
    const { reader, letGo } = heldRebuild(log.reader);
    await using next = projectorOf({ db: log.db, reader }, { projection: { ...projection, revision: projection.revision + 1 } });
    const position = await orders.append("o-1", assign("d-2"));
    next.start();
    await next.waitFor(ORDER_TRACKING, position, soon());
    const stores = (await projected(log.db)).map(({ store_id }) => store_id);
    expect(stores.filter((store) => store !== "of the old format")).toEqual(["store-7"]);

    letGo();
    await eventually(async () => expect(await projected(log.db)).toEqual(await folded(log.reader)));
    await eventually(async () =>
      expect((await checkpointsOf(log.db).findOne({ _id: ORDER_TRACKING }))?.revision).toBe(projection.revision + 1),
    );
  });

  it("drops copies that processes long gone have left", async () => {
    await using log = await testLog();
    await log.db.createCollection("order_tracking_rebuild_0123456789abcdef");
    await log.db.createCollection("order_tracking_verify_0123456789abcdef");
    await log.db.createCollection("order_tracking_of_somebody_else");
    await using projector = projectorOf(log);
    projector.start();
    await eventually(async () => expect(await leftOvers(log.db)).toEqual(["order_tracking_of_somebody_else"]));
  });
});

async function all(progress: AsyncIterable<RebuildProgress>): Promise<RebuildProgress[]> {
  const told: RebuildProgress[] = [];
  for await (const one of progress) told.push(one);
  return told;
}
