import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Db } from "mongodb";
import { describe, expect, it } from "vitest";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { AuditService } from "../../src/gen/ordertrail/v1/audit_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { soon } from "../projections/orders.ts";
import { startTestApp, type TestApp, type TestCaller } from "../support/app.ts";
import { type Dump, dumpOf, restore } from "../support/dump.ts";
import { eventually } from "../support/eventually.ts";
import { testDatabase } from "../support/mongo.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { openPrivacy } from "./privacy-parts.ts";

const SERVICE: TestCaller = { role: Role.SERVICE, subject: "checkout" };
const OPERATOR: TestCaller = { role: Role.OPERATOR, subject: "operator-1" };
const recipient = { name: "Ada Example" };

describe("restoring a backup of before an erasure", () => {
  it.each(["the whole database", "the keys alone"])("does not bring the person back: %s", async (what) => {
    await using database = await testDatabase();
    await using folder = await temporaryFolder();
    const environment = { DATABASE_NAME: database.name, DATA_DIR: folder.path };
    let dump: Dump;
    {
      await using app = await startKept(environment);
      const { tracking, audit } = clientsOf(app);
      await tracking.initTracking({ orderId: "one", storeId: "s", customerId: "ada", recipient });
      await tracking.initTracking({ orderId: "two", storeId: "s", customerId: "bob", recipient });
      dump = await dumpOf(database.db);
      expect((await audit.eraseCustomer({ customerId: "ada", includeOrdersUnderWay: true })).receipt?.position).toBe(3n);
    }
    expect(await readFile(join(folder.path, "erasures.ndjson"), "utf8")).toContain('"customer-ada"');
    await restore(database.db, what === "the keys alone" ? new Map([...dump].filter(([name]) => name === "personal_keys")) : dump);
    expect(await database.db.collection("personal_keys").countDocuments({ person: "customer-ada" })).toBe(1);

    await using app = await startKept(environment);
    const { tracking, audit } = clientsOf(app);
    expect((await tracking.getTracking({ orderId: "one" })).order?.recipient).toBeUndefined();
    expect((await tracking.getTracking({ orderId: "two" })).order?.recipient).toMatchObject(recipient);
    const lines = app.log.map((line) => JSON.parse(line)).filter(({ msg }) => msg.includes("erased again"));
    expect(lines).toMatchObject([{ level: "warn", person: "customer-ada" }]);

    const { erasure } = await eventually(async () => {
      const exported = await audit.exportCustomerData({ customerId: "ada" });
      expect(exported.erasure).toBeDefined();
      return exported;
    });
    expect(erasure).toMatchObject({ requestedBy: { role: Role.OPERATOR, subject: "operator-1" }, position: 3n, orders: 1n });
    expect(await database.db.collection("events").find({ stream: "customer-ada" }).toArray()).toMatchObject([
      { _id: 3, version: 1, types: ["CustomerErased"] },
    ]);
  });

  it.each(["the whole database", "the keys alone"])("is noticed by a process that runs on: %s", { timeout: 150_000 }, async (what) => {
    await using database = await testDatabase();
    await using folder = await temporaryFolder();
    const environment = { DATABASE_NAME: database.name, DATA_DIR: folder.path };
    const whole = what === "the whole database";
    {
      await using app = await startKept(environment);
      const { tracking, audit } = clientsOf(app);
      await tracking.initTracking({ orderId: "one", storeId: "s", customerId: "ada", recipient });
      await tracking.initTracking({ orderId: "two", storeId: "s", customerId: "bob", recipient });
      const dump = await dumpOf(database.db);
      await audit.eraseCustomer({ customerId: "ada", includeOrdersUnderWay: true });
      if (!whole) await erasedLongAgo(database.db, folder.path);
      for (let time = 1; time <= (whole ? 2 : 1); time++) {
        const before = app.log.length;
        // Collection after collection: of the whole it may be noticed more than once that something is missing.
        await restore(database.db, whole ? dump : new Map([...dump].filter(([name]) => name === "personal_keys")));
        await eventually(async () => {
          expect(app.log.slice(before).join("")).toContain("erased again");
          expect(await database.db.collection("personal_keys").distinct("person")).toEqual(["customer-bob"]);
        }, 60_000);
        expect((await tracking.getTracking({ orderId: "one" })).order?.recipient).toBeUndefined();
        expect((await tracking.getTracking({ orderId: "two" })).order?.recipient).toMatchObject(recipient);
        await eventually(() => expect(app.log.slice(before).join("")).toContain("start every process anew"));
      }
    }
    await using app = await startKept(environment);
    expect(app.log.filter((line) => line.includes("erased again"))).toEqual([]);
    await eventually(async () =>
      expect((await clientsOf(app).audit.exportCustomerData({ customerId: "ada" })).erasure).toMatchObject({ position: 3n }),
    );
  });

  it("is noticed of each of many people, in turns", async () => {
    await using database = await testDatabase();
    await using folder = await temporaryFolder();
    const { client, db } = database;
    const people = Array.from({ length: 600 }, (_, n) => `customer-${n}`);
    const last = "customer-599";
    await using first = await openPrivacy(client, db, { folder: folder.path, masterKeys: MASTER_KEYS });
    expect(await first.keys.seal(last, Buffer.from("Ada"), "order-1/note")).toBeDefined();
    const requested = { requested_at: new Date(Date.now() + 60_000), requested_by: { role: Role.OPERATOR, subject: "o" } };
    const lines = people.map((person) => JSON.stringify({ person, ...requested }));
    await writeFile(join(folder.path, "erasures.ndjson"), lines.join("\n"));
    await using next = await openPrivacy(client, db, { folder: folder.path, masterKeys: MASTER_KEYS });
    const erasures = db.collection<{ _id: string }>("erasures");
    const done = { ...requested, door: 1, request_id: "", correlation_id: "", key_ids: [], places: {}, done_at: new Date(), orders: 0 };
    await erasures.insertMany(people.map((_id) => ({ _id, ...done, changed_at: new Date(0), position: 1 })));
    expect(await next.erasures.finish(soon())).toBe(0);
    expect(await next.erasures.finish(soon())).toBe(1);
    expect(next.said.filter((line) => line.includes("erased again"))).toEqual([expect.stringContaining(last)]);
    expect(await db.collection("personal_keys").countDocuments()).toBe(0);
  });

  it("is told of once: the next start finds nobody", async () => {
    await using database = await testDatabase();
    await using folder = await temporaryFolder();
    const environment = { DATABASE_NAME: database.name, DATA_DIR: folder.path };
    {
      await using app = await startKept(environment);
      await clientsOf(app).audit.eraseCustomer({ customerId: "ada" });
    }
    await database.db.dropDatabase();
    for (const found of [1, 0]) {
      await using app = await startKept(environment);
      expect(app.log.filter((line) => line.includes("erased again"))).toHaveLength(found);
      await eventually(async () =>
        expect((await clientsOf(app).audit.exportCustomerData({ customerId: "ada" })).erasure).toMatchObject({ position: 1n }),
      );
    }
  });
});

