import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { roleName, TOKEN_ROLES } from "../../src/access/claims.ts";
import {
  assertComplete,
  checkFilters,
  checkMethod,
  isPublic,
  mayAccess,
  type OrderParties,
  PERMISSIONS,
  scopeOf,
  seesPersonalData,
} from "../../src/access/permissions.ts";
import type { Caller } from "../../src/domain/caller.ts";
import { DeliveryProvider, OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { AuditService } from "../../src/gen/ordertrail/v1/audit_service_pb.js";
import { AuthService } from "../../src/gen/ordertrail/v1/auth_service_pb.js";
import { DeliveryService } from "../../src/gen/ordertrail/v1/delivery_service_pb.js";
import { DriverLocationService } from "../../src/gen/ordertrail/v1/driver_location_service_pb.js";
import { NotificationService } from "../../src/gen/ordertrail/v1/notification_service_pb.js";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";

const SERVICES = [
  OrderTrackingService,
  DriverLocationService,
  OperationsService,
  AuditService,
  AuthService,
  DeliveryService,
  NotificationService,
];
const RPCS = SERVICES.flatMap((service) => service.methods.map((method) => `${service.typeName}/${method.name}`));

/** What is served besides the services, by libraries or as documents. */
const OTHERS = [
  "grpc.health.v1.Health/Check",
  "grpc.health.v1.Health/List",
  "grpc.health.v1.Health/Watch",
  "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
  "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
  "GET /healthz",
  "GET /readyz",
  "GET /openapi.json",
  "GET /.well-known/jwks.json",
];
/** What is served of the log besides RPCs. */
const AUDIT_PATHS = ["GET /audit/checkpoint", "GET /audit/tile/{level}/{index}", "GET /audit/tile/entries/{index}"];
/** For those who run it. */
const METRICS = "GET /metrics";
/** Where providers tell how deliveries stand, by a signature instead of a token. */
const WEBHOOKS = ["POST /webhooks/uber", "POST /webhooks/doordash"];
/** Where those who carry messages tell what became of them, and where emails are unsubscribed from: by a signature, a word, or a link of ours. */
const MESSAGES = [
  ...["POST /webhooks/sendgrid", "POST /webhooks/twilio", "POST /webhooks/whatsapp", "GET /webhooks/whatsapp"],
  ...["GET /unsubscribe/{customer_id}/{token}", "POST /unsubscribe/{customer_id}/{token}"],
];
const PUBLIC = ["IssueToken", "RefreshToken", "RevokeToken"].map((name) => `ordertrail.v1.AuthService/${name}`);

const order = {
  orderId: "order-1",
  customerId: "customer-1",
  storeId: "store-1",
  deliveryProvider: DeliveryProvider.UBER,
  driver: { driverId: "driver-1" } as NonNullable<OrderParties["driver"]>,
};

/** A caller of each role to whom `order` belongs, as far as orders belong to the role. */
const owners = {
  service: { role: Role.SERVICE, subject: "checkout" },
  customer: { role: Role.CUSTOMER, subject: "customer-1" },
  store: { role: Role.STORE, subject: "clerk-1", storeId: "store-1" },
  driver: { role: Role.DRIVER, subject: "driver-1" },
  partner: { role: Role.PARTNER, subject: "uber", provider: DeliveryProvider.UBER },
  auditor: { role: Role.AUDITOR, subject: "auditor-1" },
  operator: { role: Role.OPERATOR, subject: "operator-1" },
  link: { role: Role.LINK, subject: "link-1", orderId: "order-1" },
} satisfies Readonly<Record<string, Caller>>;
const callers = Object.entries<Caller>(owners);
const owner = (role: string) => new Map(callers).get(role) as Caller;

const others: readonly OrderParties[] = [
  {
    ...order,
    orderId: "order-2",
    customerId: "customer-2",
    storeId: "store-2",
    deliveryProvider: DeliveryProvider.DOORDASH,
    driver: undefined,
  },
  {
    ...order,
    orderId: "order-2",
    customerId: "store-1",
    storeId: "customer-1",
    deliveryProvider: DeliveryProvider.UNSPECIFIED,
    driver: undefined,
  },
];

describe("the permission table", () => {
  it("has every RPC and path, and none that does not exist", () => {
    expect(() => assertComplete(SERVICES, [...OTHERS, METRICS, ...AUDIT_PATHS, ...WEBHOOKS, ...MESSAGES])).not.toThrow();
    expect([...PERMISSIONS.keys()].sort()).toEqual([...RPCS, ...OTHERS, METRICS, ...AUDIT_PATHS, ...WEBHOOKS, ...MESSAGES].sort());
  });

  it("opens to everybody what looks at something else than a token, and what operators and verifiers ask for", () => {
    expect([...PERMISSIONS.keys()].filter(isPublic).sort()).toEqual([...PUBLIC, ...OTHERS, ...MESSAGES].sort());
  });

  it("opens to the holder of a tracking link the order, its history and the watching of it, and nothing else", () => {
    const opened = RPCS.filter((rpc) => !isPublic(rpc) && isOpenTo(owners.link, rpc));
    expect(opened).toEqual([
      ...["GetTracking", "GetHistory", "WatchTracking"].map((name) => `ordertrail.v1.OrderTrackingService/${name}`),
      "ordertrail.v1.DriverLocationService/WatchDriverLocation",
    ]);
  });

  it("is found incomplete when an RPC is missing", () => {
    const [first, ...rest] = OrderTrackingService.methods;
    const grown = { ...OrderTrackingService, methods: [{ ...first, name: "EraseEverything" } as typeof first, ...rest] };
    expect(() => assertComplete([grown as typeof OrderTrackingService])).toThrow("ordertrail.v1.OrderTrackingService/EraseEverything");
    expect(() => assertComplete(SERVICES, ["GET /secrets"])).toThrow("GET /secrets");
  });

  it.each(documentedCells())("lets a %2$s call %1$s as documented: %3$s", (rpc, role, cell) => {
    const caller = owner(role);
    if (cell === "public") {
      expect(isPublic(rpc)).toBe(true);
      return;
    }
    if (cell === "–") {
      expect(() => checkMethod(caller, rpc)).toThrow(
        expect.objectContaining({ reason: "PERMISSION_DENIED", metadata: { role, method: rpc } }),
      );
      return;
    }
    expect(() => checkMethod(caller, rpc)).not.toThrow();
    const reachesOthers = PERMISSIONS.get(rpc)?.reach === "all" || others.some((other) => mayAccess(caller, other));
    expect(reachesOthers ? "all" : "own").toBe(cell);
  });

  it("is documented for every RPC and role", () => {
    const cells = documentedCells().map(([rpc, role]) => `${rpc} ${role}`);
    expect(cells.sort()).toEqual(RPCS.flatMap((rpc) => TOKEN_ROLES.map((role) => `${rpc} ${roleName(role)}`)).sort());
  });

  it.each(["ordertrail.v1.OrderTrackingService/None", "constructor", ""])("denies everybody the unknown RPC %j", (rpc) => {
    for (const [, caller] of callers)
      expect(() => checkMethod(caller, rpc)).toThrow(expect.objectContaining({ reason: "PERMISSION_DENIED" }));
  });

  it("denies everything to the roles that no token has", () => {
    for (const role of [Role.SYSTEM, Role.UNSPECIFIED]) {
      const caller = { role, subject: "x" };
      for (const rpc of RPCS.filter((name) => !isPublic(name)))
        expect(() => checkMethod(caller, rpc)).toThrow(expect.objectContaining({ reason: "PERMISSION_DENIED" }));
      expect(mayAccess(caller, order)).toBe(false);
      expect(() => scopeOf(caller)).toThrow(expect.objectContaining({ reason: "PERMISSION_DENIED" }));
    }
  });
});

describe("an order", () => {
  it.each(callers)("is there for its own %s", (_, caller) => {
    expect(mayAccess(caller, order)).toBe(true);
  });

  it.each(callers.filter(([role]) => !["service", "auditor", "operator"].includes(role)))("is not there for another %s", (_, caller) => {
    for (const other of others) expect(mayAccess(caller, other)).toBe(false);
  });

  it("without a provider or driver belongs to none", () => {
    const early = { ...order, deliveryProvider: DeliveryProvider.UNSPECIFIED, driver: undefined };
    expect(mayAccess({ role: Role.PARTNER, subject: "uber", provider: DeliveryProvider.UNSPECIFIED }, early)).toBe(false);
    expect(mayAccess({ role: Role.PARTNER, subject: "uber" }, early)).toBe(false);
    expect(mayAccess({ role: Role.DRIVER, subject: "" }, early)).toBe(false);
  });
});

describe("a list", () => {
  it.each<[string, object]>([
    ["service", {}],
    ["auditor", {}],
    ["operator", {}],
    ["customer", { customerId: "customer-1" }],
    ["store", { storeId: "store-1" }],
    ["driver", { driverId: "driver-1" }],
    ["partner", { provider: DeliveryProvider.UBER }],
  ])("of a %s holds %j", (role, scope) => {
    expect(scopeOf(owner(role))).toEqual(scope);
  });

  it("is refused, not unbounded, when the caller's store or provider is not known", () => {
    for (const role of [Role.STORE, Role.PARTNER]) {
      expect(() => scopeOf({ role, subject: "x" })).toThrow(expect.objectContaining({ reason: "PERMISSION_DENIED" }));
    }
  });

  it("may name oneself, and any other party, but not another of one's own kind", () => {
    const customer = scopeOf(owners.customer);
    expect(() =>
      checkFilters(customer, { customerId: "customer-1", storeId: "store-9", provider: DeliveryProvider.DOORDASH }),
    ).not.toThrow();
    expect(() => checkFilters(customer, { customerId: "customer-2" })).toThrow(
      expect.objectContaining({ reason: "PERMISSION_DENIED", metadata: { field: "customer_id" } }),
    );
    expect(() => checkFilters(scopeOf(owners.store), { storeId: "store-2" })).toThrow(
      expect.objectContaining({ reason: "PERMISSION_DENIED" }),
    );
    expect(() => checkFilters(scopeOf(owners.partner), { provider: DeliveryProvider.DOORDASH })).toThrow(
      expect.objectContaining({ reason: "PERMISSION_DENIED" }),
    );
    expect(() => checkFilters(scopeOf(owners.operator), { customerId: "customer-2", storeId: "store-2" })).not.toThrow();
  });
});

describe("personal data", () => {
  const statuses = Object.values(OrderStatus).filter(
    (status): status is OrderStatus => typeof status === "number" && status !== OrderStatus.UNSPECIFIED,
  );
  const {
    SUBMITTED,
    STORE_NOTIFIED,
    STORE_ACKNOWLEDGED,
    PICKING_IN_PROGRESS,
    SUBSTITUTIONS_NEEDED,
    READY_FOR_PICKUP,
    DELIVERED,
    CANCELLED,
  } = OrderStatus;
  const beforeDriver: readonly OrderStatus[] = [
    SUBMITTED,
    STORE_NOTIFIED,
    STORE_ACKNOWLEDGED,
    PICKING_IN_PROGRESS,
    SUBSTITUTIONS_NEEDED,
    READY_FOR_PICKUP,
  ];

  it.each(statuses.map((status) => [OrderStatus[status], status] as const))(
    "of an order that is %s is shown as documented",
    (_, status) => {
      const final = status === DELIVERED || status === CANCELLED;
      const driverKnown = !beforeDriver.includes(status) && !final && status !== OrderStatus.RETURNING;
      const seen = Object.fromEntries(callers.map(([role, caller]) => [role, seesPersonalData(caller, { ...order, status })]));
      expect(seen).toEqual({
        service: { recipient: true, driver: true },
        operator: { recipient: true, driver: true },
        store: { recipient: true, driver: true },
        customer: { recipient: true, driver: driverKnown },
        driver: { recipient: !final, driver: true },
        partner: { recipient: !final, driver: true },
        auditor: { recipient: false, driver: false },
        link: { recipient: false, driver: driverKnown },
      });
    },
  );

  it("of another's order is never shown", () => {
    for (const role of ["customer", "store", "driver", "partner"]) {
      for (const other of others) {
        expect(seesPersonalData(owner(role), { ...other, status: OrderStatus.IN_TRANSIT })).toEqual({ recipient: false, driver: false });
      }
    }
  });
});

function isOpenTo(caller: Caller, rpc: string): boolean {
  try {
    checkMethod(caller, rpc);
    return true;
  } catch {
    return false;
  }
}

/** The cells of the table in docs/access.md: RPC, role, what it says. */
function documentedCells(): [rpc: string, role: string, cell: string][] {
  const page = readFileSync(new URL("../../docs/access.md", import.meta.url), "utf8");
  const rows = page.split("\n").map((line) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
  const head = rows.find(([first]) => first === "RPC") ?? [];
  return rows
    .filter(([first]) => first?.includes("Service/"))
    .flatMap(([rpc, ...cells]) =>
      cells.map((cell, index) => [`ordertrail.v1.${rpc}`, head[index + 1] ?? "", cell] as [string, string, string]),
    );
}
