import { Code, ConnectError } from "@connectrpc/connect";
import { type Document, Long } from "mongodb";
import { describe, expect, it } from "vitest";
import { OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { AuditService } from "../../src/gen/ordertrail/v1/audit_service_pb.js";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { startTestApp, type TestApp, type TestCaller } from "../support/app.ts";

const SERVICE: TestCaller = { role: Role.SERVICE, subject: "checkout" };
const OPERATOR: TestCaller = { role: Role.OPERATOR, subject: "operator-1" };
const AUDITOR: TestCaller = { role: Role.AUDITOR, subject: "auditor-1" };
const LOST = { code: Code.DataLoss, rawMessage: expect.stringContaining("the log is damaged at position") };

describe("an order of which an entry is gone", () => {
  it("is shown to nobody as whole, and the others are as before", async () => {
    await using app = await startTestApp();
    await submit(app, "one");
    await submit(app, "two");
    await eventsOf(app).deleteOne({ _id: Long.fromNumber(2) } as Document);
    for (const door of ["grpc", "connect"] as const) {
      const audit = app.client(AuditService, door, AUDITOR);
      await expect(all(audit.replayOrder({ orderId: "one" }))).rejects.toMatchObject(LOST);
      await expect(all(audit.readLog({ stream: "order-one" }))).rejects.toMatchObject(LOST);
      await expect(all(audit.readLog({ stream: "order-one", types: ["StoreAcknowledged"] }))).rejects.toMatchObject(LOST);
      await expect(all(audit.readLog({}))).rejects.toMatchObject(LOST);
      await expect(audit.explainOrder({ orderId: "one" })).rejects.toMatchObject(LOST);
      await expect(audit.getInclusionProof({ entry: { case: "orderId", value: "one" } })).rejects.toMatchObject(LOST);
      const single = await audit.getInclusionProof({ entry: { case: "position", value: 2n } }).catch(ConnectError.from);
      expect(single).toMatchObject({ code: Code.DataLoss, rawMessage: "the log is damaged at position 2: there is no entry" });
      await expect(app.client(OrderTrackingService, door, OPERATOR).getHistory({ orderId: "one" })).rejects.toMatchObject(LOST);
      expect((await all(audit.replayOrder({ orderId: "two" }))).map(({ order }) => order?.version)).toEqual([1, 2, 3]);
    }
    const operations = app.client(OperationsService, "grpc", OPERATOR);
    await expect(all(operations.verifyProjection({ name: "order_tracking" }))).rejects.toMatchObject(LOST);
    const rest = await app.rest(OPERATOR, "GET", "/orders/tracking/one/history");
    expect(rest.status).toBe(500);
    expect(JSON.stringify(rest.body)).toContain("LOG_DAMAGED");
    expect(app.log.some((line) => line.includes('"level":"error"') && line.includes("the log is damaged at position 3"))).toBe(true);
  });

  it("takes no command from a process that has to read it, while another order does", async () => {
    await using app = await startTestApp();
    await submit(app, "one");
    await submit(app, "two");
    await eventsOf(app).deleteOne({ _id: Long.fromNumber(2) } as Document);
    await using other = await startTestApp({ DATABASE_NAME: app.databaseName, DATA_DIR: app.dataDir });
    const client = other.client(OrderTrackingService, "grpc", SERVICE);
    const cancel = (orderId: string) => client.cancelOrder({ orderId, reason: "closed" });
    const [one, two] = await Promise.allSettled([cancel("one"), cancel("two")]);
    expect(one).toMatchObject({ status: "rejected", reason: LOST });
    expect(two.status).toBe("fulfilled");
  });
});

const eventsOf = (app: TestApp) => app.database.db(app.databaseName).collection("events");

/** Three entries, which the projection has read when this returns: one that comes later to a log that is damaged stops before them. */
async function submit(app: TestApp, orderId: string): Promise<void> {
  const client = app.client(OrderTrackingService, "grpc", SERVICE);
  await client.initTracking({ orderId, storeId: "s", customerId: "c" });
  await client.updateStatus({ orderId, status: OrderStatus.STORE_NOTIFIED });
  const { order } = await client.updateStatus({ orderId, status: OrderStatus.STORE_ACKNOWLEDGED });
  await client.listTrackings({ minPosition: order?.position ?? 0n });
}

async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const found: Item[] = [];
  for await (const item of items) found.push(item);
  return found;
}