describe("an erasure in one process", () => {
  it("is learnt of by the others in seconds: they forget the keys, and keep it in their own files", async () => {
    await using database = await testDatabase();
    await using folders = new AsyncDisposableStack();
    const start = async () => {
      const folder = folders.use(await temporaryFolder());
      return { app: folders.use(await startKept({ DATABASE_NAME: database.name, DATA_DIR: folder.path, MASTER_KEYS })), folder };
    };
    const [one, other] = [await start(), await start()];
    await clientsOf(one.app).tracking.initTracking({ orderId: "one", storeId: "s", customerId: "ada", recipient });
    expect((await clientsOf(other.app).tracking.getTracking({ orderId: "one" })).order?.recipient).toMatchObject(recipient);
    await clientsOf(one.app).audit.eraseCustomer({ customerId: "ada", includeOrdersUnderWay: true });
    await eventually(async () => {
      expect((await clientsOf(other.app).tracking.getTracking({ orderId: "one" })).order?.recipient).toBeUndefined();
      expect(await readFile(join(other.folder.path, "erasures.ndjson"), "utf8")).toContain('"customer-ada"');
    }, 5000);
    await expect(
      clientsOf(other.app).tracking.initTracking({ orderId: "two", storeId: "s", customerId: "ada", recipient }),
    ).rejects.toThrow("has been erased");
  });
});

const MASTER_KEYS = Buffer.alloc(32, 9).toString("base64");

/** The application on a database that outlives it. */
function startKept(environment: NodeJS.ProcessEnv): Promise<TestApp> {
  return startTestApp(environment);
}

/**
 * Has an erasure look as if it were long ago, and waits until the process knows. Keys of those who were erased in the last
 * seconds go without a word, for they may have been made meanwhile.
 */
async function erasedLongAgo(db: Db, folder: string): Promise<void> {
  const erasures = db.collection<{ _id: string; changed_at: Date }>("erasures");
  const erasure = await erasures.findOneAndUpdate({ _id: "customer-ada" }, { $set: { changed_at: new Date(0) } });
  if (!erasure) throw new Error("nobody has been erased");
  await erasures.insertOne({ ...erasure, _id: "customer-carol" });
  await eventually(async () => expect(await readFile(join(folder, "erasures.ndjson"), "utf8")).toContain("customer-carol"));
}

function clientsOf(app: TestApp) {
  return { tracking: app.client(OrderTrackingService, "grpc", SERVICE), audit: app.client(AuditService, "grpc", OPERATOR) };
}
