import { type DescMethodUnary, fromJson, type JsonValue } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import type { OrderTracking } from "../../src/gen/ordertrail/v1/order_tracking_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { type RestBody, type RpcDoor, startTestApp, type TestApp, type TestCaller } from "../support/app.ts";

const SERVICE: TestCaller = { role: Role.SERVICE, subject: "checkout" };
const STORE: TestCaller = { role: Role.STORE, subject: "clerk-1", storeId: "store-7" };
const CUSTOMER: TestCaller = { role: Role.CUSTOMER, subject: "customer-3" };
const PARTNER: TestCaller = { role: Role.PARTNER, subject: "uber" };
const DRIVER: TestCaller = { role: Role.DRIVER, subject: "driver-5" };
/** Points that were measured long ago are not taken. */
const RECORDED_AT = new Date(Date.now() - 1000).toISOString();

type Step = {
  readonly by: TestCaller;
  readonly rpc: keyof typeof OrderTrackingService.method;
  readonly rest: readonly [method: string, path: string];
  readonly body: { readonly [field: string]: unknown };
  readonly leadsTo: string;
};

const apples = { item_id: "apples", name: "Apples", quantity: 1.5, unit_price: { amount_minor: "349", currency: "EUR" } };
const pears = { item_id: "pears", name: "Pears", quantity: 1, unit_price: { amount_minor: "299", currency: "EUR" } };

/** A whole life, with every field that a caller may give. */
const LIFE: readonly Step[] = [
  {
    by: SERVICE,
    rpc: "initTracking",
    rest: ["POST", "/orders/tracking/init"],
    body: {
      store_id: "store-7",
      customer_id: "customer-3",
      delivery_provider: "UBER",
      items: [apples],
      recipient: {
        name: "Ada Example",
        phone: "+4930123456",
        address: {
          lines: ["Lindenstraße 1"],
          city: "Berlin",
          region: "BE",
          postal_code: "10969",
          country: "DE",
          latitude: 52.5,
          longitude: 13.4,
        },
        instructions: "third floor",
      },
      metadata: { campaign: "autumn", basket: { lines: 1, gift: false } },
    },
    leadsTo: "SUBMITTED",
  },
  { by: SERVICE, rpc: "updateStatus", rest: ["PUT", "/status"], body: { status: "STORE_NOTIFIED" }, leadsTo: "STORE_NOTIFIED" },
  {
    by: STORE,
    rpc: "acknowledgeOrder",
    rest: ["POST", "/acknowledge"],
    body: { ready_at: "2030-01-01T12:00:00Z" },
    leadsTo: "STORE_ACKNOWLEDGED",
  },
  {
    by: STORE,
    rpc: "updateStatus",
    rest: ["PUT", "/status"],
    body: { status: "PICKING_IN_PROGRESS", note: "counter 3" },
    leadsTo: "PICKING_IN_PROGRESS",
  },
  {
    by: STORE,
    rpc: "updateSubstitutions",
    rest: ["PUT", "/substitutions"],
    body: { substitutions: [{ substitution_id: "s-1", original_item: apples, replacement_item: pears, reason: "sold out" }] },
    leadsTo: "SUBSTITUTIONS_NEEDED",
  },
  {
    by: CUSTOMER,
    rpc: "updateSubstitutions",
    rest: ["PUT", "/substitutions"],
    body: { resolutions: [{ substitution_id: "s-1", approved: true }] },
    leadsTo: "PICKING_IN_PROGRESS",
  },
  { by: STORE, rpc: "updateStatus", rest: ["PUT", "/status"], body: { status: "READY_FOR_PICKUP" }, leadsTo: "READY_FOR_PICKUP" },
  {
    by: PARTNER,
    rpc: "assignDriver",
    rest: ["PUT", "/driver"],
    body: {
      driver_details: {
        driver_id: "driver-5",
        name: "Kim",
        phone: "+4930654321",
        vehicle_type: "bicycle",
        license_plate: "B-X 1",
        photo_url: "https://example.com/kim.jpg",
      },
      delivery: {
        provider_delivery_id: "del_1",
        fee: { amount_minor: "590", currency: "EUR" },
        tracking_url: "https://example.com/track/1",
      },
      eta: "2030-01-01T13:00:00Z",
    },
    leadsTo: "DRIVER_ASSIGNED",
  },
  {
    by: DRIVER,
    rpc: "updateLocation",
    rest: ["PUT", "/location"],
    body: { latitude: 52.51, longitude: 13.41, heading_deg: 90, speed_mps: 4.5, accuracy_m: 8, recorded_at: RECORDED_AT },
    leadsTo: "DRIVER_ASSIGNED",
  },
  {
    by: DRIVER,
    rpc: "updateStatus",
    rest: ["PUT", "/status"],
    body: { status: "DRIVER_PICKUP_COMPLETE" },
    leadsTo: "DRIVER_PICKUP_COMPLETE",
  },
  { by: DRIVER, rpc: "updateStatus", rest: ["PUT", "/status"], body: { status: "IN_TRANSIT" }, leadsTo: "IN_TRANSIT" },
  {
    by: DRIVER,
    rpc: "markDelivered",
    rest: ["PUT", "/delivered"],
    body: {
      proof_of_delivery: {
        recipient_name: "Ada Example",
        photo_url: "https://example.com/door.jpg",
        note: "at the door",
        delivered_at: "2026-01-01T13:00:00Z",
      },
    },
    leadsTo: "DELIVERED",
  },
];

