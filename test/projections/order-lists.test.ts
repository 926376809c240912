import { describe, expect, it } from "vitest";
import { DeliveryProvider, OrderStatus } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { createOrderTrackings, ORDER_TRACKING, type OrderListing, type OrderTrackings } from "../../src/projections/order-tracking.ts";
import { type OrderDocument, toDocument } from "../../src/projections/order-tracking-document.ts";
import { testDatabase } from "../support/mongo.ts";

const EVERYTHING: OrderListing = { scope: {}, filters: {}, limit: 100 };

/** An order as a document; `minute` is when it was submitted. */
function order(orderId: string, minute: number, more: Partial<OrderDocument> = {}): OrderDocument & { driver_location: null } {
  const createdAt = new Date(Date.UTC(2026, 0, 1, 12, minute));
  const state = {
    orderId,
    storeId: "s-1",
    customerId: "c-1",
    status: OrderStatus.SUBMITTED,
    deliveryProvider: DeliveryProvider.UBER,
    createdAt,
    updatedAt: createdAt,
  };
  return {
    ...toDocument({
      state: { ...state, history: [], milestones: [], substitutions: [], items: [], lateReports: [], substitutionPolicy: 0 },
      version: 1,
      position: 1,
    }),
    ...more,
    driver_location: null,
  };
}

const driver = (driver_id: string) => ({ driver_details: { driver_id, vehicle_type: "", personal: null } });

const ORDERS = [
  order("a", 1),
  order("b", 3, { store_id: "s-2", current_status: "DELIVERED" }),
  order("c", 2, { customer_id: "c-2", delivery_provider: "DOORDASH", ...driver("d-1") }),
  order("d", 3, { current_status: "CANCELLED", ...driver("d-2") }),
  order("e", 3, { delivery_provider: null }),
];

async function idsOf(trackings: OrderTrackings, listing: Partial<OrderListing>): Promise<string> {
  return (await trackings.list({ ...EVERYTHING, ...listing })).map(({ state }) => state.orderId).join("");
}

describe("a list of orders", () => {
  it.each<[string, Partial<OrderListing>, string]>([
    ["all orders, newest first, those of one moment by their id", {}, "bdeca"],
    ["those of a store", { filters: { storeId: "s-2" } }, "b"],
    ["those of a customer", { filters: { customerId: "c-2" } }, "c"],
    ["those in any of several statuses", { filters: { statuses: [OrderStatus.DELIVERED, OrderStatus.CANCELLED] } }, "bd"],
    ["those of a provider", { filters: { deliveryProvider: DeliveryProvider.DOORDASH } }, "c"],
    ["those from a time on", { filters: { createdFrom: new Date(Date.UTC(2026, 0, 1, 12, 2)) } }, "bdec"],
    ["those before a time", { filters: { createdBefore: new Date(Date.UTC(2026, 0, 1, 12, 2)) } }, "a"],
    ["those in a customer's scope", { scope: { customerId: "c-1" } }, "bdea"],
    ["those in a store's scope", { scope: { storeId: "s-1" } }, "deca"],
    ["those in a driver's scope", { scope: { driverId: "d-1" } }, "c"],
    ["those in a provider's scope", { scope: { provider: DeliveryProvider.UBER } }, "bda"],
    ["those that scope and filter both allow", { scope: { storeId: "s-1" }, filters: { storeId: "s-2" } }, ""],
    ["as many as are wanted", { limit: 2 }, "bd"],
  ])("holds %s", async (_, listing, expected) => {
    await using database = await testDatabase();
    await database.db.collection(ORDER_TRACKING).insertMany(ORDERS.map((document) => ({ ...document })));
    expect(await idsOf(createOrderTrackings(database.db), listing)).toBe(expected);
  });

  it("goes on after any order, skipping none and repeating none, while newer ones arrive", async () => {
    await using database = await testDatabase();
    const orders = database.db.collection(ORDER_TRACKING);
    await orders.insertMany(ORDERS.map((document) => ({ ...document })));
    const trackings = createOrderTrackings(database.db);
    const seen: string[] = [];
    let after: OrderListing["after"];
    for (let page = 0; page < 10; page++) {
      const [found] = await trackings.list({ ...EVERYTHING, limit: 1, ...(after && { after }) });
      if (!found) break;
      seen.push(found.state.orderId);
      after = { createdAt: found.state.createdAt, orderId: found.state.orderId };
      await orders.insertOne(order(`new-${page}`, 10 + page));
    }
    expect(seen.join("")).toBe("bdeca");
  });
});
