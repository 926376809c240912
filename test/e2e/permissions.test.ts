import { type DescMethodUnary, fromJson, type JsonObject } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { AuditService } from "../../src/gen/ordertrail/v1/audit_service_pb.js";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { startTestApp, type TestApp, type TestCaller } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";

const item = { itemId: "apples", name: "Apples", quantity: 1, unitPrice: { amountMinor: "349", currency: "EUR" } };

/** Every RPC: a valid request, and the roles that may call it, written down apart from the table that the server reads. */
const RPCS: { readonly [rpc in keyof typeof OrderTrackingService.method]: { readonly request: JsonObject; readonly roles: string } } = {
  initTracking: { request: { storeId: "store-1", customerId: "customer-1" }, roles: "SERVICE OPERATOR" },
  getTracking: { request: {}, roles: "SERVICE CUSTOMER STORE DRIVER PARTNER AUDITOR OPERATOR" },
  listTrackings: { request: {}, roles: "SERVICE CUSTOMER STORE DRIVER PARTNER AUDITOR OPERATOR" },
  getHistory: { request: {}, roles: "SERVICE CUSTOMER STORE DRIVER PARTNER AUDITOR OPERATOR" },
  updateStatus: { request: { status: "ORDER_STATUS_SUBMITTED" }, roles: "SERVICE CUSTOMER STORE DRIVER PARTNER OPERATOR" },
  acknowledgeOrder: { request: {}, roles: "SERVICE STORE OPERATOR" },
  updateSubstitutions: { request: { substitutions: [{ originalItem: item }] }, roles: "SERVICE CUSTOMER STORE OPERATOR" },
  resolveSubstitutions: { request: { resolutions: [{ substitutionId: "s-1", approved: true }] }, roles: "SERVICE CUSTOMER OPERATOR" },
  assignDriver: { request: { driverDetails: { driverId: "driver-1" } }, roles: "SERVICE STORE PARTNER OPERATOR" },
  updateLocation: { request: { latitude: 1, longitude: 2 }, roles: "SERVICE DRIVER PARTNER OPERATOR" },
  markDelivered: { request: {}, roles: "SERVICE DRIVER PARTNER OPERATOR" },
  cancelOrder: { request: { reason: "changed my mind" }, roles: "SERVICE CUSTOMER STORE OPERATOR" },
};

/** The seven kinds of callers whose order is "own", and whose it is not. */
const CALLERS: readonly TestCaller[] = [
  { role: Role.SERVICE, subject: "checkout" },
  { role: Role.CUSTOMER, subject: "customer-1" },
  { role: Role.STORE, subject: "clerk-1", storeId: "store-1" },
  { role: Role.DRIVER, subject: "driver-1" },
  { role: Role.PARTNER, subject: "uber" },
  { role: Role.AUDITOR, subject: "auditor-1" },
  { role: Role.OPERATOR, subject: "operator-1" },
];
const OWNERS: readonly Role[] = [Role.CUSTOMER, Role.STORE, Role.DRIVER, Role.PARTNER];
const DECIDED_BY_THE_STATE_TABLE: readonly Code[] = [Code.FailedPrecondition, Code.AlreadyExists];

type Call = { readonly caller: TestCaller; readonly method: DescMethodUnary; readonly request: JsonObject };

/** "ok", or the code of the error and the message. */
async function outcomeOf(
  app: TestApp,
  door: "grpc" | "connect",
  { caller, method, request }: Call,
): Promise<{ readonly code: Code | "ok"; readonly message: string }> {
  try {
    await app.transport(door, caller).unary(method, undefined, undefined, undefined, fromJson(method.input, request));
    return { code: "ok", message: "" };
  } catch (error) {
    const { code, message } = ConnectError.from(error);
    return { code, message };
  }
}

/** A new order of somebody's, with a driver booked. */
async function makeOrder(
  app: TestApp,
  orderId: string,
  party: { customerId: string; storeId: string; deliveryProvider: 1 | 2; driverId: string },
): Promise<void> {
  const tracking = app.client(OrderTrackingService, "grpc", { role: Role.SERVICE, subject: "checkout" });
  const { driverId, ...rest } = party;
  await tracking.initTracking({ orderId, ...rest });
  await tracking.assignDriver({ orderId, driverDetails: { driverId } });
}