/** Takes a step over REST, and gives the order as REST shows it. */
async function stepOverRest(app: TestApp, orderId: string, { by, rest: [method, path], body }: Step): Promise<RestBody> {
  const whole = path.startsWith("/orders")
    ? { path, body: { ...body, order_id: orderId } }
    : { path: `/orders/tracking/${orderId}${path}`, body };
  const answer = await app.rest(by, method, whole.path, whole.body);
  expect(answer, JSON.stringify(answer.body)).toMatchObject({ status: 200 });
  return answer.body.order;
}

/** Takes a step over an RPC door, with the request as JSON would give it, and gives the order as REST shows it. */
async function stepOverRpc(app: TestApp, door: RpcDoor, orderId: string, { by, rpc, body }: Step): Promise<RestBody> {
  const method = OrderTrackingService.method[rpc] as DescMethodUnary;
  const request = fromJson(method.input, prefixed({ ...body, order_id: orderId }) as JsonValue);
  const { message } = await app.transport(door, by).unary(method, undefined, undefined, undefined, request);
  const { order } = message as { readonly order?: OrderTracking };
  const shown = await app.rest(SERVICE, "GET", `/orders/tracking/${orderId}`);
  expect(shown.body).toMatchObject({ version: order?.version, position: String(order?.position) });
  return shown.body;
}

/** Bare enum names as REST has them, with the prefixes that proto3 JSON wants. */
function prefixed(value: { readonly [field: string]: unknown }): object {
  const { status, delivery_provider, ...rest } = value;
  return {
    ...rest,
    ...(status !== undefined && { status: `ORDER_STATUS_${status}` }),
    ...(delivery_provider !== undefined && { delivery_provider: `DELIVERY_PROVIDER_${delivery_provider}` }),
  };
}

/** What must be the same whichever door was used. */
function comparable(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (key, inner) =>
      ["order_id", "position", "timestamp", "created_at", "updated_at", "proposed_at", "resolved_at", "recorded_at", "request_id"].includes(
        key,
      )
        ? "*"
        : inner,
    ),
  );
}

