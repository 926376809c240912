import { fromBinary } from "@bufbuild/protobuf";
import { BSON } from "mongodb";
import { describe, expect, it } from "vitest";
import { LogEntrySchema } from "../../src/gen/ordertrail/events/v1/log_entry_pb.js";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { AuditService } from "../../src/gen/ordertrail/v1/audit_service_pb.js";
import { AuthService } from "../../src/gen/ordertrail/v1/auth_service_pb.js";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { startTestApp, type TestApp, type TestCaller } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { testDatabase } from "../support/mongo.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { ORIGIN, openPrivacy } from "./privacy-parts.ts";

const SERVICE: TestCaller = { role: Role.SERVICE, subject: "checkout" };
const OPERATOR: TestCaller = { role: Role.OPERATOR, subject: "operator-1" };
const recipient = { name: "Ada Example", phone: "+4930123456" };
const WORDS = "Ada moved, call +4930555";

describe("erasing a customer", () => {
  it("takes the personal data of their orders, and of nobody else's, and says so in log, receipt and export", async () => {
    await using app = await startTestApp();
    const { tracking, audit } = clientsOf(app);
    for (const [orderId, customerId] of [
      ["one", "ada"],
      ["two", "ada"],
      ["three", "bob"],
    ] as const) {
      await tracking.initTracking({ orderId, storeId: "s", customerId, recipient });
      await tracking.cancelOrder({ orderId, reason: "sold out" });
    }
    const { receipt } = await audit.eraseCustomer({ customerId: "ada", requestId: "forget-ada" });
    expect(receipt).toMatchObject({
      customerId: "ada",
      requestedBy: { role: Role.OPERATOR, subject: "operator-1" },
      position: 7n,
      keysDestroyed: 1,
      orders: 2n,
      places: [
        { place: "contact_index", documents: 0n },
        { place: "driver_locations", documents: 0n },
        { place: "order_tracking", documents: 0n },
        { place: "tracking_links", documents: 0n },
      ],
    });

    for (const orderId of ["one", "two"]) {
      const { order } = await tracking.getTracking({ orderId });
      expect(order).toMatchObject({ customerId: "ada", currentStatus: 11, cancellation: { reason: "sold out" } });
      expect(order?.recipient).toBeUndefined();
    }
    expect((await tracking.getTracking({ orderId: "three" })).order?.recipient).toMatchObject(recipient);
    expect((await tracking.listTrackings({ customerId: "ada" })).orders).toHaveLength(2);

    const entry = await app.database.db(app.databaseName).collection("events").findOne({ stream: "customer-ada" });
    expect(entry).toMatchObject({ _id: 7, version: 1, types: ["CustomerErased"] });
    expect(fromBinary(LogEntrySchema, entry?.["body"].value()).origin).toMatchObject({ address: "127.0.0.1" });

    const again = await app.rest(SERVICE, "POST", "/privacy/customers/ada/erase", {});
    expect(again).toMatchObject({ status: 200, body: { receipt: { customer_id: "ada", position: "7", orders: "2" } } });
    const exported = await audit.exportCustomerData({ customerId: "ada" });
    expect(exported.erasure).toEqual(receipt);
    expect(exported.orders.map(({ order }) => order?.recipient)).toEqual([undefined, undefined]);
    await expectProjectionRight(app);
  });

  it.each([
    ["CancelOrder", "POST", "cancel", { reason: WORDS }],
    ["UpdateStatus", "PUT", "status", { status: "CANCELLED", note: WORDS }],
  ])(
    "takes the words in which they called an order off by %s; until then those who may see the recipient read them",
    async (_, method, path, body) => {
      await using app = await startTestApp();
      const { tracking, audit } = clientsOf(app);
      const ada: TestCaller = { role: Role.CUSTOMER, subject: "ada" };
      await tracking.initTracking({ orderId: "one", storeId: "s", customerId: "ada", recipient });
      const { body: cancelled } = await app.rest(ada, method, `/orders/tracking/one/${path}`, body);
      expect(cancelled.order.cancellation).toMatchObject({ reason: WORDS, actor: { role: "CUSTOMER", subject: "ada" } });
      const shown = async (caller: TestCaller) => {
        const reader = app.client(OrderTrackingService, "grpc", caller);
        const { order } = await reader.getTracking({ orderId: "one" });
        const { events } = await reader.getHistory({ orderId: "one" });
        return [order?.cancellation?.reason, order?.statusHistory.at(-1)?.note, events.at(-1)?.note];
      };
      for (const caller of [ada, SERVICE, { role: Role.STORE, subject: "clerk", storeId: "s" }])
        expect(await shown(caller)).toEqual([WORDS, WORDS, WORDS]);
      expect(await shown({ role: Role.AUDITOR, subject: "a" })).toEqual(["", "", ""]);
      const [listed] = (await tracking.listTrackings({ customerId: "ada", minPosition: 2n })).orders;
      expect(listed?.cancellation?.reason).toBe(WORDS);
      const db = app.database.db(app.databaseName);
      for (const name of ["events", "order_tracking"])
        for await (const document of db.collection(name).find()) expect(Buffer.from(BSON.serialize(document)).includes(WORDS)).toBe(false);

      await audit.eraseCustomer({ customerId: "ada" });
      for (const caller of [ada, SERVICE]) expect(await shown(caller)).toEqual(["", "", ""]);
      await expectProjectionRight(app);
    },
  );

  it("is refused while orders are under way, naming them, unless these are to be erased, too; they go on without personal data", async () => {
    await using app = await startTestApp();
    const { tracking, audit } = clientsOf(app);
    await tracking.initTracking({ orderId: "one", storeId: "s", customerId: "ada", recipient });
    await expect(audit.eraseCustomer({ customerId: "ada" })).rejects.toThrow(/under way \(one\).*include_orders_under_way/);
    const refused = await app.rest(OPERATOR, "POST", "/privacy/customers/ada/erase");
    expect(refused).toMatchObject({ status: 409, body: { code: "CUSTOMER_HAS_ORDERS_UNDER_WAY" } });

    const { receipt } = await audit.eraseCustomer({ customerId: "ada", includeOrdersUnderWay: true });
    expect(receipt).toMatchObject({ keysDestroyed: 1, orders: 1n });
    const { order } = await tracking.updateStatus({ orderId: "one", status: 2, note: "third floor" });
    expect(order?.statusHistory.at(-1)).toMatchObject({ status: 2, note: "" });
    await expect(tracking.initTracking({ orderId: "two", storeId: "s", customerId: "ada", recipient })).rejects.toThrow(
      "customer ada has been erased",
    );
    await tracking.initTracking({ orderId: "three", storeId: "s", customerId: "ada" });
    expect(await app.database.db(app.databaseName).collection("personal_keys").countDocuments()).toBe(0);
    await expectProjectionRight(app);
  });

  it("revokes the tracking links of their orders, whoever made them, and no others, and lets none be made any more", async () => {
    await using app = await startTestApp();
    const { tracking, audit } = clientsOf(app);
    await tracking.initTracking({ orderId: "one", storeId: "s", customerId: "ada", recipient });
    await tracking.initTracking({ orderId: "two", storeId: "s", customerId: "bob", recipient });
    const ada = app.client(AuthService, "grpc", { role: Role.CUSTOMER, subject: "ada" });
    const service = app.client(AuthService, "grpc", SERVICE);
    const own = await ada.createTrackingLink({ orderId: "one" });
    const others = await service.createTrackingLink({ orderId: "one" });
    const elsewhere = await service.createTrackingLink({ orderId: "two" });
    const answers = async () => {
      const read = async (token: string, orderId: string) => (await app.rest(token, "GET", `/orders/tracking/${orderId}`)).status;
      return await Promise.all([read(own.token, "one"), read(others.token, "one"), read(elsewhere.token, "two")]);
    };
    expect(await answers()).toEqual([200, 200, 200]);

    const { receipt } = await audit.eraseCustomer({ customerId: "ada", includeOrdersUnderWay: true });
    expect(receipt?.places).toContainEqual(expect.objectContaining({ place: "tracking_links", documents: 2n }));
    expect(await answers()).toEqual([401, 401, 200]);
    const kept = app.database.db(app.databaseName).collection("tracking_links");
    expect(await kept.distinct("order_id")).toEqual(["two"]);
    for (const client of [ada, service])
      await expect(client.createTrackingLink({ orderId: "one" })).rejects.toThrow("customer ada has been erased: no links");
    expect(await kept.distinct("order_id")).toEqual(["two"]);
    expect((await service.createTrackingLink({ orderId: "two" })).token).not.toBe("");
  });

  it("answers a request_id of before the erasure with its first answer, without the personal data", async () => {
    await using app = await startTestApp();
    const { tracking, audit } = clientsOf(app);
    const request = { orderId: "one", storeId: "s", customerId: "ada", recipient, requestId: "r-1" };
    await tracking.initTracking(request);
    await audit.eraseCustomer({ customerId: "ada", includeOrdersUnderWay: true });
    const { order } = await tracking.initTracking(request);
    expect(order).toMatchObject({ orderId: "one", version: 1 });
    expect(order?.recipient).toBeUndefined();
  });

  it("of whom nothing is known leaves a receipt, too: they cannot come later", async () => {
    await using app = await startTestApp();
    const { tracking, audit } = clientsOf(app);
    expect((await audit.eraseCustomer({ customerId: "nobody" })).receipt).toMatchObject({ keysDestroyed: 0, orders: 0n, position: 1n });
    await expect(tracking.initTracking({ orderId: "one", storeId: "s", customerId: "nobody", recipient })).rejects.toThrow("erased");
  });
});

