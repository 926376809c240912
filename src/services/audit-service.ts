import type { AuditService } from "../gen/ordertrail/v1/audit_service_pb.js";
import { type AuditReadingOptions, createAuditReadingHandlers } from "./audit-reading.ts";
import { type AuditTreeOptions, createAuditTreeHandlers } from "./audit-tree.ts";
import type { ServiceHandlers } from "./call.ts";

/** AuditService: reads and proves the history. */
export function createAuditService(options: AuditTreeOptions & AuditReadingOptions): ServiceHandlers<typeof AuditService> {
  return { ...createAuditTreeHandlers(options), ...createAuditReadingHandlers(options) };
}
