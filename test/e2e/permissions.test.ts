import { type DescMethod, type DescMethodStreaming, type DescMethodUnary, fromJson, isMessage, type JsonObject } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { isPublic, PERMISSIONS } from "../../src/access/permissions.ts";
import { ERROR_SHAPES } from "../../src/doors/error-table.ts";
import { createRestRoutes } from "../../src/doors/rest-routes.ts";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { AuditService } from "../../src/gen/ordertrail/v1/audit_service_pb.js";
import { AuthService } from "../../src/gen/ordertrail/v1/auth_service_pb.js";
import { DeliveryService } from "../../src/gen/ordertrail/v1/delivery_service_pb.js";
import {
  DriverLocationService,
  type StreamLocationsResponse,
  StreamLocationsResponseSchema,
} from "../../src/gen/ordertrail/v1/driver_location_service_pb.js";
import { NotificationService } from "../../src/gen/ordertrail/v1/notification_service_pb.js";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { LocationDropReason } from "../../src/gen/ordertrail/v1/order_tracking_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { type Bearer, startTestApp, type TestApp, type TestCaller } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";

const SERVICES = [
  OrderTrackingService,
  DriverLocationService,
  OperationsService,
  AuditService,
  AuthService,
  DeliveryService,
  NotificationService,
];
const METHODS = new Map<string, DescMethod>(
  SERVICES.flatMap(({ typeName, methods }) => methods.map((method) => [`${typeName}/${method.name}`, method] as const)),
);
const ROUTES = createRestRoutes(SERVICES).routes;

const item = { itemId: "apples", name: "Apples", quantity: 1, unitPrice: { amountMinor: "349", currency: "EUR" } };
const ALL = "SERVICE CUSTOMER STORE DRIVER PARTNER AUDITOR OPERATOR";

/** What an RPC is called with, and the roles that may call it, written down apart from the table that the server reads. */
type Called = {
  readonly request: JsonObject;
  readonly roles: string /** About an order: its order_id is put into the request. */;
  readonly order?: true;
};

