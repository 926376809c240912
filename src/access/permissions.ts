import type { DescService } from "@bufbuild/protobuf";
import type { Caller } from "../domain/caller.ts";
import type { OrderState } from "../domain/order.ts";
import { Refusal } from "../domain/refusal.ts";
import { DeliveryProvider, OrderStatus, Role } from "../gen/ordertrail/events/v1/values_pb.js";
import { roleName } from "./claims.ts";

/** Who may call an RPC or an HTTP path, and what it is about. */
export type Permission = {
  /** `public`: anybody, without a token. */
  readonly roles: readonly Role[] | "public";
  /**
   * What of the orders they reach by it. `own order`: one for which `mayAccess` holds, any other is "not found";
   * `own orders`: those within `scopeOf`; `own store`: no order, but a store, which a store may only ask about if it is itself; `all`: whose they are does not matter.
   */
  readonly reach: "own order" | "own orders" | "own store" | "all";
};

const { SERVICE, CUSTOMER, STORE, DRIVER, PARTNER, AUDITOR, OPERATOR, LINK } = Role;
const PUBLIC: Permission = { roles: "public", reach: "all" };

/**
 * Every RPC by its full name, its REST paths included, and every other HTTP path by "GET <path>" or "POST <path>". Which moves of an order a role may make by an RPC that it may call is for the domain's
 * state table to say.
 */
