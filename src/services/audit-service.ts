import type { AuditService } from "../gen/ordertrail/v1/audit_service_pb.js";
import { type AuditTreeOptions, createAuditTreeHandlers } from "./audit-tree.ts";
import type { ServiceHandlers } from "./call.ts";

/** AuditService: proves the history. */
export function createAuditService(options: AuditTreeOptions): ServiceHandlers<typeof AuditService> {
  return { ...createAuditTreeHandlers(options) };
}
