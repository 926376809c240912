import { Code } from "@connectrpc/connect";
import type { RefusalReason } from "../domain/refusal.ts";

/** What a reason is called in each protocol. */
export type ErrorShape = {
  /** The code of gRPC and Connect; their numbers are the same. */
  readonly code: Code;
  /** The HTTP status in REST. */
  readonly httpStatus: number;
  /** After how long it is worth trying again, unless the failure says otherwise; absent where waiting alone does not help. */
  readonly retryAfterSeconds?: number;
};

/** Every reason of error_reason.proto. */
export const ERROR_SHAPES: Readonly<Record<RefusalReason, ErrorShape>> = {
  VALIDATION_FAILED: { code: Code.InvalidArgument, httpStatus: 400 },
  MALFORMED_REQUEST: { code: Code.InvalidArgument, httpStatus: 400 },
  UNAUTHENTICATED: { code: Code.Unauthenticated, httpStatus: 401 },
  PERMISSION_DENIED: { code: Code.PermissionDenied, httpStatus: 403 },
  ORDER_NOT_FOUND: { code: Code.NotFound, httpStatus: 404 },
  PROJECTION_NOT_FOUND: { code: Code.NotFound, httpStatus: 404 },
  STORE_NOT_FOUND: { code: Code.NotFound, httpStatus: 404 },
  ROUTE_NOT_FOUND: { code: Code.NotFound, httpStatus: 404 },
  METHOD_NOT_ALLOWED: { code: Code.Unimplemented, httpStatus: 405 },
  UNSUPPORTED_MEDIA_TYPE: { code: Code.InvalidArgument, httpStatus: 415 },
  // gRPC and Connect libraries call a message over their limit RESOURCE_EXHAUSTED; one code for one cause.
  PAYLOAD_TOO_LARGE: { code: Code.ResourceExhausted, httpStatus: 413 },
  ORDER_ALREADY_EXISTS: { code: Code.AlreadyExists, httpStatus: 409 },
  INVALID_STATUS_TRANSITION: { code: Code.FailedPrecondition, httpStatus: 409 },
  DRIVER_NOT_ASSIGNED: { code: Code.FailedPrecondition, httpStatus: 409 },
  SUBSTITUTION_NOT_FOUND: { code: Code.NotFound, httpStatus: 404 },
  SUBSTITUTION_ALREADY_RESOLVED: { code: Code.FailedPrecondition, httpStatus: 409 },
  SUBSTITUTION_ALREADY_EXISTS: { code: Code.AlreadyExists, httpStatus: 409 },
  REQUEST_ID_REUSED: { code: Code.FailedPrecondition, httpStatus: 409 },
  CONFLICT: { code: Code.Aborted, httpStatus: 409 },
  RATE_LIMITED: { code: Code.ResourceExhausted, httpStatus: 429, retryAfterSeconds: 1 },
  OVERLOADED: { code: Code.ResourceExhausted, httpStatus: 429, retryAfterSeconds: 1 },
  UNAVAILABLE: { code: Code.Unavailable, httpStatus: 503, retryAfterSeconds: 1 },
  DEADLINE_EXCEEDED: { code: Code.DeadlineExceeded, httpStatus: 504 },
  // No answer reaches a caller who left; 499 is what proxies write into their logs.
  CANCELLED: { code: Code.Canceled, httpStatus: 499 },
  INTERNAL: { code: Code.Internal, httpStatus: 500 },
  UNIMPLEMENTED: { code: Code.Unimplemented, httpStatus: 501 },
  CUSTOMER_ERASED: { code: Code.FailedPrecondition, httpStatus: 409 },
  CUSTOMER_HAS_ORDERS_UNDER_WAY: { code: Code.FailedPrecondition, httpStatus: 409 },
  STORE_NOT_CONFIGURED: { code: Code.FailedPrecondition, httpStatus: 409 },
  RECIPIENT_INCOMPLETE: { code: Code.FailedPrecondition, httpStatus: 409 },
  PROVIDER_NOT_ENABLED: { code: Code.FailedPrecondition, httpStatus: 409 },
  DELIVERY_UNDER_WAY: { code: Code.FailedPrecondition, httpStatus: 409 },
  DELIVERY_NOT_REQUESTED: { code: Code.FailedPrecondition, httpStatus: 409 },
  NO_PROVIDER_AVAILABLE: { code: Code.FailedPrecondition, httpStatus: 409 },
  DELIVERY_NOT_CANCELLABLE: { code: Code.FailedPrecondition, httpStatus: 409 },
  LOG_DAMAGED: { code: Code.DataLoss, httpStatus: 500 },
  NOT_COVERED: { code: Code.NotFound, httpStatus: 404, retryAfterSeconds: 1 },
};

/** Which reason stands behind an error that a protocol library made itself, such as for a message that does not parse. */
export function reasonOfCode(code: Code): RefusalReason {
  switch (code) {
    case Code.InvalidArgument:
    case Code.OutOfRange:
    case Code.DataLoss:
      return "MALFORMED_REQUEST";
    case Code.ResourceExhausted:
      return "PAYLOAD_TOO_LARGE";
    case Code.Unimplemented:
      return "UNIMPLEMENTED";
    case Code.Unavailable:
      return "UNAVAILABLE";
    case Code.DeadlineExceeded:
      return "DEADLINE_EXCEEDED";
    case Code.Canceled:
    case Code.Aborted:
      return "CANCELLED";
    case Code.Unauthenticated:
      return "UNAUTHENTICATED";
    case Code.PermissionDenied:
      return "PERMISSION_DENIED";
    case Code.NotFound:
    case Code.AlreadyExists:
    case Code.FailedPrecondition:
    case Code.Internal:
    case Code.Unknown:
      return "INTERNAL";
  }
}
