import { describe, expect, it } from "vitest";
import { createCourierJobs } from "../../src/projections/courier-jobs.ts";
import { CHECKOUT, CLERK, startDelivering } from "../support/delivering.ts";
import { eventually } from "../support/eventually.ts";
import { testDatabase } from "../support/mongo.ts";

const kim = { driverId: "kim-1", name: "Kim", phone: "+4930999999", vehicleType: "bicycle", photoUrl: "" };

describe("a delivery of which no webhook tells", () => {
  it("is asked for when nothing has been heard of it for a while, by a clock moved by hand", async () => {
    let ahead = 0;
    await using test = await startDelivering({}, () => new Date(Date.now() + ahead));
    const order = async () => (await test.app.rest(CHECKOUT, "GET", "/orders/tracking/o-1")).body;
    await test.order("o-1");
    await test.app.rest(CLERK, "POST", "/orders/tracking/o-1/delivery", { delivery_provider: "UBER" });
    test.uber.move("o-1/1", "ON_THE_WAY", { courier: kim });
    ahead += 170_000;
    expect(test.uber.calls["get"]).toBeUndefined();
    expect((await order()).current_status).toBe("READY_FOR_PICKUP");
    ahead += 40_000;
    await eventually(async () =>
      expect(await order()).toMatchObject({ current_status: "IN_TRANSIT", driver_details: { driver_id: "kim-1" } }),
    );
    expect((await test.history("o-1")).slice(-3)).toEqual(["DriverAssigned", "DriverPickupCompleted", "TransitStarted"]);
    // Heard of just now: it is left alone until it has been quiet for as long again.
    const asked = test.uber.calls["get"];
    test.uber.move("o-1/1", "DELIVERED");
    ahead += 170_000;
    expect(test.uber.calls["get"]).toBe(asked);
    ahead += 40_000;
    await eventually(async () => expect((await order()).current_status).toBe("DELIVERED"));
  });

  it("loses its courier when the provider looks for another", async () => {
    let ahead = 0;
    await using test = await startDelivering({}, () => new Date(Date.now() + ahead));
    await test.order("o-1");
    await test.app.rest(CLERK, "POST", "/orders/tracking/o-1/delivery", { delivery_provider: "UBER" });
    await test.webhook("uber", test.uber.move("o-1/1", "ASSIGNED", { courier: kim }));
    const late = test.uber.move("o-1/1", "REQUESTED");
    // A webhook may be late, so it takes nobody off; asked, the provider says how things stand.
    expect(await test.webhook("uber", late)).toBe(200);
    const order = async () => (await test.app.rest(CHECKOUT, "GET", "/orders/tracking/o-1")).body;
    expect((await order()).current_status).toBe("DRIVER_ASSIGNED");
    ahead += 190_000;
    await eventually(async () => expect((await order()).current_status).toBe("READY_FOR_PICKUP"));
    await test.webhook("uber", test.uber.move("o-1/1", "ASSIGNED", { courier: { ...kim, driverId: "lee-1" } }));
    expect(await order()).toMatchObject({
      current_status: "DRIVER_ASSIGNED",
      delivery: { state: "ACCEPTED", provider_delivery_id: "uber-1" },
    });
  });
});

describe("a job to be followed up", () => {
  it("is claimed by one of many, and again after a while", async () => {
    await using database = await testDatabase();
    const jobs = createCourierJobs(database.db);
    const at = (seconds: number) => new Date(1_800_000_000_000 + seconds * 1000);
    const claims = () => Promise.all(Array.from({ length: 10 }, () => jobs.claim("o-1", at(0), at(15))));
    expect((await claims()).filter(Boolean)).toHaveLength(1);
    expect(await jobs.claim("o-1", at(14), at(29))).toBe(false);
    expect(await jobs.claim("o-1", at(15), at(30))).toBe(true);
  });
});
