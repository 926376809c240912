import { fromBinary, toJson } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { describe, expect, inject, it } from "vitest";
import { LogEntrySchema } from "../../src/gen/ordertrail/events/v1/log_entry_pb.js";
import { DeliveryProvider, Door, OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { AuditService, type ReadLogResponse, type RecordedEntry } from "../../src/gen/ordertrail/v1/audit_service_pb.js";
import { AuthService } from "../../src/gen/ordertrail/v1/auth_service_pb.js";
import { type OrderTracking, OrderTrackingSchema } from "../../src/gen/ordertrail/v1/order_tracking_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { EVENTS_COLLECTION, type StoredEvent } from "../../src/log/log-entry.ts";
import { type RpcDoor, startTestApp, type TestApp, type TestCaller } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { anEntry } from "../support/log.ts";
import { openLog } from "../support/open-log.ts";

const CHECKOUT: TestCaller = { role: Role.SERVICE, subject: "checkout" };
const CUSTOMER: TestCaller = { role: Role.CUSTOMER, subject: "customer-1" };
const STORE: TestCaller = { role: Role.STORE, subject: "clerk-1", storeId: "store-1" };
const DRIVER: TestCaller = { role: Role.DRIVER, subject: "driver-1" };
const AUDITOR: TestCaller = { role: Role.AUDITOR, subject: "auditor-1" };
const OPERATOR: TestCaller = { role: Role.OPERATOR, subject: "operator-1" };
const DOORS = ["grpc", "connect"] as const;

/** A whole life; the order after each command, as an operator saw it. */
async function liveLife(app: TestApp, orderId: string): Promise<OrderTracking[]> {
  const as = (caller: TestCaller, door: RpcDoor = "grpc") => app.client(OrderTrackingService, door, caller);
  const move = (caller: TestCaller, status: OrderStatus, note = "") => as(caller).updateStatus({ orderId, status, note });
  const party = { storeId: "store-1", customerId: "customer-1", deliveryProvider: DeliveryProvider.UBER };
  const substitution = { substitutionId: "s", originalItem: { itemId: "i", name: "n", quantity: 1 }, reason: "sold out" };
  const steps: readonly (() => Promise<unknown>)[] = [
    () => as(CHECKOUT).initTracking({ orderId, ...party, recipient: { name: "Ada Example", phone: "+4930123456" } }),
    () => move(CHECKOUT, OrderStatus.STORE_NOTIFIED),
    () => as(STORE, "connect").acknowledgeOrder({ orderId }),
    () => move(STORE, OrderStatus.PICKING_IN_PROGRESS, "counter 3"),
    () => as(CHECKOUT).updateSubstitutions({ orderId, substitutions: [substitution] }),
    () => as(CUSTOMER).resolveSubstitutions({ orderId, resolutions: [{ substitutionId: "s", approved: true }] }),
    () => as(CHECKOUT).assignDriver({ orderId, driverDetails: { driverId: "driver-1", name: "Kim" } }),
    () => move(STORE, OrderStatus.READY_FOR_PICKUP),
    () => move(DRIVER, OrderStatus.DRIVER_PICKUP_COMPLETE),
    () => as(DRIVER).markDelivered({ orderId, proofOfDelivery: { recipientName: "Ada Example" } }),
  ];
  const shown: OrderTracking[] = [];
  for (const take of steps) {
    await take();
    shown.push((await as(OPERATOR).getTracking({ orderId })).order as OrderTracking);
  }
  return shown;
}

async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const found: Item[] = [];
  for await (const item of items) found.push(item);
  return found;
}

const entriesOf = (messages: readonly ReadLogResponse[]): RecordedEntry[] => messages.flatMap(({ entries }) => entries);
const positionsOf = (messages: readonly ReadLogResponse[]) => entriesOf(messages).map(({ position }) => Number(position));
const decode = ({ body }: RecordedEntry) => fromBinary(LogEntrySchema, body);