export const PERMISSIONS: ReadonlyMap<string, Permission> = new Map(
  Object.entries<Permission>({
    "ordertrail.v1.OrderTrackingService/InitTracking": { roles: [SERVICE, OPERATOR], reach: "all" },
    "ordertrail.v1.OrderTrackingService/GetTracking": {
      roles: [SERVICE, CUSTOMER, STORE, DRIVER, PARTNER, AUDITOR, OPERATOR, LINK],
      reach: "own order",
    },
    "ordertrail.v1.OrderTrackingService/ListTrackings": {
      roles: [SERVICE, CUSTOMER, STORE, DRIVER, PARTNER, AUDITOR, OPERATOR],
      reach: "own orders",
    },
    "ordertrail.v1.OrderTrackingService/GetHistory": {
      roles: [SERVICE, CUSTOMER, STORE, DRIVER, PARTNER, AUDITOR, OPERATOR, LINK],
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
    "ordertrail.v1.OrderTrackingService/WatchTracking": {
      roles: [SERVICE, CUSTOMER, STORE, DRIVER, PARTNER, AUDITOR, OPERATOR, LINK],
      reach: "own order",
    },
    "ordertrail.v1.DriverLocationService/StreamLocations": { roles: [SERVICE, DRIVER, PARTNER, OPERATOR], reach: "own order" },
    "ordertrail.v1.DriverLocationService/WatchDriverLocation": {
      roles: [SERVICE, CUSTOMER, STORE, DRIVER, PARTNER, AUDITOR, OPERATOR, LINK],
      reach: "own order",
    },
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
    "ordertrail.v1.OperationsService/ListDenials": { roles: [AUDITOR, OPERATOR], reach: "all" },
    "ordertrail.v1.OperationsService/RotateKeys": { roles: [OPERATOR], reach: "all" },
    "ordertrail.v1.OperationsService/GetStore": { roles: [SERVICE, STORE, AUDITOR, OPERATOR], reach: "own store" },
    "ordertrail.v1.OperationsService/PutStore": { roles: [SERVICE, STORE, OPERATOR], reach: "own store" },
    "ordertrail.v1.AuditService/EraseCustomer": { roles: [SERVICE, OPERATOR], reach: "all" },
    "ordertrail.v1.AuditService/ExportCustomerData": { roles: [SERVICE, CUSTOMER, OPERATOR], reach: "own orders" },
    // These look at what the request brings: a client's secret, a refresh token, the token to revoke.
    "ordertrail.v1.AuthService/IssueToken": PUBLIC,
    "ordertrail.v1.AuthService/RefreshToken": PUBLIC,
    "ordertrail.v1.AuthService/RevokeToken": PUBLIC,
    "ordertrail.v1.AuthService/RevokeAccess": { roles: [OPERATOR], reach: "all" },
    "ordertrail.v1.AuthService/CreateTrackingLink": { roles: [SERVICE, CUSTOMER, STORE, OPERATOR], reach: "own order" },
    "ordertrail.v1.AuthService/RevokeTrackingLink": { roles: [SERVICE, CUSTOMER, STORE, OPERATOR], reach: "own order" },
    "ordertrail.v1.DeliveryService/QuoteDelivery": { roles: [SERVICE, STORE, OPERATOR], reach: "own order" },
    "ordertrail.v1.DeliveryService/RequestDelivery": { roles: [SERVICE, STORE, OPERATOR], reach: "own order" },
    "ordertrail.v1.DeliveryService/GetDelivery": { roles: [SERVICE, STORE, PARTNER, AUDITOR, OPERATOR], reach: "own order" },
    "ordertrail.v1.DeliveryService/CancelDelivery": { roles: [SERVICE, STORE, OPERATOR], reach: "own order" },
    "ordertrail.v1.NotificationService/GetPreferences": { roles: [SERVICE, CUSTOMER, OPERATOR], reach: "own orders" },
    "ordertrail.v1.NotificationService/UpdatePreferences": { roles: [SERVICE, CUSTOMER, OPERATOR], reach: "own orders" },
    "ordertrail.v1.NotificationService/RegisterPushToken": { roles: [SERVICE, CUSTOMER, OPERATOR], reach: "own orders" },
    "ordertrail.v1.NotificationService/UnregisterPushToken": { roles: [SERVICE, CUSTOMER, OPERATOR], reach: "own orders" },
    "ordertrail.v1.NotificationService/OptInWhatsApp": { roles: [SERVICE, CUSTOMER, OPERATOR], reach: "own orders" },
    "ordertrail.v1.NotificationService/OptOutWhatsApp": { roles: [SERVICE, CUSTOMER, OPERATOR], reach: "own orders" },
    "ordertrail.v1.NotificationService/ListNotifications": { roles: [SERVICE, CUSTOMER, STORE, AUDITOR, OPERATOR], reach: "own orders" },
    "ordertrail.v1.NotificationService/ExplainNotifications": { roles: [SERVICE, CUSTOMER, STORE, AUDITOR, OPERATOR], reach: "own order" },
    "ordertrail.v1.NotificationService/WatchNotifications": { roles: [SERVICE, CUSTOMER, OPERATOR], reach: "own orders" },
    // Whoever carries messages shows no token either: a signature, a word that is agreed on, or a link that only we can make.
    "POST /webhooks/sendgrid": PUBLIC,
    "POST /webhooks/twilio": PUBLIC,
    "POST /webhooks/whatsapp": PUBLIC,
    "GET /webhooks/whatsapp": PUBLIC,
    "GET /unsubscribe/{customer_id}/{token}": PUBLIC,
    "POST /unsubscribe/{customer_id}/{token}": PUBLIC,
    // Providers show no token: their signature or credential makes them who they are.
    "POST /webhooks/uber": { roles: [PARTNER], reach: "own order" },
    "POST /webhooks/doordash": { roles: [PARTNER], reach: "own order" },
    "grpc.health.v1.Health/Check": PUBLIC,
    "grpc.health.v1.Health/List": PUBLIC,
    "grpc.health.v1.Health/Watch": PUBLIC,
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo": PUBLIC,
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": PUBLIC,
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /openapi.json": PUBLIC,
    "GET /.well-known/jwks.json": PUBLIC,
    "GET /metrics": { roles: [AUDITOR, OPERATOR], reach: "all" },
    "GET /audit/checkpoint": { roles: [AUDITOR, OPERATOR], reach: "all" },
    "GET /audit/tile/{level}/{index}": { roles: [AUDITOR, OPERATOR], reach: "all" },
    "GET /audit/tile/entries/{index}": { roles: [AUDITOR, OPERATOR], reach: "all" },
  }),
);

/**
 * Throws an Error that names every RPC of these services, and every one of the other names, that the table does not know.
 * Call it before serving them.
 */
export function assertComplete(services: readonly DescService[], others: readonly string[] = []): void {
  const rpcs = services.flatMap((service) => service.methods.map((method) => `${service.typeName}/${method.name}`));
  const missing = [...rpcs, ...others].filter((name) => !PERMISSIONS.has(name));
  if (missing.length > 0) throw new Error(`nobody is given permission to call ${missing.join(", ")}: add a line to PERMISSIONS`);
}

/** Whether anybody may call it, without a token. */
export function isPublic(method: string): boolean {
  return PERMISSIONS.get(method)?.roles === "public";
}

/** Throws a Refusal PERMISSION_DENIED unless the caller's role may call the RPC, given as "package.Service/Method", or the path, as "GET /path". */
export function checkMethod(caller: Caller, method: string): void {
  const roles = PERMISSIONS.get(method)?.roles ?? [];
  if (roles === "public" || roles.includes(caller.role)) return;
  const role = roleName(caller.role);
  throw new Refusal("PERMISSION_DENIED", `role ${role} may not call ${method}; it is for ${roles.map(roleName).join(", ") || "nobody"}`, {
    role,
    method,
  });
}

/** What decides whose an order is. */
export type OrderParties = Pick<OrderState, "orderId" | "customerId" | "storeId" | "deliveryProvider" | "driver">;

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
    case Role.LINK:
      return caller.orderId !== undefined && order.orderId === caller.orderId;
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
const DRIVER_COMES: readonly OrderStatus[] = [OrderStatus.DRIVER_ASSIGNED, OrderStatus.DRIVER_PICKUP_COMPLETE, OrderStatus.IN_TRANSIT];

/** Whether a caller is shown which driver it is, and where: a customer and the holder of a link only while the driver comes to them. */
export function seesDriver({ role }: Caller, { status }: Pick<OrderState, "status">): boolean {
  return (role !== Role.CUSTOMER && role !== Role.LINK) || DRIVER_COMES.includes(status);
}

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
      return { recipient: true, driver: seesDriver(caller, order) };
    case Role.DRIVER:
    case Role.PARTNER:
      // Whoever brings the goods needs the address until they are there, and not for ever.
      return { recipient: !FINAL.includes(order.status), driver: true };
    case Role.LINK:
      // Opened for the first name only: `presentToLink` shows no more.
      return { recipient: false, driver: seesDriver(caller, order) };
    case Role.AUDITOR:
    case Role.SYSTEM:
    case Role.UNSPECIFIED:
      return { recipient: false, driver: false };
  }
}