describe("every RPC by every role", () => {
  it.each(["grpc", "connect"] as const)("is open to the roles it is for, on their own orders only, over %s", async (door) => {
    await using app = await startTestApp();
    for (const [rpc, { request, roles }] of Object.entries(RPCS)) {
      const method: DescMethodUnary = OrderTrackingService.method[rpc as keyof typeof RPCS];
      for (const caller of CALLERS) {
        const role = Role[caller.role];
        const name = `${rpc}-${role}`;
        await makeOrder(app, `own-${name}`, { customerId: "customer-1", storeId: "store-1", deliveryProvider: 1, driverId: "driver-1" });
        await makeOrder(app, `other-${name}`, { customerId: "customer-2", storeId: "store-2", deliveryProvider: 2, driverId: "driver-2" });
        const about = (order: string) => (rpc === "listTrackings" ? request : { ...request, orderId: `${order}-${name}` });
        const own = await outcomeOf(app, door, { caller, method, request: about("own") });
        const other = await outcomeOf(app, door, { caller, method, request: about("other") });
        if (!roles.split(" ").includes(role)) {
          expect([own.code, other.code], name).toEqual([Code.PermissionDenied, Code.PermissionDenied]);
          continue;
        }
        // The role may call it: whether the order may be moved so is then for the state table, which may forbid it to this role.
        if (own.code === Code.PermissionDenied) expect(own.message, name).toContain(`role ${role} may not `);
        else
          expect(
            own.code === "ok" || DECIDED_BY_THE_STATE_TABLE.includes(own.code) || own.message.includes("substitution_id"),
            `${name}: ${own.message}`,
          ).toBe(true);
        if (OWNERS.includes(caller.role) && rpc !== "listTrackings") expect(other.code, name).toBe(Code.NotFound);
        else expect(other.code, name).toBe(own.code);
      }
    }
  });

  it("answers UNAUTHENTICATED to everybody without a token that verifies", async () => {
    await using app = await startTestApp();
    for (const method of [...OrderTrackingService.methods, OperationsService.method.listProjections]) {
      for (const authorization of [undefined, "Bearer nonsense", "Basic dXNlcjpwYXNz"]) {
        const response = await fetch(`${app.http}/${method.parent.typeName}/${method.name}`, {
          method: "POST",
          headers: { "content-type": "application/json", ...(authorization && { authorization }) },
          body: "{}",
        });
        expect([response.status, await response.json()], method.name).toMatchObject([401, { code: "unauthenticated" }]);
      }
    }
  });

  it.each(["getCheckpoint", "getInclusionProof", "getConsistencyProof", "verifyLog"] as const)(
    "opens %s to auditors and operators only",
    async (rpc) => {
      await using app = await startTestApp();
      await makeOrder(app, "o", { customerId: "customer-1", storeId: "store-1", deliveryProvider: 1, driverId: "driver-1" });
      for (const caller of CALLERS) {
        const audit = app.client(AuditService, "grpc", caller);
        const call = async () => {
          if (rpc === "getInclusionProof") return await audit.getInclusionProof({ entry: { case: "orderId", value: "o" } });
          if (rpc !== "verifyLog") return await eventually<unknown>(() => audit[rpc]({}));
          for await (const _ of audit.verifyLog({}));
          return undefined;
        };
        if (caller.role === Role.AUDITOR || caller.role === Role.OPERATOR) await eventually(call);
        else
          await expect(
            rpc === "verifyLog" ? call() : audit[rpc]({ entry: { case: "position", value: 1n } }),
            Role[caller.role],
          ).rejects.toMatchObject({ code: Code.PermissionDenied });
      }
    },
  );

  it.each([
    ["readLog", "grpc"],
    ["readLog", "connect"],
    ["replayOrder", "grpc"],
    ["replayOrder", "connect"],
    ["explainOrder", "grpc"],
    ["explainOrder", "connect"],
  ] as const)("opens %s over %s to services, auditors and operators only, whosever the order is", async (rpc, door) => {
    await using app = await startTestApp();
    await makeOrder(app, "own", { customerId: "customer-1", storeId: "store-1", deliveryProvider: 1, driverId: "driver-1" });
    await makeOrder(app, "other", { customerId: "customer-2", storeId: "store-2", deliveryProvider: 2, driverId: "driver-2" });
    for (const caller of CALLERS) {
      const audit = app.client(AuditService, door, caller);
      for (const orderId of ["own", "other"]) {
        const call = async () => {
          if (rpc === "explainOrder") return await audit.explainOrder({ orderId });
          for await (const _ of rpc === "readLog" ? audit.readLog({ stream: `order-${orderId}` }) : audit.replayOrder({ orderId }));
          return undefined;
        };
        if ([Role.SERVICE, Role.AUDITOR, Role.OPERATOR].includes(caller.role)) await call();
        else await expect(call(), Role[caller.role]).rejects.toMatchObject({ code: Code.PermissionDenied });
      }
    }
  });

  it.each(["listProjections", "rebuildProjection", "verifyProjection"] as const)(
    "opens %s to those who look after the system only",
    async (rpc) => {
      await using app = await startTestApp();
      for (const caller of CALLERS) {
        const operations = app.client(OperationsService, "grpc", caller);
        const call = async () => {
          if (rpc === "listProjections") return await operations.listProjections({});
          for await (const _ of operations[rpc]({ name: "order_tracking" }));
          return undefined;
        };
        const allowed = caller.role === Role.OPERATOR || (caller.role === Role.AUDITOR && rpc !== "rebuildProjection");
        if (allowed) await call();
        else await expect(call(), Role[caller.role]).rejects.toMatchObject({ code: Code.PermissionDenied });
      }
    },
  );
});