describe.each(DOORS)("AuditService/ReadLog over %s", (door) => {
  it("gives the bytes that are stored, in order, by every filter", async () => {
    await using app = await startTestApp();
    await liveLife(app, "one");
    await liveLife(app, "two");
    const audit = app.client(AuditService, door, AUDITOR);
    const messages = await all(audit.readLog({}));
    const stored = await app.database.db(app.databaseName).collection<StoredEvent>(EVENTS_COLLECTION).find().sort({ _id: 1 }).toArray();
    const read = entriesOf(messages);
    expect(read.map(({ position }) => Number(position))).toEqual(stored.map(({ _id }) => Number(_id)));
    expect(read.map(({ body }) => Buffer.from(body).toString("hex"))).toEqual(
      stored.map(({ body }) => Buffer.from(body.value()).toString("hex")),
    );
    expect(messages.at(-1)).toMatchObject({ position: BigInt(stored.length), target: BigInt(stored.length) });
    expect(Buffer.concat(read.map(({ body }) => body)).toString("latin1")).not.toContain("Ada Example");

    const at = (position: number) => timestampMs(decode(read[position - 1] as RecordedEntry).recordedAt ?? timestampFromMs(0));
    const matching = (matches: (entry: ReturnType<typeof decode>) => boolean) =>
      read.filter((entry) => matches(decode(entry))).map(({ position }) => Number(position));
    const readBy = async (request: Parameters<typeof audit.readLog>[0]) => positionsOf(await all(audit.readLog(request)));
    expect(await readBy({ afterPosition: 3n, toPosition: 6n })).toEqual([4, 5, 6]);
    expect(await readBy({ stream: "order-two" })).toEqual(matching(({ stream }) => stream === "order-two"));
    expect(await readBy({ stream: "order-two", afterPosition: 12n, toPosition: 14n })).toEqual([13, 14]);
    expect(await readBy({ types: ["OrderDelivered"] })).toEqual([10, 20]);
    expect(await readBy({ actorRole: Role.DRIVER })).toEqual(matching(({ actor }) => actor?.role === Role.DRIVER));
    expect(await readBy({ actorSubject: "clerk-1" })).toEqual(matching(({ actor }) => actor?.subject === "clerk-1"));
    expect(await readBy({ recordedFrom: timestampFromMs(at(5)), recordedBefore: timestampFromMs(at(15)) })).toEqual(
      matching(({ recordedAt }) => recordedAt !== undefined && timestampMs(recordedAt) >= at(5) && timestampMs(recordedAt) < at(15)),
    );
    expect(await readBy({ recordedFrom: timestampFromMs(at(20) + 1) })).toEqual([]);
    expect((await all(audit.readLog({ actorSubject: "nobody" }))).at(-1)).toMatchObject({ entries: [], position: 20n });
    await expect(all(audit.readLog({ follow: true, toPosition: 5n }))).rejects.toMatchObject({ code: Code.InvalidArgument });
  });

  it("follows concurrent appends, and goes on after a break with no gap and nothing twice", async () => {
    await using app = await startTestApp();
    await using log = openLog(inject("mongodbUrl"), app.databaseName);
    const audit = app.client(AuditService, door, AUDITOR);
    const seen: number[] = [];
    const appending = (async () => {
      for (let round = 0; round < 30; round++)
        await Promise.all(Array.from({ length: 20 }, (_, n) => log.appender.append(anEntry(`order-${round}-${n}`, 1))));
    })();
    for (let position = 0n; seen.length < 600; ) {
      const leave = new AbortController();
      const until = seen.length + 70;
      try {
        for await (const message of audit.readLog({ afterPosition: position, follow: true }, { signal: leave.signal })) {
          seen.push(...positionsOf([message]));
          position = message.position;
          if (seen.length >= Math.min(until, 600)) leave.abort();
        }
      } catch (error) {
        if (!leave.signal.aborted) throw error;
      }
    }
    await appending;
    expect(seen).toEqual(Array.from({ length: 600 }, (_, index) => index + 1));
  });

  it("tells a follower whose filter matches nothing how far it has looked", async () => {
    await using app = await startTestApp();
    await using log = openLog(inject("mongodbUrl"), app.databaseName);
    const leave = new AbortController();
    let position = 0n;
    const following = (async () => {
      const audit = app.client(AuditService, door, AUDITOR);
      for await (const message of audit.readLog({ types: ["OrderCancelled"], follow: true }, { signal: leave.signal })) {
        expect(message.entries).toEqual([]);
        position = message.position;
      }
    })();
    for (let n = 1; n <= 5; n++) await log.appender.append(anEntry(`order-${n}`, 1));
    await eventually(() => expect(position).toBe(5n));
    leave.abort();
    await expect(following).rejects.toMatchObject({ code: Code.Canceled });
  });

  it("tells a follower nothing more whose token has been revoked", async () => {
    await using app = await startTestApp();
    await using log = openLog(inject("mongodbUrl"), app.databaseName);
    const token = await app.token(AUDITOR);
    const seen: number[] = [];
    const following = (async () => {
      for await (const message of app.client(AuditService, door, token).readLog({ follow: true })) seen.push(...positionsOf([message]));
    })();
    following.catch(() => undefined);
    await log.appender.append(anEntry("order-1", 1));
    await eventually(() => expect(seen).toEqual([1]));
    await app.client(AuthService, "connect", "").revokeToken({ token });
    await log.appender.append(anEntry("order-2", 1));
    await expect(following).rejects.toMatchObject({ code: Code.Unauthenticated });
    expect(seen).toEqual([1]);
  });

  it("holds little for a reader who does not read, while another reads all", async () => {
    await using app = await startTestApp();
    await using log = openLog(inject("mongodbUrl"), app.databaseName);
    const entries = 1600;
    for (let n = 0; n < entries; n += 100)
      await Promise.all(Array.from({ length: 100 }, (_, i) => log.appender.append(anEntry(`order-${n + i}`, 1, { paddingBytes: 50_000 }))));
    const leave = new AbortController();
    const audit = app.client(AuditService, door, AUDITOR);
    const slow = Array.from({ length: 8 }, () => audit.readLog({}, { signal: leave.signal })[Symbol.asyncIterator]());
    const before = memory();
    for (const reader of slow) await reader.next();
    let count = 0;
    for await (const message of audit.readLog({})) count += message.entries.length;
    expect(count).toBe(entries);
    // Eight times 80 MB would be held if each were read as fast as it can be.
    expect(memory() - before).toBeLessThan(400 * 1024 * 1024);
    leave.abort();
  });
});