describe("erasing a driver", () => {
  it("takes their personal data from every order, records it in a stream of theirs, and takes none any more", async () => {
    await using app = await startTestApp({ MASTER_KEYS });
    await using folder = await temporaryFolder();
    const { tracking } = clientsOf(app);
    const driverDetails = { driverId: "kim", name: "Kim", phone: "+4930654321", vehicleType: "bicycle" };
    for (const orderId of ["one", "two"]) {
      await tracking.initTracking({ orderId, storeId: "s", customerId: "ada", recipient });
      await tracking.assignDriver({ orderId, driverDetails });
    }
    const db = app.database.db(app.databaseName);
    await using privacy = await openPrivacy(app.database, db, { folder: folder.path, masterKeys: MASTER_KEYS });
    expect(await privacy.erasures.erase("driver-kim", ORIGIN)).toMatchObject({ keysDestroyed: 1, orders: 2, position: 5 });
    expect(await db.collection("events").findOne({ stream: "driver-kim" })).toMatchObject({ types: ["DriverErased"] });
    await eventually(async () => {
      const { order } = await tracking.getTracking({ orderId: "one" });
      expect(order?.driverDetails).toMatchObject({ driverId: "kim", vehicleType: "bicycle", name: "", phone: "" });
      expect(order?.recipient).toMatchObject(recipient);
    });
    const { order } = await tracking.assignDriver({ orderId: "one", driverDetails });
    expect(order?.driverDetails).toMatchObject({ driverId: "kim", name: "" });
    expect(await db.collection("personal_keys").distinct("person")).toEqual(["customer-ada"]);
    await expectProjectionRight(app);
  });
});

