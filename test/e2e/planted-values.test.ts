import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { glob, open, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Client, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { BSON, MongoClient } from "mongodb";
import { describe, expect, it } from "vitest";
import { startMongod } from "../../src/embedded/mongod.ts";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { eventually } from "../support/eventually.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

/** What is in every planted text, in no other. */
const MARK = "Qz7vPlantedValue";
/** What every planted phone number begins with. */
const PHONE_MARK = "+499817263";
const LATITUDE = 52.71828182845904;
const CONTROL = "Qz7vControlValue";
/** Where the driver is: in the clear by design, and gone from every collection after the erasure. */
const DRIVER_LATITUDE = 48.31415926535898;

/** Each has one order; `cancels` has two, and `under-way` one that has not ended. */
const CUSTOMERS = ["grpc", "connect", "grpc-web", "rest", "cancels", "under-way"];

let planted = 0;
/** A new value, with the mark in it. */
const text = () => `${MARK}${planted++}`;
const phone = () => `${PHONE_MARK}${planted++ + 1000}`;
const url = () => `https://photos.example/${text()}.jpg`;

describe("personal data given by every door, after its people were erased", () => {
  it("is readable nowhere on disk, in no collection and no log line; log and statistics are as before", { timeout: 180_000 }, async () => {
    await using folder = await temporaryFolder();
    const mongod = await startMongod({ dataDir: join(folder.path, "mongod"), cacheSizeMib: 256, uncompressed: true });
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => mongod.kill());
    const instance = await startInstance(join(folder.path, "data"), mongod.url);
    cleanup.defer(() => instance.kill());
    const client = await MongoClient.connect(mongod.url);
    cleanup.defer(() => client.close());
    const db = client.db("grocery_delivery");

    await plantAddresses(instance);
    await plantByEveryDoor(instance);
    await plantInRefusedCalls(instance);
    const before = await statisticsOf(client);
    const bodies = await bodiesOf(client);
    expect(before).toEqual([
      { _id: "CANCELLED", count: 2 },
      { _id: "DELIVERED", count: 4 },
      { _id: "DRIVER_ASSIGNED", count: 1 },
    ]);

    for (const customer of CUSTOMERS.slice(0, -1)) {
      const erased = await instance.run("privacy", "erase", customer);
      const orders = customer === "cancels" ? 2 : 1;
      expect(erased).toMatchObject({ code: 0, out: expect.stringContaining(`orders     ${orders} stay`) });
    }
    expect((await instance.run("privacy", "erase", "under-way")).code).toBe(1);
    const last = await instance.run("privacy", "erase", "under-way", "--include-orders-under-way", "--json");
    expect(JSON.parse(last.out).places).toEqual([
      { place: "contact_index", documents: "2" },
      { place: "driver_locations", documents: "1" },
      { place: "order_tracking", documents: "1" },
      { place: "tracking_links", documents: "0" },
    ]);

    expect((await instance.run("projections", "verify", "order_tracking")).code).toBe(0);
    expect((await instance.run("projections", "rebuild", "order_tracking")).code).toBe(0);
    expect((await instance.run("projections", "verify", "order_tracking")).code).toBe(0);
    expect(await statisticsOf(client)).toEqual(before);
    expect((await bodiesOf(client)).slice(0, bodies.length)).toEqual(bodies);
    expect(
      await db.collection("personal_keys").countDocuments({ person: { $in: CUSTOMERS.map((customer) => `customer-${customer}`) } }),
    ).toBe(0);
    const exported = await instance.run("privacy", "export", "grpc");
    expect(JSON.parse(exported.out)).toMatchObject({
      orders: [{ order: { current_status: "DELIVERED" } }],
      erasure: { customer_id: "grpc" },
    });
    // Its driver has not been erased.
    expect(exported.out.replace(/"driver_details":\{[^}]*\}/, "")).not.toContain(MARK);

    await expectAbsentFromCollections(client);
    for (const { name } of await db.listCollections({}, { nameOnly: true }).toArray()) await db.command({ compact: name, force: true });
    await client.db("admin").command({ fsync: 1 });
    await instance.stop();
    await client.close();
    await mongod.stop();
    expect(findMarks(Buffer.from(instance.said()))).toEqual([]);
    const found: string[] = [];
    let controls = 0;
    for await (const path of glob("**/*", { cwd: folder.path })) {
      const full = join(folder.path, path);
      if (!(await stat(full)).isFile()) continue;
      for await (const part of partsOf(full)) {
        found.push(...findMarks(part).map((mark) => `${mark} in ${path}`));
        if (part.includes(CONTROL)) controls++;
      }
    }
    expect(found).toEqual([]);
    // What is stored in the clear is found: so the search works.
    expect(controls).toBeGreaterThan(0);
  });
});