const CALLED: Readonly<Record<string, Called>> = {
  "OrderTrackingService/InitTracking": {
    order: true,
    request: { storeId: "store-1", customerId: "customer-1" },
    roles: "SERVICE OPERATOR",
  },
  "OrderTrackingService/GetTracking": { order: true, request: {}, roles: `${ALL} LINK` },
  "OrderTrackingService/ListTrackings": { request: {}, roles: ALL },
  "OrderTrackingService/GetHistory": { order: true, request: {}, roles: `${ALL} LINK` },
  "OrderTrackingService/UpdateStatus": {
    order: true,
    request: { status: "ORDER_STATUS_SUBMITTED" },
    roles: "SERVICE CUSTOMER STORE DRIVER PARTNER OPERATOR",
  },
  "OrderTrackingService/AcknowledgeOrder": { order: true, request: {}, roles: "SERVICE STORE OPERATOR" },
  "OrderTrackingService/UpdateSubstitutions": {
    order: true,
    request: { substitutions: [{ originalItem: item }] },
    roles: "SERVICE CUSTOMER STORE OPERATOR",
  },
  "OrderTrackingService/ResolveSubstitutions": {
    order: true,
    request: { resolutions: [{ substitutionId: "s-1", approved: true }] },
    roles: "SERVICE CUSTOMER OPERATOR",
  },
  "OrderTrackingService/AssignDriver": {
    order: true,
    request: { driverDetails: { driverId: "driver-1" } },
    roles: "SERVICE STORE PARTNER OPERATOR",
  },
  "OrderTrackingService/UpdateLocation": {
    order: true,
    request: { latitude: 1, longitude: 2 },
    roles: "SERVICE DRIVER PARTNER OPERATOR",
  },
  "OrderTrackingService/MarkDelivered": { order: true, request: {}, roles: "SERVICE DRIVER PARTNER OPERATOR" },
  "OrderTrackingService/CancelOrder": {
    order: true,
    request: { reason: "changed my mind" },
    roles: "SERVICE CUSTOMER STORE OPERATOR",
  },
  "OrderTrackingService/WatchTracking": { order: true, request: {}, roles: `${ALL} LINK` },
  "DriverLocationService/StreamLocations": {
    order: true,
    request: { points: [{ latitude: 1, longitude: 2, recordedAt: new Date().toISOString() }] },
    roles: "SERVICE DRIVER PARTNER OPERATOR",
  },
  "DriverLocationService/WatchDriverLocation": { order: true, request: {}, roles: `${ALL} LINK` },
  "OperationsService/ListProjections": { request: {}, roles: "AUDITOR OPERATOR" },
  "OperationsService/RebuildProjection": { request: { name: "order_tracking" }, roles: "OPERATOR" },
  "OperationsService/VerifyProjection": { request: { name: "order_tracking" }, roles: "AUDITOR OPERATOR" },
  "OperationsService/ListDenials": { request: {}, roles: "AUDITOR OPERATOR" },
  "AuditService/GetCheckpoint": { request: {}, roles: "AUDITOR OPERATOR" },
  "AuditService/GetInclusionProof": { request: { position: "1" }, roles: "AUDITOR OPERATOR" },
  "AuditService/GetConsistencyProof": { request: { oldSize: "1" }, roles: "AUDITOR OPERATOR" },
  "OperationsService/RotateKeys": { request: {}, roles: "OPERATOR" },
  "OperationsService/GetStore": { request: { storeId: "store-1" }, roles: "SERVICE STORE AUDITOR OPERATOR" },
  "OperationsService/PutStore": { request: { storeId: "store-1", name: "Corner shop" }, roles: "SERVICE STORE OPERATOR" },
  "AuditService/VerifyLog": { request: {}, roles: "AUDITOR OPERATOR" },
  "AuditService/ReadLog": { request: {}, roles: "SERVICE AUDITOR OPERATOR" },
  "AuditService/ReplayOrder": { order: true, request: {}, roles: "SERVICE AUDITOR OPERATOR" },
  "AuditService/ExplainOrder": { order: true, request: {}, roles: "SERVICE AUDITOR OPERATOR" },
  "AuditService/EraseCustomer": { request: { customerId: "customer-9" }, roles: "SERVICE OPERATOR" },
  "AuditService/ExportCustomerData": { request: { customerId: "customer-1" }, roles: "SERVICE CUSTOMER OPERATOR" },
  "DeliveryService/QuoteDelivery": { order: true, request: {}, roles: "SERVICE STORE OPERATOR" },
  "DeliveryService/RequestDelivery": { order: true, request: {}, roles: "SERVICE STORE OPERATOR" },
  "DeliveryService/GetDelivery": { order: true, request: {}, roles: "SERVICE STORE PARTNER AUDITOR OPERATOR" },
  "DeliveryService/CancelDelivery": { order: true, request: {}, roles: "SERVICE STORE OPERATOR" },
  "NotificationService/GetPreferences": { request: { customerId: "customer-1" }, roles: "SERVICE CUSTOMER OPERATOR" },
  "NotificationService/UpdatePreferences": {
    request: { customerId: "customer-1", channels: ["NOTIFICATION_CHANNEL_SMS"] },
    roles: "SERVICE CUSTOMER OPERATOR",
  },
  "NotificationService/RegisterPushToken": {
    request: { customerId: "customer-1", token: "token-of-a-device", platform: "PUSH_PLATFORM_WEB" },
    roles: "SERVICE CUSTOMER OPERATOR",
  },
  "NotificationService/UnregisterPushToken": {
    request: { customerId: "customer-1", token: "token-of-a-device" },
    roles: "SERVICE CUSTOMER OPERATOR",
  },
  "NotificationService/OptInWhatsApp": {
    request: { customerId: "customer-1", phone: "+4915123456789", source: "test", wording: "Yes" },
    roles: "SERVICE CUSTOMER OPERATOR",
  },
  "NotificationService/OptOutWhatsApp": { request: { customerId: "customer-1" }, roles: "SERVICE CUSTOMER OPERATOR" },
  "NotificationService/ListNotifications": { request: {}, roles: "SERVICE CUSTOMER STORE AUDITOR OPERATOR" },
  "NotificationService/ExplainNotifications": { order: true, request: {}, roles: "SERVICE CUSTOMER STORE AUDITOR OPERATOR" },
  "NotificationService/WatchNotifications": { request: { customerId: "customer-1" }, roles: "SERVICE CUSTOMER OPERATOR" },
  "AuthService/IssueToken": { request: { clientId: "nobody", clientSecret: "wrong" }, roles: "public" },
  "AuthService/RefreshToken": { request: { refreshToken: "wrong" }, roles: "public" },
  "AuthService/RevokeToken": { request: { token: "wrong" }, roles: "public" },
  "AuthService/RevokeAccess": { request: { tokenId: "none" }, roles: "OPERATOR" },
  "AuthService/CreateTrackingLink": { order: true, request: {}, roles: "SERVICE CUSTOMER STORE OPERATOR" },
  "AuthService/RevokeTrackingLink": { order: true, request: { linkId: "none" }, roles: "SERVICE CUSTOMER STORE OPERATOR" },
};