describe("orders that come while their customer is being erased", () => {
  it("are refused once it is done, and what was taken before can be read by nobody", async () => {
    await using database = await testDatabase();
    await using folder = await temporaryFolder();
    const environment = { DATABASE_NAME: database.name, DATA_DIR: folder.path };
    await using one = await startTestApp(environment);
    await using other = await startTestApp(environment);
    let done = false;
    const taken: string[] = [];
    const refused: string[] = [];
    const submitting = [one, other].flatMap((app, process) =>
      Array.from({ length: 8 }, async (_, lane) => {
        const { tracking } = clientsOf(app);
        for (let n = 0; ; n++) {
          const wasDone = done;
          const orderId = `o-${process}-${lane}-${n}`;
          const outcome = await tracking.initTracking({ orderId, storeId: "s", customerId: "ada", recipient }).then(
            () => "taken",
            (error: unknown) => String(error),
          );
          if (outcome === "taken") taken.push(orderId);
          else refused.push(outcome);
          if (!wasDone) continue;
          expect(outcome).toContain("customer ada has been erased");
          break;
        }
      }),
    );
    await eventually(() => expect(taken.length).toBeGreaterThan(50));
    await clientsOf(one).audit.eraseCustomer({ customerId: "ada", includeOrdersUnderWay: true });
    done = true;
    await Promise.all(submitting);
    for (const reason of refused) expect(reason).toContain("customer ada has been erased");
    expect(await database.db.collection("personal_keys").countDocuments()).toBe(0);
    await eventually(async () => {
      for (const orderId of [taken[0], taken.at(-1)]) {
        for (const app of [one, other]) {
          expect((await clientsOf(app).tracking.getTracking({ orderId: orderId ?? "" })).order?.recipient).toBeUndefined();
        }
      }
    });
  });
});

const MASTER_KEYS = Buffer.alloc(32, 9).toString("base64");

function clientsOf(app: TestApp) {
  return { tracking: app.client(OrderTrackingService, "grpc", SERVICE), audit: app.client(AuditService, "grpc", OPERATOR) };
}

/** Verifies the projection as it is, rebuilds it, and verifies the rebuilt one. */
async function expectProjectionRight(app: TestApp): Promise<void> {
  const operations = app.client(OperationsService, "grpc", OPERATOR);
  const verify = async () => {
    let last: { readonly different: bigint; readonly done: boolean } | undefined;
    for await (const message of operations.verifyProjection({ name: "order_tracking" })) last = message;
    expect(last).toMatchObject({ different: 0n, done: true });
  };
  await verify();
  for await (const _ of operations.rebuildProjection({ name: "order_tracking" }));
  await verify();
}