type Instance = Awaited<ReturnType<typeof startInstance>>;

/** `ordertrail start` as a process of its own, with a NATS server of its own, on a given MongoDB. */
async function startInstance(dataDir: string, mongodbUrl: string) {
  const env = { DATA_DIR: dataDir, GRPC_PORT: "0", HTTP_PORT: "0", MONGODB_URL: mongodbUrl, LOG_LEVEL: "debug" };
  const child: ChildProcess = spawn(process.execPath, [MAIN, "start"], { env, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream?.setEncoding("utf8").on("data", (part: string) => (said += part));
  const run = (...args: string[]) =>
    new Promise<{ code: number; out: string; err: string }>((resolve) => {
      execFile(process.execPath, [MAIN, ...args], { env }, (error, out, err) =>
        resolve({ code: error ? Number(error.code) : 0, out, err }),
      );
    });
  await eventually(() => expect(said).toContain("the data stays in"), 60_000);
  const { grpc, http } = JSON.parse((await run("status", "--json")).out) as { grpc: string; http: string };
  const tokenOf = async (role: string, subject: string) => (await run("token", "--role", role, "--subject", subject)).out.trim();
  const token = await tokenOf("operator", "planter");
  const end = async (signal: "SIGTERM" | "SIGKILL") => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "close");
    child.kill(signal);
    await gone;
  };
  return { grpc, http, token, tokenOf, run, said: () => said, stop: () => end("SIGTERM"), kill: () => end("SIGKILL") };
}

const recipientOf = () => ({
  name: text(),
  phone: phone(),
  address: {
    lines: [text(), text()],
    city: text(),
    region: text(),
    postalCode: text().slice(-20),
    country: "DE",
    latitude: LATITUDE,
    longitude: 13.4,
  },
  instructions: text(),
});

/** How each customer is reached: they are written to by every channel that `start` plays. */
async function plantAddresses({ http, token }: Instance): Promise<void> {
  const call = async (method: string, path: string, body: object) => {
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    const response = await fetch(`${http}/notifications/${path}`, { method, headers, body: JSON.stringify(body) });
    expect([path, response.status, await response.text()]).toEqual([path, 200, expect.any(String)]);
  };
  for (const [index, customer_id] of CUSTOMERS.entries()) {
    const channels = [["EMAIL"], ["SMS"], ["WHATSAPP"], ["PUSH"], ["EMAIL", "SMS"], ["SMS", "PUSH"]][index];
    await call("PUT", "preferences", { customer_id, channels, email: `${text()}@mail.example`, phone: phone() });
    await call("POST", "whatsapp/opt-in", { customer_id, phone: phone(), source: "checkout", wording: "Yes" });
    await call("POST", "push/register-token", { customer_id, token: `${text()}-token`, platform: "ANDROID" });
  }
}

async function plantByEveryDoor(instance: Instance): Promise<void> {
  for (const [index, [name, tracking]] of clientsOf(instance).entries()) {
    const token = await instance.tokenOf("driver", `d-${name}`);
    await plant(tracking, name, clientsOf({ ...instance, token })[index]?.[1]);
  }
  await plantByRest(instance);
  await plantInOwnWords(instance);
  const [[, grpc] = []] = clientsOf(instance);
  if (!grpc) throw new Error("there is no door");
  await plant(grpc, "under-way");
}

/** A life with every personal field, by one of the doors that speak of RPCs; its end, if it has one, as the driver tells it. */
async function plant(
  tracking: Client<typeof OrderTrackingService>,
  name: string,
  driver?: Client<typeof OrderTrackingService>,
): Promise<void> {
  const orderId = `order-${name}`;
  await tracking.initTracking({ orderId, storeId: "s", customerId: name, recipient: recipientOf(), metadata: { campaign: CONTROL } });
  for (const status of [2, 3, 4, 6]) await tracking.updateStatus({ orderId, status, note: text() });
  const { order } = await tracking.assignDriver({ orderId, driverDetails: driverOf(name) });
  // order_tracking shows where a driver is only once it has the driver.
  await tracking.listTrackings({ minPosition: order?.position ?? 0n });
  await tracking.updateLocation({ orderId, latitude: DRIVER_LATITUDE, longitude: 1 });
  if (!driver) return;
  for (const status of [8, 9]) await driver.updateStatus({ orderId, status, note: text() });
  await driver.markDelivered({ orderId, proofOfDelivery: { recipientName: text(), photoUrl: url(), note: text() } });
}