/** The kinds of callers whose order is "own", and whose it is not. The holder of a tracking link is the eighth. */
const CALLERS: readonly TestCaller[] = [
  { role: Role.SERVICE, subject: "checkout" },
  { role: Role.CUSTOMER, subject: "customer-1" },
  { role: Role.STORE, subject: "clerk-1", storeId: "store-1" },
  { role: Role.DRIVER, subject: "driver-1" },
  { role: Role.PARTNER, subject: "uber" },
  { role: Role.AUDITOR, subject: "auditor-1" },
  { role: Role.OPERATOR, subject: "operator-1" },
];
const LINK: TestCaller = { role: Role.LINK, subject: "" };
const OWNERS: readonly Role[] = [Role.CUSTOMER, Role.STORE, Role.DRIVER, Role.PARTNER, Role.LINK];
const DECIDED_BY_THE_STATE_TABLE: readonly Code[] = [Code.FailedPrecondition, Code.AlreadyExists];
const CHECKOUT = CALLERS[0] as TestCaller;
const OPERATOR = CALLERS.at(-1) as TestCaller;

/** Paths that show a token of another kind. */
const OTHER_PROOF = /webhooks|unsubscribe/;

/** Streams that go on for as long as somebody listens: their first answer says that they are open. */
const ENDLESS: readonly string[] = ["WatchTracking", "WatchDriverLocation", "WatchNotifications"];

type Door = "grpc" | "connect" | "rest";
type Outcome = { readonly code: Code | "ok"; readonly message: string };

async function overRpc(app: TestApp, door: "grpc" | "connect", bearer: Bearer, method: DescMethod, request: JsonObject): Promise<Outcome> {
  const transport = app.transport(door, bearer);
  const input = fromJson(method.input, request);
  try {
    if (method.methodKind === "unary") await transport.unary(method as DescMethodUnary, undefined, undefined, undefined, input);
    else {
      const leave = new AbortController();
      const answer = await transport.stream(method as DescMethodStreaming, leave.signal, undefined, undefined, only(input));
      for await (const message of answer.message) {
        if (isMessage(message, StreamLocationsResponseSchema)) return outcomeOfPoints(message);
        if (ENDLESS.includes(method.name)) break;
      }
      leave.abort();
    }
    return { code: "ok", message: "" };
  } catch (error) {
    const { code, message } = ConnectError.from(error);
    return { code, message };
  }
}

/** Points do not end their stream: what one on another's order would be refused with is told of it. */
function outcomeOfPoints({ dropped: [dropped], examples: [example] }: StreamLocationsResponse): Outcome {
  if (dropped?.reason !== LocationDropReason.UNKNOWN_ORDER) return { code: "ok", message: "" };
  return { code: Code.NotFound, message: `${example?.orderId}: ${example?.detail}` };
}

async function* only<Item>(value: Item): AsyncGenerator<Item> {
  yield value;
}