function memory(): number {
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

describe.each(DOORS)("AuditService/ReplayOrder over %s", (door) => {
  it("shows the order as of each version and time exactly as it was seen then", async () => {
    await using app = await startTestApp();
    const answers = await liveLife(app, "order");
    const audit = app.client(AuditService, door, OPERATOR);
    const json = (order: OrderTracking | undefined) => order && toJson(OrderTrackingSchema, order);
    const whole = await all(audit.replayOrder({ orderId: "order" }));
    expect(whole.map(({ type }) => type)).toEqual(expect.arrayContaining(["OrderSubmitted", "PickingResumed", "OrderDelivered"]));
    for (const answer of answers) {
      const { version, updatedAt } = answer;
      const asOfVersion = await all(audit.replayOrder({ orderId: "order", asOf: { case: "version", value: version } }));
      expect(json(asOfVersion.at(-1)?.order), `version ${version}`).toEqual(json(answer));
      // Commands of one millisecond stand at the same time: the last of them is what was so then.
      const then = answers.findLast((other) => other.updatedAt && updatedAt && timestampMs(other.updatedAt) === timestampMs(updatedAt));
      const asOfTime = await all(audit.replayOrder({ orderId: "order", asOf: { case: "time", value: updatedAt as Timestamp } }));
      expect(json(asOfTime.at(-1)?.order), `time of version ${version}`).toEqual(json(then));
    }
    const first = answers[0]?.createdAt;
    const earlier = timestampFromMs((first ? timestampMs(first) : 0) - 1);
    for (const request of [{ orderId: "none" }, { orderId: "order", asOf: { case: "time" as const, value: earlier } }])
      await expect(all(audit.replayOrder(request))).rejects.toMatchObject({ code: Code.NotFound });
  });

  it("opens personal data for those who may see it only", async () => {
    await using app = await startTestApp();
    await liveLife(app, "order");
    const names = async (caller: TestCaller) =>
      (await all(app.client(AuditService, door, caller).replayOrder({ orderId: "order" }))).at(-1)?.order?.recipient?.name;
    expect(await names(OPERATOR)).toBe("Ada Example");
    expect(await names(AUDITOR)).toBeUndefined();
  });
});

describe.each(DOORS)("AuditService/ExplainOrder over %s", (door) => {
  it("tells who did what, from where, and through which door, page by page", async () => {
    await using app = await startTestApp();
    await liveLife(app, "order");
    const audit = app.client(AuditService, door, OPERATOR);
    const { commands } = await audit.explainOrder({ orderId: "order" });
    expect(commands).toHaveLength(10);
    expect(commands[2]).toMatchObject({
      version: 3,
      actor: { role: Role.STORE, subject: "clerk-1" },
      door: Door.CONNECT,
      address: "127.0.0.1",
      addressWithheld: false,
      method: "ordertrail.v1.OrderTrackingService/AcknowledgeOrder",
      events: [{ type: "StoreAcknowledged", previousStatus: OrderStatus.STORE_NOTIFIED, status: OrderStatus.STORE_ACKNOWLEDGED }],
    });
    expect(commands[3]?.events[0]?.note).toBe("counter 3");
    const paged = [];
    for (let pageToken = ""; ; ) {
      const page = await audit.explainOrder({ orderId: "order", pageSize: 3, pageToken });
      paged.push(...page.commands.map(({ version }) => version));
      pageToken = page.nextPageToken;
      if (pageToken === "") break;
    }
    expect(paged).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    await expect(audit.explainOrder({ orderId: "none" })).rejects.toMatchObject({ code: Code.NotFound });
  });

  it("seals a customer's and a driver's address, and shows it to those who may see their data", async () => {
    await using app = await startTestApp();
    await liveLife(app, "order");
    const [byOperator, byAuditor] = await Promise.all(
      [OPERATOR, AUDITOR].map(async (caller) => (await app.client(AuditService, door, caller).explainOrder({ orderId: "order" })).commands),
    );
    for (const version of [6, 9, 10]) {
      expect(byOperator?.[version - 1]).toMatchObject({ address: "127.0.0.1", addressWithheld: false });
      expect(byAuditor?.[version - 1]).toMatchObject({ address: "", addressWithheld: true });
    }
    expect(byAuditor?.[3]).toMatchObject({ address: "127.0.0.1", events: [{ note: "" }] });
    const entries = entriesOf(await all(app.client(AuditService, door, AUDITOR).readLog({ actorRole: Role.CUSTOMER })));
    expect(entries.map((entry) => decode(entry).origin?.address)).toEqual([""]);
    await app.database.db(app.databaseName).collection("personal_keys").deleteMany({ person: "customer-1" });
  });
});

describe("GET /audit/orders/{order_id}/explanation", () => {
  it("explains an order", async () => {
    await using app = await startTestApp();
    await liveLife(app, "order");
    const { status, body } = await app.rest(AUDITOR, "GET", "/audit/orders/order/explanation?page_size=2");
    expect([status, body.commands.length]).toEqual([200, 2]);
    expect(body.commands[0]).toMatchObject({ actor: { role: "SERVICE", subject: "checkout" }, door: "GRPC", address: "127.0.0.1" });
    expect((await app.rest(CUSTOMER, "GET", "/audit/orders/order/explanation")).status).toBe(403);
  });
});
