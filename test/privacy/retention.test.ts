import { randomBytes } from "node:crypto";
import type { Db } from "mongodb";
import { describe, expect, it } from "vitest";
import { Role, type Sealed } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { createKeyWrapper } from "../../src/privacy/key-wrapper.ts";
import { parseMasterKeys } from "../../src/privacy/master-key.ts";
import { createPersonalKeys } from "../../src/privacy/personal-keys.ts";
import { destroyExpiredKeys } from "../../src/privacy/retention.ts";
import { startTestApp, type TestCaller } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { testDatabase } from "../support/mongo.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const DAY_MS = 86_400_000;
const START = Date.UTC(2030, 0, 1, 12);
const DAYS = 30;
const masterKeys = parseMasterKeys(randomBytes(32).toString("base64"));
const day = (n: number) => new Date(START + n * DAY_MS);

describe("retention", () => {
  it("destroys what was sealed for orders that ended long enough ago, a day after at the latest, and nothing else of the person", async () => {
    await using database = await testDatabase();
    const { db } = database;
    const old = await sealOn(db, 0, "customer-1");
    await anOrder(db, { customer_id: "1", created_at: day(0), updated_at: day(1), current_status: "DELIVERED" });
    const recent = await sealOn(db, 20, "customer-1");
    await anOrder(db, { customer_id: "1", created_at: day(20), updated_at: day(20), current_status: "CANCELLED" });
    expect(await run(db, DAYS)).toBe(0);
    expect(await run(db, DAYS + 0.9)).toBe(0);
    expect(await isOpen(db, old)).toBe(true);
    expect(await run(db, DAYS + 1.6)).toBe(1);
    expect(await isOpen(db, old)).toBe(false);
    expect(await isOpen(db, recent)).toBe(true);
    expect(await run(db, 20 + DAYS + 1.1)).toBe(1);
    expect(await isOpen(db, recent)).toBe(false);
  });

  it("keeps what an order needs that has not ended, however old it is, and for its driver, too", async () => {
    await using database = await testDatabase();
    const { db } = database;
    const recipient = await sealOn(db, 0, "customer-1");
    const driver = await sealOn(db, 0, "driver-1");
    await anOrder(db, {
      customer_id: "1",
      driver_details: { driver_id: "1" },
      created_at: day(0),
      updated_at: day(0),
      current_status: "IN_TRANSIT",
    });
    expect(await run(db, 400)).toBe(0);
    expect(await isOpen(db, recipient)).toBe(true);
    await db.collection("order_tracking").updateOne({}, { $set: { current_status: "DELIVERED", updated_at: day(400) } });
    expect(await run(db, 400 + DAYS - 1)).toBe(0);
    expect(await run(db, 400 + DAYS + 1)).toBe(2);
    expect([await isOpen(db, recipient), await isOpen(db, driver)]).toEqual([false, false]);
  });

  it("keeps a key of before keys were bound to days until every order of the person has ended long enough ago", async () => {
    await using database = await testDatabase();
    const { db } = database;
    await sealOn(db, 0, "customer-1");
    await db.collection("personal_keys").updateMany({}, { $set: { generation: 1 } });
    await anOrder(db, { customer_id: "1", created_at: day(0), updated_at: day(0), current_status: "DELIVERED" });
    await anOrder(db, { customer_id: "1", created_at: day(90), updated_at: day(90), current_status: "DELIVERED" });
    expect(await run(db, 100)).toBe(0);
    expect(await run(db, 90 + DAYS + 1)).toBe(1);
  });

  it("waits until the orders that are looked at are all there are", async () => {
    await using database = await testDatabase();
    const { db } = database;
    await sealOn(db, 0, "customer-1");
    const caughtUp = () => anOrder(db, { customer_id: "1", created_at: day(0), updated_at: day(0), current_status: "IN_TRANSIT" });
    expect(
      await destroyExpiredKeys({ db, days: DAYS, clock: () => day(100), caughtUp, forget: () => undefined }, AbortSignal.timeout(10_000)),
    ).toBe(0);
  });

  it("deals with many keys, and with two who do it at once", async () => {
    await using database = await testDatabase();
    const { db } = database;
    await Promise.all(Array.from({ length: 350 }, (_, n) => sealOn(db, n % 3, `customer-${n}`)));
    await anOrder(db, { customer_id: "7", created_at: day(0), updated_at: day(50), current_status: "DELIVERED" });
    const counts = await Promise.all([run(db, 60), run(db, 60)]);
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(349);
    expect(await db.collection("personal_keys").distinct("person")).toEqual(["customer-7"]);
  });
});

describe("an instance with RETENTION_DAYS", () => {
  it("destroys what has expired as soon as it runs, says how much, and shows the orders without it", async () => {
    await using database = await testDatabase();
    await using folder = await temporaryFolder();
    const environment = { DATABASE_NAME: database.name, DATA_DIR: folder.path };
    const recipient = { name: "Ada Example" };
    {
      await using app = await startTestApp(environment);
      const tracking = app.client(OrderTrackingService, "grpc", SERVICE);
      for (const customerId of ["ada", "bob"]) {
        await tracking.initTracking({ orderId: `of-${customerId}`, storeId: "s", customerId, recipient });
        await tracking.cancelOrder({ orderId: `of-${customerId}`, reason: "sold out" });
      }
      await eventually(async () => expect(await database.db.collection("order_tracking").countDocuments({ version: 2 })).toBe(2));
    }
    const longAgo = new Date(Date.now() - 100 * DAY_MS);
    await database.db
      .collection("order_tracking")
      .updateOne({ customer_id: "ada" }, { $set: { created_at: longAgo, updated_at: longAgo } });
    await database.db.collection("personal_keys").updateOne({ person: "customer-ada" }, { $inc: { generation: -100 } });

    await using app = await startTestApp({ ...environment, RETENTION_DAYS: "30" });
    const tracking = app.client(OrderTrackingService, "grpc", SERVICE);
    await eventually(() =>
      expect(app.log.filter((line) => line.includes('"retention_days":30') && line.includes('"keys":1'))).toHaveLength(1),
    );
    expect((await tracking.getTracking({ orderId: "of-ada" })).order?.recipient).toBeUndefined();
    expect((await tracking.getTracking({ orderId: "of-ada" })).order).toMatchObject({ customerId: "ada", currentStatus: 11 });
    expect((await tracking.getTracking({ orderId: "of-bob" })).order?.recipient).toMatchObject(recipient);
  });
});

const SERVICE: TestCaller = { role: Role.SERVICE, subject: "checkout" };

async function keysOn(db: Db, at: number) {
  const clock = () => day(at);
  return createPersonalKeys(db, await createKeyWrapper(() => masterKeys, clock), clock);
}

async function sealOn(db: Db, at: number, person: string): Promise<Sealed> {
  return (await (await keysOn(db, at)).seal(person, Buffer.from("Ada"), "order-1/note")) as Sealed;
}

async function isOpen(db: Db, sealed: Sealed): Promise<boolean> {
  return (await (await keysOn(db, 0)).open(sealed, "order-1/note")) !== undefined;
}

async function anOrder(db: Db, order: Record<string, unknown>): Promise<void> {
  await db.collection("order_tracking").insertOne(order);
}

function run(db: Db, at: number): Promise<number> {
  const caughtUp = () => Promise.resolve();
  return destroyExpiredKeys({ db, days: DAYS, clock: () => day(at), caughtUp, forget: () => undefined }, AbortSignal.timeout(20_000));
}