describe("an order's whole life", () => {
  it("is the same over gRPC, Connect, gRPC-Web and REST", async () => {
    await using app = await startTestApp();
    const finals: unknown[] = [];
    const histories: unknown[] = [];
    for (const door of ["grpc", "connect", "grpc-web", "rest"] as const) {
      const orderId = `life-${door}`;
      let order: RestBody;
      for (const step of LIFE) {
        order = door === "rest" ? await stepOverRest(app, orderId, step) : await stepOverRpc(app, door, orderId, step);
        expect(order.current_status, `${door}: ${step.rpc}`).toBe(step.leadsTo);
        if (step.rpc === "updateLocation")
          expect(order.driver_location).toMatchObject({
            latitude: 52.51,
            longitude: 13.41,
            heading_deg: 90,
            speed_mps: 4.5,
            accuracy_m: 8,
          });
      }
      const shown = await app.rest(SERVICE, "GET", `/orders/tracking/${orderId}`);
      finals.push(comparable(shown.body));
      const history = await app.rest(SERVICE, "GET", `/orders/tracking/${orderId}/history`);
      expect(new Set(history.body.events.map((event: RestBody) => event.door))).toEqual(
        new Set([{ grpc: "GRPC", connect: "CONNECT", "grpc-web": "CONNECT", rest: "REST" }[door]]),
      );
      histories.push(JSON.parse(JSON.stringify(comparable(history.body), (key, inner) => (key === "door" ? "*" : inner))));
    }
    for (const final of finals) expect(final).toEqual(finals[0]);
    for (const history of histories) expect(history).toEqual(histories[0]);
    expect(finals[0]).toMatchObject({
      current_status: "DELIVERED",
      delivery_provider: "UBER",
      version: 11,
      items: [apples],
      recipient: LIFE[0]?.body["recipient"],
      metadata: LIFE[0]?.body["metadata"],
      driver_details: LIFE[7]?.body["driver_details"],
      delivery: LIFE[7]?.body["delivery"],
      eta: "2030-01-01T13:00:00Z",
      ready_at: "2030-01-01T12:00:00Z",
      proof_of_delivery: LIFE.at(-1)?.body["proof_of_delivery"],
      substitutions: [
        {
          substitution_id: "s-1",
          status: "APPROVED",
          original_item: apples,
          replacement_item: pears,
          resolved_by: { role: "CUSTOMER", subject: "customer-3" },
        },
      ],
    });
    expect(finals[0]).toHaveProperty("status_history.3.note", "counter 3");
    expect(finals[0]).not.toHaveProperty("driver_location");
  });

  it("is found by lists at once when they wait for its position, and only by those whose it is", async () => {
    await using app = await startTestApp();
    const [init] = LIFE as [Step];
    const order = await stepOverRest(app, "listed-1", init);
    const seenBy = async (caller: TestCaller) => {
      const { body } = await app.rest(caller, "GET", `/orders/tracking?min_position=${order.position}`);
      return body.orders?.map((found: RestBody) => found.order_id);
    };
    expect(await seenBy(SERVICE)).toEqual(["listed-1"]);
    expect(await seenBy(CUSTOMER)).toEqual(["listed-1"]);
    expect(await seenBy(STORE)).toEqual(["listed-1"]);
    expect(await seenBy(PARTNER)).toEqual(["listed-1"]);
    expect(await seenBy(DRIVER)).toEqual([]);
    expect(await seenBy({ role: Role.CUSTOMER, subject: "somebody-else" })).toEqual([]);
  });

  it("shows another's order exactly as one that does not exist", async () => {
    await using app = await startTestApp();
    await stepOverRest(app, "theirs", LIFE[0] as Step);
    const stranger: TestCaller = { role: Role.CUSTOMER, subject: "somebody-else" };
    for (const [method, suffix, body] of [
      ["GET", "", undefined],
      ["GET", "/history", undefined],
      ["PUT", "/status", { status: "CANCELLED", note: "mine now" }],
      ["POST", "/cancel", { reason: "mine now" }],
      ["PUT", "/substitutions", { resolutions: [{ substitution_id: "s-1", approved: true }] }],
    ] as const) {
      const theirs = await app.rest(stranger, method, `/orders/tracking/theirs${suffix}`, body);
      const none = await app.rest(stranger, method, `/orders/tracking/absent${suffix}`, body);
      const unnamed = (value: unknown) =>
        JSON.stringify(value)
          .replaceAll("theirs", "ID")
          .replaceAll("absent", "ID")
          .replace(/"timestamp":"[^"]*"/, "");
      expect(theirs.status).toBe(404);
      expect(unnamed(theirs)).toBe(unnamed(none));
    }
  });

  it("gives the first answer again to a request_id seen before", async () => {
    await using app = await startTestApp();
    await stepOverRest(app, "again", LIFE[0] as Step);
    const first = await app.rest(SERVICE, "PUT", "/orders/tracking/again/status", { status: "STORE_NOTIFIED", request_id: "r-1" });
    await app.rest(STORE, "POST", "/orders/tracking/again/acknowledge", {});
    const second = await app.rest(SERVICE, "PUT", "/orders/tracking/again/status", { status: "STORE_NOTIFIED", request_id: "r-1" });
    expect(second).toEqual(first);
    const stranger: TestCaller = { role: Role.STORE, subject: "clerk-9", storeId: "store-9" };
    const replayed = await app.rest(stranger, "PUT", "/orders/tracking/again/status", { status: "STORE_NOTIFIED", request_id: "r-1" });
    expect(replayed.status).toBe(404);
    const reused = await app.rest(SERVICE, "POST", "/orders/tracking/again/cancel", { reason: "no", request_id: "r-1" });
    expect(reused).toMatchObject({ status: 409, body: { code: "REQUEST_ID_REUSED" } });
  });

  it("takes no other command for one that had its request_id, whatever the order's status now", async () => {
    await using app = await startTestApp();
    await stepOverRest(app, "other", LIFE[0] as Step);
    const path = "/orders/tracking/other";
    const status = (to: string, requestId: string) => app.rest(SERVICE, "PUT", `${path}/status`, { status: to, request_id: requestId });
    const assign = (driverId: string, phone: string) =>
      app.rest(SERVICE, "PUT", `${path}/driver`, { driver_details: { driver_id: driverId, phone }, request_id: "r-2" });
    const reused = { status: 409, body: { code: "REQUEST_ID_REUSED" } };
    await status("STORE_NOTIFIED", "r-1");
    expect(await status("STORE_ACKNOWLEDGED", "r-1")).toMatchObject(reused);
    await app.rest(STORE, "POST", `${path}/acknowledge`, {});
    expect(await status("PICKING_IN_PROGRESS", "r-1")).toMatchObject(reused);
    const first = await assign("d-1", "+4930111111");
    expect(first).toMatchObject({ status: 200, body: { order: { driver_details: { driver_id: "d-1" } } } });
    expect(await assign("d-2", "+4930111111")).toMatchObject(reused);
    expect(await assign("d-1", "+4930111111")).toEqual(first);
    const init = (storeId: string) =>
      app.rest(SERVICE, "POST", "/orders/tracking/init", { order_id: "third", store_id: storeId, customer_id: "c", request_id: "r-3" });
    expect((await init("store-1")).status).toBe(200);
    expect(await init("store-2")).toMatchObject(reused);
  });

  it("undoes nothing by a command that changed nothing and is sent again", async () => {
    await using app = await startTestApp();
    await stepOverRest(app, "late", LIFE[0] as Step);
    const path = "/orders/tracking/late";
    for (const status of ["STORE_NOTIFIED", "STORE_ACKNOWLEDGED", "PICKING_IN_PROGRESS"])
      await app.rest(STORE, "PUT", `${path}/status`, { status });
    const again = { status: "PICKING_IN_PROGRESS", request_id: "r-1" };
    const first = await app.rest(STORE, "PUT", `${path}/status`, again);
    expect(first).toMatchObject({ status: 200, body: { order: { version: 4 } } });
    const substitutions = [{ original_item: { item_id: "apples", name: "Apples", quantity: 1 }, reason: "none left" }];
    await app.rest(STORE, "PUT", `${path}/substitutions`, { substitutions });
    expect(await app.rest(STORE, "PUT", `${path}/status`, again)).toEqual(first);
    const { body } = await app.rest(STORE, "GET", path);
    expect(body).toMatchObject({ current_status: "SUBSTITUTIONS_NEEDED", version: 5, substitutions: [{ status: "PROPOSED" }] });
    const other = await app.rest(STORE, "PUT", `${path}/status`, { status: "CANCELLED", note: "no", request_id: "r-1" });
    expect(other).toMatchObject({ status: 409, body: { code: "REQUEST_ID_REUSED" } });
  });

  it("tells the request_id and the order of what it did and of what failed, in the log", async () => {
    await using app = await startTestApp({ LOG_LEVEL: "debug" });
    await stepOverRest(app, "logged", LIFE[0] as Step);
    await app.rest(SERVICE, "PUT", "/orders/tracking/logged/status", { status: "STORE_NOTIFIED", request_id: "r-7" });
    await app.rest(SERVICE, "PUT", "/orders/tracking/logged/status", { status: "DELIVERED", request_id: "r-8" });
    const lines = app.log.map((line) => JSON.parse(line));
    expect(lines).toContainEqual(expect.objectContaining({ order_id: "logged", request_id: "r-7", position: 2, msg: "order moved" }));
    const failed = { order_id: "logged", request_id: "r-8", code: "INVALID_STATUS_TRANSITION" };
    expect(lines).toContainEqual(expect.objectContaining(failed));
  });

  it("ends a wait for a position at once when it is asked to end", async () => {
    const app = await startTestApp({ DRAIN_TIMEOUT_MS: "60000", DEFAULT_DEADLINE_MS: "60000" });
    await stepOverRest(app, "waited", LIFE[0] as Step);
    const waiting = ["/orders/tracking/waited?min_position=99", "/orders/tracking?min_position=99"].map((path) =>
      app.rest(SERVICE, "GET", path),
    );
    // Once a call that was made after them is answered, they have arrived.
    await app.rest(SERVICE, "GET", "/orders/tracking/waited");
    await app[Symbol.asyncDispose]();
    for (const wait of waiting) expect(await wait).toMatchObject({ status: 503, body: { code: "UNAVAILABLE" } });
  });

  it("keeps personal data out of the database and of the log", async () => {
    await using app = await startTestApp();
    for (const step of LIFE) await stepOverRest(app, "private", step);
    await app.rest(SERVICE, "GET", "/orders/tracking?min_position=11");
    const everything = [];
    const db = app.database.db(app.databaseName);
    for (const { name } of await db.listCollections().toArray()) {
      for await (const document of db.collection(name).find({}, { raw: true }))
        everything.push((document as unknown as Buffer).toString("latin1"));
    }
    const stored = Buffer.from(everything.join("\n"), "latin1").toString("utf8");
    expect(stored).toContain("private");
    for (const personal of [
      "Ada",
      "+4930123456",
      "Lindenstra",
      "third floor",
      "Kim",
      "+4930654321",
      "B-X 1",
      "kim.jpg",
      "door.jpg",
      "at the door",
      "counter 3",
    ]) {
      expect(stored, personal).not.toContain(personal);
      expect(app.log.join("\n"), personal).not.toContain(personal);
    }
  });
});
