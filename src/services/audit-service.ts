import type { AuditService } from "../gen/ordertrail/v1/audit_service_pb.js";
import { type AuditReadingOptions, createAuditReadingHandlers } from "./audit-reading.ts";
import { type AuditTreeOptions, createAuditTreeHandlers } from "./audit-tree.ts";
import type { ServiceHandlers } from "./call.ts";
import { type CustomerPrivacyDependencies, createCustomerPrivacy } from "./customer-privacy.ts";

/** AuditService: reads and proves the history, and looks after the people in it. */
export function createAuditService(
  options: AuditTreeOptions & AuditReadingOptions & CustomerPrivacyDependencies,
): ServiceHandlers<typeof AuditService> {
  return { ...createAuditTreeHandlers(options), ...createAuditReadingHandlers(options), ...createCustomerPrivacy(options) };
}