/** By the first of the RPC's REST paths. */
async function overRest(app: TestApp, bearer: Bearer, method: DescMethod, request: JsonObject): Promise<Outcome> {
  const route = ROUTES.find((candidate) => candidate.method === method);
  if (!route) throw new Error(`${method.name} has no REST path`);
  const left = { ...request };
  const path = route.template.replaceAll(/\{(\w+)\}/g, (_, name: string) => {
    const { jsonName = "" } = method.input.fields.find((field) => field.name === name) ?? {};
    const value = String(left[jsonName]);
    delete left[jsonName];
    return value;
  });
  if (ENDLESS.includes(method.name)) {
    const leave = new AbortController();
    const { status } = await app.get(bearer, path, { signal: leave.signal });
    leave.abort();
    if (status === 200) return { code: "ok", message: "" };
  }
  const hasQuery = route.body === "none" && Object.keys(left).length > 0;
  const address = hasQuery ? `${path}?${new URLSearchParams(left as Record<string, string>)}` : path;
  const { status, body } = await app.rest(bearer, route.httpMethod, address, route.body === "none" ? undefined : left);
  if (status === 200) return { code: "ok", message: "" };
  expect(status, path).toBe(ERROR_SHAPES[body.code as keyof typeof ERROR_SHAPES].httpStatus);
  return { code: ERROR_SHAPES[body.code as keyof typeof ERROR_SHAPES].code, message: body.detail };
}

const outcomeOf = (app: TestApp, door: Door, bearer: Bearer, method: DescMethod, request: JsonObject) =>
  door === "rest" ? overRest(app, bearer, method, request) : overRpc(app, door, bearer, method, request);

/** A new order of somebody's, with a driver booked. */
async function makeOrder(
  app: TestApp,
  orderId: string,
  party: { customerId: string; storeId: string; deliveryProvider: 1 | 2; driverId: string },
): Promise<void> {
  const tracking = app.client(OrderTrackingService, "grpc", CHECKOUT);
  const { driverId, ...rest } = party;
  await tracking.initTracking({ orderId, ...rest });
  await tracking.assignDriver({ orderId, driverDetails: { driverId } });
}

/** An order that is everybody's own, and one that is others'. */
async function makeOrders(app: TestApp, name: string): Promise<{ own: string; other: string }> {
  const [own, other] = [`own-${name}`, `other-${name}`];
  await makeOrder(app, own, { customerId: "customer-1", storeId: "store-1", deliveryProvider: 1, driverId: "driver-1" });
  await makeOrder(app, other, { customerId: "customer-2", storeId: "store-2", deliveryProvider: 2, driverId: "driver-2" });
  return { own, other };
}

/** What the caller brings: for a link, one that was made for the order. */
async function bearerOf(app: TestApp, caller: TestCaller, orderId: string): Promise<Bearer> {
  if (caller !== LINK) return caller;
  return (await app.client(AuthService, "grpc", CHECKOUT).createTrackingLink({ orderId })).token;
}

const isReading = ({ idempotency }: DescMethod) => idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;

/** An RPC's request about an order. */
function requestFor(request: JsonObject, orderId: string): JsonObject {
  const { points } = request;
  return Array.isArray(points) ? { points: points.map((point) => ({ ...(point as JsonObject), orderId })) } : { ...request, orderId };
}

function servedOver(door: Door, method: DescMethod): boolean {
  if (method.methodKind === "bidi_streaming") return door === "grpc";
  return door !== "rest" || ROUTES.some((route) => route.method === method);
}

