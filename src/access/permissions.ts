import type { DescService } from "@bufbuild/protobuf";
import type { Caller } from "../domain/caller.ts";
import type { OrderState } from "../domain/order.ts";
import { Refusal } from "../domain/refusal.ts";
import { DeliveryProvider, OrderStatus, Role } from "../gen/ordertrail/events/v1/values_pb.js";
import { roleName } from "./claims.ts";

/** Who may call an RPC, and what it is about. */
export type Permission = {
  readonly roles: readonly Role[];
  /**
   * What of the orders they reach by it. `own order`: one for which `mayAccess` holds, any other is "not found";
   * `own orders`: those within `scopeOf`; `all`: whose they are does not matter.
   */
  readonly reach: "own order" | "own orders" | "all";
};

const { SERVICE, CUSTOMER, STORE, DRIVER, PARTNER, AUDITOR, OPERATOR } = Role;

/**
 * Every RPC, by its full name. Which moves of an order a role may make by an RPC that it may call is for the domain's
 * state table to say.
 */
export const PERMISSIONS: ReadonlyMap<string, Permission> = new Map(
  Object.entries<Permission>({
    "ordertrail.v1.OrderTrackingService/InitTracking": { roles: [SERVICE, OPERATOR], reach: "all" },
    "ordertrail.v1.OrderTrackingService/GetTracking": {
      roles: [SERVICE, CUSTOMER, STORE, DRIVER, PARTNER, AUDITOR, OPERATOR],
      reach: "own order",
    },
    "ordertrail.v1.OrderTrackingService/ListTrackings": {
      roles: [SERVICE, CUSTOMER, STORE, DRIVER, PARTNER, AUDITOR, OPERATOR],
      reach: "own orders",
    },
    "ordertrail.v1.OrderTrackingService/GetHistory": {
      roles: [SERVICE, CUSTOMER, STORE, DRIVER, PARTNER, AUDITOR, OPERATOR],
      reach: "own order",
    },
    "ordertrail.v1.OrderTrackingService/UpdateStatus": { roles: [SERVICE, CUSTOMER, STORE, DRIVER, PARTNER, OPERATOR], reach: "own order" },
    "ordertrail.v1.OrderTrackingService/AcknowledgeOrder": { roles: [SERVICE, STORE, OPERATOR], reach: "own order" },
    "ordertrail.v1.OrderTrackingService/UpdateSubstitutions": { roles: [SERVICE, CUSTOMER, STORE, OPERATOR], reach: "own order" },
    "ordertrail.v1.OrderTrackingService/ResolveSubstitutions": { roles: [SERVICE, CUSTOMER, OPERATOR], reach: "own order" },
    "ordertrail.v1.OrderTrackingService/AssignDriver": { roles: [SERVICE, STORE, PARTNER, OPERATOR], reach: "own order" },
    "ordertrail.v1.OrderTrackingService/UpdateLocation": { roles: [SERVICE, DRIVER, PARTNER, OPERATOR], reach: "own order" },
    "ordertrail.v1.OrderTrackingService/MarkDelivered": { roles: [SERVICE, DRIVER, PARTNER, OPERATOR], reach: "own order" },
    "ordertrail.v1.OrderTrackingService/CancelOrder": { roles: [SERVICE, CUSTOMER, STORE, OPERATOR], reach: "own order" },
    "ordertrail.v1.OperationsService/ListProjections": { roles: [AUDITOR, OPERATOR], reach: "all" },
    "ordertrail.v1.OperationsService/RebuildProjection": { roles: [OPERATOR], reach: "all" },
    "ordertrail.v1.OperationsService/VerifyProjection": { roles: [AUDITOR, OPERATOR], reach: "all" },
    "ordertrail.v1.AuditService/GetCheckpoint": { roles: [AUDITOR, OPERATOR], reach: "all" },
    "ordertrail.v1.AuditService/GetInclusionProof": { roles: [AUDITOR, OPERATOR], reach: "all" },
    "ordertrail.v1.AuditService/GetConsistencyProof": { roles: [AUDITOR, OPERATOR], reach: "all" },
    "ordertrail.v1.AuditService/VerifyLog": { roles: [AUDITOR, OPERATOR], reach: "all" },
    "ordertrail.v1.AuditService/ReadLog": { roles: [SERVICE, AUDITOR, OPERATOR], reach: "all" },
    "ordertrail.v1.AuditService/ReplayOrder": { roles: [SERVICE, AUDITOR, OPERATOR], reach: "all" },
    "ordertrail.v1.AuditService/ExplainOrder": { roles: [SERVICE, AUDITOR, OPERATOR], reach: "all" },
  }),
);

/** Who may read an HTTP path that is no RPC's. */
export type PathPermission = {
  readonly roles: readonly Role[];
  /** Whether anybody may, without a token: `if configured`, where the server's configuration says so. */
  readonly open: "if configured" | "never";
};

const PATHS = {
  "/audit/checkpoint": { roles: [AUDITOR, OPERATOR], open: "if configured" },
  "/audit/tile/{level}/{index}": { roles: [AUDITOR, OPERATOR], open: "if configured" },
  "/audit/tile/entries/{index}": { roles: [AUDITOR, OPERATOR], open: "never" },
} as const satisfies Record<string, PathPermission>;

/** An HTTP path that is in the table. */
export type PathTemplate = keyof typeof PATHS;

/** Every HTTP path that needs a token and is no RPC's. */
export const PATH_PERMISSIONS: ReadonlyMap<string, PathPermission> = new Map(Object.entries<PathPermission>(PATHS));

