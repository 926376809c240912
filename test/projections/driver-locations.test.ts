import { describe, expect, it } from "vitest";
import { OrderStatus } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { createDriverLocations } from "../../src/projections/driver-locations.ts";
import { ORDER_TRACKING } from "../../src/projections/order-tracking.ts";
import { toSealedDocument } from "../../src/projections/order-tracking-document.ts";
import { assign, deliver, go, sealed } from "../domain/order-fixtures.ts";
import { eventually } from "../support/eventually.ts";
import { type TestLog, testLog } from "../support/log.ts";
import { createOrderWriter, type OrderWriter, projectorOf, soon } from "./orders.ts";

const PLACE = sealed("here");
const at = (seconds: number) => ({ place: PLACE, driverId: "d-1", recordedAt: new Date(seconds * 1000) });

describe("the place of an order's driver", () => {
  it("is the newest by the device's time, in whatever order the points arrive", async () => {
    await using log = await testLog();
    const locations = createDriverLocations(log.db, ORDER_TRACKING);
    for (const seconds of [3, 1, 5, 5, 4]) await locations.record(new Map([["one", at(seconds)]]));
    expect(await locations.find("one")).toMatchObject({ recordedAt: at(5).recordedAt });
    expect(await locations.find("two")).toBeUndefined();
  });

  it("is the newest when many points arrive at once", async () => {
    await using log = await testLog();
    const locations = createDriverLocations(log.db, ORDER_TRACKING);
    await Promise.all(Array.from({ length: 30 }, (_, n) => locations.record(new Map([["one", at((n * 7) % 30)]]))));
    expect(await locations.find("one")).toMatchObject({ recordedAt: at(29).recordedAt });
  });

  it("is shown in order_tracking while a driver is on the way, through every change of the order", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    const locations = createDriverLocations(log.db, ORDER_TRACKING);
    await using projector = projectorOf(log);
    projector.start();
    await projector.waitFor(ORDER_TRACKING, await orders.appendLives(["one"], 7), soon());
    await locations.record(new Map([["one", { ...at(1), headingDeg: 90, speedMps: 4, accuracyM: 8 }]]));
    const place = toSealedDocument(PLACE);
    expect(await shown(log)).toMatchObject({ place, heading_deg: 90, speed_mps: 4, accuracy_m: 8, recorded_at: new Date(1000) });
    await projector.waitFor(ORDER_TRACKING, await orders.append("one", go(OrderStatus.DRIVER_PICKUP_COMPLETE)), soon());
    expect(await shown(log)).toMatchObject({ place });
  });

  it("is shown although it was reported before order_tracking knew of a driver, or of the order", async () => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    const locations = createDriverLocations(log.db, ORDER_TRACKING);
    await locations.record(new Map([["one", at(1)]]));
    await using projector = projectorOf(log);
    projector.start();
    await projector.waitFor(ORDER_TRACKING, await orders.appendLives(["one"], 7), soon());
    await eventually(async () => expect(await shown(log)).toMatchObject({ recorded_at: new Date(1000) }));
  });

  it.each<[string, (orders: OrderWriter) => Promise<number>]>([
    [
      "the order is delivered",
      (orders) => orders.append("one", go(OrderStatus.DRIVER_PICKUP_COMPLETE), go(OrderStatus.IN_TRANSIT), deliver()),
    ],
    ["the order is called off", (orders) => orders.append("one", { type: "CancelOrder", reason: "late" })],
    ["the driver is taken off it", (orders) => orders.append("one", go(OrderStatus.READY_FOR_PICKUP))],
    ["another driver is named", (orders) => orders.append("one", assign("d-2"))],
  ])("is forgotten when %s", async (_, happen) => {
    await using log = await testLog();
    const orders = createOrderWriter(log.appender);
    const locations = createDriverLocations(log.db, ORDER_TRACKING);
    await using projector = projectorOf(log);
    projector.start();
    await projector.waitFor(ORDER_TRACKING, await orders.appendLives(["one"], 7), soon());
    await locations.record(new Map([["one", at(1)]]));
    await projector.waitFor(ORDER_TRACKING, await happen(orders), soon());
    expect(await shown(log)).toBeNull();
    expect(await locations.find("one")).toBeUndefined();
  });
});

async function shown(log: TestLog): Promise<unknown> {
  return (await log.db.collection(ORDER_TRACKING).findOne({ order_id: "one" }))?.["driver_location"];
}