/** What a customer writes themselves: why they call an order off, by either RPC that does it. */
async function plantInOwnWords(instance: Instance): Promise<void> {
  const customer = { ...instance, token: await instance.tokenOf("customer", "cancels") };
  const [byOperator, byCustomer] = [instance, customer].map((caller) => clientsOf(caller)[0]?.[1]);
  for (const orderId of ["cancels-1", "cancels-2"]) {
    await byOperator?.initTracking({ orderId, storeId: "s", customerId: "cancels", recipient: recipientOf() });
  }
  await byCustomer?.cancelOrder({ orderId: "cancels-1", reason: `${text()}, call ${phone()}` });
  const cancelled = { status: "CANCELLED", note: `${text()}, call ${phone()}` };
  expect(await callRest(customer, "PUT", "/orders/tracking/cancels-2/status", cancelled)).toBe(200);
}

const driverOf = (name: string) => ({
  driverId: `d-${name}`,
  name: text(),
  phone: phone(),
  licensePlate: text().slice(-20),
  photoUrl: url(),
});

async function plantByRest(instance: Instance): Promise<void> {
  const { phone: tel, address, ...recipient } = recipientOf();
  const { postalCode, ...rest } = address;
  const order = "/orders/tracking/order-rest";
  const calls: [method: string, path: string, body: unknown][] = [
    [
      "POST",
      "/orders/tracking/init",
      {
        order_id: "order-rest",
        store_id: "s",
        customer_id: "rest",
        recipient: { ...recipient, phone: tel, address: { ...rest, postal_code: postalCode } },
      },
    ],
    ...["STORE_NOTIFIED", "STORE_ACKNOWLEDGED", "PICKING_IN_PROGRESS", "READY_FOR_PICKUP"].map((status): [string, string, unknown] => [
      "PUT",
      `${order}/status`,
      { status, note: text() },
    ]),
    [
      "PUT",
      `${order}/driver`,
      { driver_details: { driver_id: "d-rest", name: text(), phone: phone(), license_plate: text().slice(-20), photo_url: url() } },
    ],
    ["PUT", `${order}/location`, { latitude: DRIVER_LATITUDE, longitude: 1 }],
    ["PUT", `${order}/status`, { status: "DRIVER_PICKUP_COMPLETE", note: text() }],
    ["PUT", `${order}/status`, { status: "IN_TRANSIT", note: text() }],
    ["PUT", `${order}/delivered`, { proof_of_delivery: { recipient_name: text(), photo_url: url(), note: text() } }],
  ];
  for (const [method, path, body] of calls) expect(await callRest(instance, method, path, body), path).toBe(200);
}

async function callRest({ http, token }: Instance, method: string, path: string, body: unknown): Promise<number> {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const response = await fetch(`${http}${path}`, { method, headers, body: typeof body === "string" ? body : JSON.stringify(body) });
  await response.text();
  return response.status;
}

/** Personal data in calls that fail, which might be told of in log lines. */
async function plantInRefusedCalls(instance: Instance): Promise<void> {
  for (const [, tracking] of clientsOf(instance)) {
    const wrong = { orderId: "order-wrong", storeId: "s", customerId: "wrong", recipient: { ...recipientOf(), phone: text() } };
    await expect(tracking.initTracking(wrong)).rejects.toBeInstanceOf(ConnectError);
    await expect(tracking.updateStatus({ orderId: "order-none", status: 2, note: text() })).rejects.toBeInstanceOf(ConnectError);
    await expect(tracking.initTracking({ ...wrong, orderId: "order-grpc", recipient: recipientOf() })).rejects.toBeInstanceOf(ConnectError);
  }
  expect(await callRest(instance, "POST", "/orders/tracking/init", { order_id: text(), recipient: { phone: text(), name: 7 } })).toBe(400);
  expect(await callRest(instance, "POST", "/orders/tracking/init", `{"recipient": {"name": "${text()}"`)).toBe(400);
  expect(await callRest(instance, "PUT", "/orders/tracking/order-rest/status", { status: "SUBMITTED", note: text() })).toBe(409);
}