describe("every RPC of the permission table", () => {
  it("is called here", () => {
    const rpcs = [...PERMISSIONS.keys()].filter((name) => name.startsWith("ordertrail.v1."));
    expect(rpcs.sort()).toEqual(
      Object.keys(CALLED)
        .map((name) => `ordertrail.v1.${name}`)
        .sort(),
    );
  });

  it.each(["grpc", "connect", "rest"] as const)("is open to the roles it is for, on their own orders only, over %s", async (door) => {
    await using app = await startTestApp();
    const first = await makeOrders(app, "first");
    await app.client(OperationsService, "grpc", OPERATOR).putStore({ storeId: "store-1", name: "Corner shop" });
    await eventually(() => app.client(AuditService, "grpc", OPERATOR).getCheckpoint({}));
    for (const [rpc, { request, roles, order }] of Object.entries(CALLED)) {
      const method = METHODS.get(`ordertrail.v1.${rpc}`) as DescMethod;
      if (!servedOver(door, method) || roles === "public") continue;
      const check = async (caller: TestCaller) => {
        const role = Role[caller.role];
        const name = `${method.name}-${role}`;
        const allowed = roles.split(" ").includes(role);
        // What changes nothing may be asked of the same orders by all.
        const { own: ownId, other: otherId } = isReading(method) || !allowed ? first : await makeOrders(app, name);
        const bearer = await bearerOf(app, caller, ownId);
        const about = (orderId: string) => (order ? requestFor(request, orderId) : request);
        const own = await outcomeOf(app, door, bearer, method, about(ownId));
        const other = await outcomeOf(app, door, bearer, method, about(otherId));
        const none = await outcomeOf(app, door, bearer, method, about(otherId.replace("other-", "none-")));
        if (!allowed) {
          expect([own.code, other.code, none.code], name).toEqual(Array(3).fill(Code.PermissionDenied));
          return;
        }
        // The role may call it: whether the order may be moved so is then for the state table, which may forbid it to this role.
        if (own.code === Code.PermissionDenied) expect(own.message, name).toContain(`role ${role} may not `);
        else
          expect(
            own.code === "ok" || DECIDED_BY_THE_STATE_TABLE.includes(own.code) || own.message.includes("substitution_id"),
            `${name}: ${own.message}`,
          ).toBe(true);
        if (OWNERS.includes(caller.role) && order) {
          expect(other.code, name).toBe(Code.NotFound);
          // Another's order and none at all are told apart by nothing.
          expect({ ...none, message: none.message.replace("none-", "other-") }, name).toEqual(other);
        } else expect(other.code, name).toBe(own.code);
        if (order && method.name !== "InitTracking") expect(none.code, name).toBe(Code.NotFound);
      };
      // Each has orders of its own; what is about none, such as a rebuild, would meet the others'.
      if (order) await Promise.all([...CALLERS, LINK].map(check));
      else for (const caller of [...CALLERS, LINK]) await check(caller);
    }
  });

  it.each(["grpc", "connect", "rest"] as const)("needs a token that verifies, unless it is public, over %s", async (door) => {
    await using app = await startTestApp();
    for (const [rpc, { request, order }] of Object.entries(CALLED)) {
      const name = `ordertrail.v1.${rpc}`;
      const method = METHODS.get(name) as DescMethod;
      if (!servedOver(door, method)) continue;
      const full = order ? requestFor(request, "order-1") : request;
      const outcomes = [];
      for (const bearer of ["", "nonsense", ...(isPublic(name) ? CALLERS : [])])
        outcomes.push(await outcomeOf(app, door, bearer, method, full));
      // What is public looks at what the request brings, and never at the token.
      const [first] = outcomes;
      if (isPublic(name)) for (const outcome of outcomes) expect(outcome, rpc).toEqual(first);
      else
        expect(
          outcomes.map(({ code }) => code),
          rpc,
        ).toEqual([Code.Unauthenticated, Code.Unauthenticated]);
      if (isPublic(name)) expect(first?.message, rpc).not.toContain("Authorization: Bearer");
    }
  });
});

describe("every other path of the permission table", () => {
  it("is served to anybody", async () => {
    await using app = await startTestApp();
    const paths = [...PERMISSIONS].filter(([name, { roles }]) => name.startsWith("GET /") && roles === "public" && !OTHER_PROOF.test(name));
    expect(paths.length).toBeGreaterThanOrEqual(4);
    for (const [name] of paths) {
      const response = await fetch(app.http + name.slice("GET ".length));
      expect([name, response.status]).toEqual([name, 200]);
      await response.body?.cancel();
    }
  });
});

describe("a customer's data", () => {
  it.each(["eraseCustomer", "exportCustomerData"] as const)(
    "opens %s to those who look after customers, and a customer's own data to them",
    async (rpc) => {
      await using app = await startTestApp();
      for (const caller of CALLERS) {
        const audit = app.client(AuditService, "grpc", caller);
        const call = (customerId: string) =>
          rpc === "eraseCustomer" ? audit.eraseCustomer({ customerId }) : audit.exportCustomerData({ customerId });
        const denied = { code: Code.PermissionDenied };
        const all = caller.role === Role.SERVICE || caller.role === Role.OPERATOR;
        const own = all || (caller.role === Role.CUSTOMER && rpc === "exportCustomerData");
        if (own) await call("customer-1");
        else await expect(call("customer-1"), Role[caller.role]).rejects.toMatchObject(denied);
        if (all) await call("customer-2");
        else await expect(call("customer-2"), Role[caller.role]).rejects.toMatchObject(denied);
      }
    },
  );
});