/**
 * Throws a Refusal PERMISSION_DENIED unless the caller's role may read the path. Without a caller it answers whether the
 * path may be opened to anybody.
 */
export function checkPath(caller: Caller | undefined, path: PathTemplate): boolean {
  const { roles, open }: PathPermission = PATHS[path];
  if (!caller) return open === "if configured";
  if (roles.includes(caller.role)) return true;
  const role = roleName(caller.role);
  throw new Refusal("PERMISSION_DENIED", `role ${role} may not read ${path}; it is for ${roles.map(roleName).join(", ")}`, { role, path });
}

/** Throws an Error that names every RPC of these services that the table does not know. Call it before serving them. */
export function assertComplete(services: readonly DescService[]): void {
  const missing = services
    .flatMap((service) => service.methods.map((method) => `${service.typeName}/${method.name}`))
    .filter((name) => !PERMISSIONS.has(name));
  if (missing.length > 0) throw new Error(`nobody is given permission to call ${missing.join(", ")}: add a line to PERMISSIONS`);
}

/** Throws a Refusal PERMISSION_DENIED unless the caller's role may call the RPC, given as "package.Service/Method". */
export function checkMethod(caller: Caller, method: string): void {
  const roles = PERMISSIONS.get(method)?.roles ?? [];
  if (roles.includes(caller.role)) return;
  const role = roleName(caller.role);
  throw new Refusal("PERMISSION_DENIED", `role ${role} may not call ${method}; it is for ${roles.map(roleName).join(", ") || "nobody"}`, {
    role,
    method,
  });
}

/** What decides whose an order is. */
export type OrderParties = Pick<OrderState, "customerId" | "storeId" | "deliveryProvider" | "driver">;

/** Whether an order is the caller's to see. If not, it must look to them as if it did not exist. */
export function mayAccess(caller: Caller, order: OrderParties): boolean {
  switch (caller.role) {
    case Role.SERVICE:
    case Role.AUDITOR:
    case Role.OPERATOR:
      return true;
    case Role.CUSTOMER:
      return order.customerId === caller.subject;
    case Role.STORE:
      return order.storeId === caller.storeId;
    case Role.DRIVER:
      return order.driver?.driverId === caller.subject;
    case Role.PARTNER:
      return order.deliveryProvider !== DeliveryProvider.UNSPECIFIED && order.deliveryProvider === caller.provider;
    case Role.SYSTEM:
    case Role.UNSPECIFIED:
      return false;
  }
}

/** Which orders a caller may list: those that match what is set; all of them when nothing is. */
export type OrderScope = {
  readonly customerId?: string;
  readonly storeId?: string;
  readonly driverId?: string;
  readonly provider?: DeliveryProvider;
};

/** The orders for which `mayAccess` holds, as a filter. Throws a Refusal PERMISSION_DENIED for a caller who has none. */
export function scopeOf(caller: Caller): OrderScope {
  const { role, subject, storeId, provider } = caller;
  if (role === Role.SERVICE || role === Role.AUDITOR || role === Role.OPERATOR) return {};
  if (role === Role.CUSTOMER) return { customerId: subject };
  if (role === Role.DRIVER) return { driverId: subject };
  if (role === Role.STORE && storeId !== undefined) return { storeId };
  if (role === Role.PARTNER && provider !== undefined) return { provider };
  throw new Refusal("PERMISSION_DENIED", `role ${roleName(role)} has no orders to list`, { role: roleName(role) });
}

/** Throws a Refusal PERMISSION_DENIED when filters of a list name a customer, store or provider that the caller's scope rules out. */
export function checkFilters(scope: OrderScope, filters: Pick<OrderScope, "customerId" | "storeId" | "provider">): void {
  const outside = (["customerId", "storeId", "provider"] as const).find(
    (part) => scope[part] !== undefined && filters[part] !== undefined && filters[part] !== scope[part],
  );
  if (outside) {
    const field = FILTER_FIELDS[outside];
    throw new Refusal("PERMISSION_DENIED", `${field} may only be your own; leave it out to list all your orders`, { field });
  }
}

const FILTER_FIELDS = { customerId: "customer_id", storeId: "store_id", provider: "delivery_provider" };

const FINAL: readonly OrderStatus[] = [OrderStatus.DELIVERED, OrderStatus.CANCELLED];
const DRIVER_AT_WORK: readonly OrderStatus[] = [
  OrderStatus.DRIVER_ASSIGNED,
  OrderStatus.DRIVER_PICKUP_COMPLETE,
  OrderStatus.IN_TRANSIT,
  OrderStatus.RETURNING,
  OrderStatus.DELIVERED,
];

/**
 * Which personal data of an order a caller sees: `recipient` stands for the recipient, the notes and the proof of
 * delivery, `driver` for the driver's name, phone, plate and picture.
 */
export function seesPersonalData(
  caller: Caller,
  order: OrderParties & Pick<OrderState, "status">,
): { readonly recipient: boolean; readonly driver: boolean } {
  if (!mayAccess(caller, order)) return { recipient: false, driver: false };
  switch (caller.role) {
    case Role.SERVICE:
    case Role.OPERATOR:
    case Role.STORE:
      return { recipient: true, driver: true };
    case Role.CUSTOMER:
      return { recipient: true, driver: DRIVER_AT_WORK.includes(order.status) };
    case Role.DRIVER:
    case Role.PARTNER:
      // Whoever brings the goods needs the address until they are there, and not for ever.
      return { recipient: !FINAL.includes(order.status), driver: true };
    case Role.AUDITOR:
    case Role.SYSTEM:
    case Role.UNSPECIFIED:
      return { recipient: false, driver: false };
  }
}