function clientsOf({ grpc, http, token }: Instance): [name: string, tracking: Client<typeof OrderTrackingService>][] {
  const interceptors = [
    (next: Parameters<NonNullable<Parameters<typeof createGrpcTransport>[0]["interceptors"]>[number]>[0]) =>
      (request: Parameters<typeof next>[0]) => {
        request.header.set("authorization", `Bearer ${token}`);
        return next(request);
      },
  ];
  const options = { baseUrl: http, httpVersion: "1.1", interceptors } as const;
  return [
    ["grpc", createClient(OrderTrackingService, createGrpcTransport({ baseUrl: `http://${grpc}`, interceptors }))],
    ["connect", createClient(OrderTrackingService, createConnectTransport(options))],
    ["grpc-web", createClient(OrderTrackingService, createGrpcWebTransport(options))],
  ];
}

/** How many orders there are in each status, once the read model has all of them. */
async function statisticsOf(client: MongoClient) {
  return await eventually(async () => {
    const db = client.db("grocery_delivery");
    const found = await db
      .collection("order_tracking")
      .aggregate([{ $group: { _id: "$current_status", count: { $sum: 1 } } }, { $sort: { _id: 1 } }])
      .toArray();
    expect(found.find(({ _id }) => _id === "DELIVERED")?.["count"]).toBe(4);
    expect(found.find(({ _id }) => _id === "CANCELLED")?.["count"]).toBe(2);
    expect(found).toHaveLength(3);
    return found;
  });
}

async function bodiesOf(client: MongoClient): Promise<string[]> {
  const entries = await client.db("grocery_delivery").collection("events").find().sort({ _id: 1 }).toArray();
  return entries.map(({ body }) => body.toString("hex"));
}

async function expectAbsentFromCollections(client: MongoClient): Promise<void> {
  for (const { name: database } of (await client.db("admin").admin().listDatabases({ nameOnly: true })).databases) {
    if (database === "local" || database === "admin" || database === "config") continue;
    const db = client.db(database);
    for (const { name } of await db.listCollections({}, { nameOnly: true }).toArray()) {
      for await (const document of db.collection(name).find()) {
        const bytes = Buffer.from(BSON.serialize(document));
        expect(findMarks(bytes), name).toEqual([]);
      }
    }
  }
}

function doubleOf(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return bytes;
}

/** The forms in which a marked value can be read: text in two encodings, hexadecimal, base64 at each of its three offsets, numbers. */
const PATTERNS: readonly (readonly [form: string, bytes: Buffer])[] = [
  MARK,
  PHONE_MARK,
  String(LATITUDE).slice(0, 12),
  String(DRIVER_LATITUDE).slice(0, 12),
]
  .flatMap((mark): [string, Buffer][] => [
    [`${mark} as text`, Buffer.from(mark)],
    [`${mark} as UTF-16`, Buffer.from(mark, "utf16le")],
    [`${mark} in hexadecimal`, Buffer.from(Buffer.from(mark).toString("hex"))],
    ...[0, 1, 2].map((offset): [string, Buffer] => {
      // The outermost characters also depend on what stands beside the mark.
      const encoded = Buffer.from(`${"x".repeat(offset)}${mark}`)
        .toString("base64")
        .replace(/=+$/, "");
      return [`${mark} in base64`, Buffer.from(encoded.slice(offset === 0 ? 0 : offset + 1, -2))];
    }),
  ])
  .concat([LATITUDE, DRIVER_LATITUDE].map((latitude) => [`the latitude ${latitude} as a number`, doubleOf(latitude)]));

function findMarks(bytes: Buffer): string[] {
  return PATTERNS.filter(([, pattern]) => bytes.includes(pattern)).map(([form]) => form);
}

const PART_BYTES = 1024 * 1024;
const NOTHING = Buffer.alloc(PART_BYTES);
const OVERLAP_BYTES = 256;

/** A file in parts that overlap, so that nothing is missed between two. */
async function* partsOf(path: string): AsyncGenerator<Buffer, void, undefined> {
  const { size } = await stat(path);
  if (size <= PART_BYTES) {
    yield await readFile(path);
    return;
  }
  await using file = await open(path, "r");
  for (let from = 0; from < size; from += PART_BYTES - OVERLAP_BYTES) {
    const part = Buffer.alloc(Math.min(PART_BYTES, size - from));
    await file.read(part, 0, part.length, from);
    // Most of a journal is room that nobody has written to yet.
    if (!part.equals(NOTHING.subarray(0, part.length))) yield part;
  }
}
