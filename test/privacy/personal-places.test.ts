import { describe, expect, it } from "vitest";
import { createPersonalPlaces } from "../../src/privacy/personal-places.ts";
import { testDatabase } from "../support/mongo.ts";

const COPY = "order_tracking_rebuild_0123456789abcdef";

describe("the places where something personal is held in the clear", () => {
  it("are counted and cleared for one person, in copies that are being built, too, and for nobody else", async () => {
    await using database = await testDatabase();
    const { db } = database;
    const points = db.collection<{ _id: string }>("driver_locations");
    const links = db.collection("tracking_links");
    for (const name of ["order_tracking", COPY]) {
      await db.collection(name).insertMany([
        { order_id: "one", customer_id: "ada", driver_details: { driver_id: "kim" }, driver_location: { latitude: 1 } },
        { order_id: "two", customer_id: "ada", driver_details: null, driver_location: null },
        { order_id: "three", customer_id: "bob", driver_details: { driver_id: "kim" }, driver_location: { latitude: 3 } },
      ]);
    }
    await points.insertMany([{ _id: "one" }, { _id: "three" }]);
    await links.insertMany(["one", "two", "three"].map((order_id) => ({ order_id, created_by: { role: "customer", subject: "ada" } })));
    const revoked: string[] = [];
    const places = createPersonalPlaces(db, async (orderIds) => {
      // They are still to be found.
      expect(await links.countDocuments({ order_id: { $in: [...orderIds] } })).toBe(revoked.length === 0 ? 2 : 0);
      revoked.push(...orderIds);
    });
    expect(await places.count("customer-ada")).toEqual({ contact_index: 0, driver_locations: 1, order_tracking: 1, tracking_links: 2 });
    expect([await places.countOrders("customer-ada"), await places.countOrders("driver-kim")]).toEqual([2, 2]);

    for (let time = 0; time < 2; time++) await places.remove("customer-ada");
    expect(await places.count("customer-ada")).toEqual({ contact_index: 0, driver_locations: 0, order_tracking: 0, tracking_links: 0 });
    expect(revoked).toEqual(["one", "two", "one", "two"]);
    expect(await links.distinct("order_id")).toEqual(["three"]);
    expect(await db.collection(COPY).distinct("order_id", { driver_location: { $ne: null } })).toEqual(["three"]);
    expect(await points.distinct("_id")).toEqual(["three"]);

    expect(await places.count("driver-kim")).toEqual({ contact_index: 0, driver_locations: 1, order_tracking: 1, tracking_links: 0 });
    await places.remove("driver-kim");
    expect(await points.countDocuments()).toBe(0);
    expect([revoked.length, await links.countDocuments()]).toEqual([4, 1]);
    expect(await places.count("store-1")).toEqual({ contact_index: 0, driver_locations: 0, order_tracking: 0, tracking_links: 0 });
  });
});
