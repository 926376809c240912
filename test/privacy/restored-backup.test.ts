import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { AuditService } from "../../src/gen/ordertrail/v1/audit_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { startTestApp, type TestApp, type TestCaller } from "../support/app.ts";
import { type Dump, dumpOf, restore } from "../support/dump.ts";
import { eventually } from "../support/eventually.ts";
import { testDatabase } from "../support/mongo.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

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

function clientsOf(app: TestApp) {
  return { tracking: app.client(OrderTrackingService, "grpc", SERVICE), audit: app.client(AuditService, "grpc", OPERATOR) };
}
