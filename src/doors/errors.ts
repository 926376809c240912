import { create, type DescMessage, type Message, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { LogDamaged } from "../domain/log-damaged.ts";
import { Refusal, type RefusalReason, Unavailable, type Violation } from "../domain/refusal.ts";
import {
  type BadRequest_FieldViolation,
  BadRequest_FieldViolationSchema,
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  RetryInfoSchema,
} from "../gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../gen/google/rpc/status_pb.js";
import { ERROR_SHAPES, type ErrorShape, reasonOfCode } from "./error-table.ts";

const ERROR_DOMAIN = "ordertrail";
/** HTTP/2 peers commonly refuse more than 8 KiB of headers, and grpc-status-details-bin is one, in base64. */
const MAX_STATUS_DETAILS_BYTES = 4096;

type FailureDetails = {
  readonly metadata?: Readonly<Record<string, string>>;
  readonly violations?: readonly Violation[];
  readonly subject?: string;
  readonly cause?: unknown;
};

/** What a caller is told of a call that failed, in the words of every protocol. The cause, if any, is for the log only. */
export class CallFailure extends Error {
  override readonly name = "CallFailure";
  readonly reason: RefusalReason;
  readonly shape: ErrorShape;
  /** After how long it is worth trying again; absent where waiting alone does not help. */
  readonly retryAfterSeconds: number | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly Violation[];
  /** What it is about, such as an order_id; empty if nothing in particular. */
  readonly subject: string;

  constructor(reason: RefusalReason, message: string, more: FailureDetails = {}) {
    // Headers are written with encodeURI, which throws on half a surrogate pair.
    super(message.toWellFormed(), { cause: more.cause });
    this.reason = reason;
    this.shape = ERROR_SHAPES[reason];
    this.metadata = more.metadata ?? {};
    this.retryAfterSeconds = Number(this.metadata["retry_after_seconds"]) || this.shape.retryAfterSeconds;
    this.violations = more.violations ?? [];
    this.subject = more.subject ?? "";
  }
}

/**
 * What a caller is told of anything that was thrown. A Refusal is told as it is, a fault known to pass as UNAVAILABLE,
 * a log that is not whole as LOG_DAMAGED with the position, and any other as INTERNAL with the trace id by which the server's log explains it. `subject` is what the call was about.
 */
export function toCallFailure(thrown: unknown, traceId: string, subject = ""): CallFailure {
  if (thrown instanceof CallFailure) return thrown;
  if (thrown instanceof Refusal) {
    const { reason, message, metadata, violations } = thrown;
    return new CallFailure(reason, message, { metadata, violations, subject });
  }
  if (thrown instanceof LogDamaged) {
    const metadata = { position: String(thrown.position), trace_id: traceId };
    return new CallFailure("LOG_DAMAGED", thrown.message, { metadata, cause: thrown });
  }
  if (thrown instanceof Unavailable) return new CallFailure("UNAVAILABLE", thrown.message, { cause: thrown });
  if (thrown instanceof ConnectError && reasonOfCode(thrown.code) !== "INTERNAL")
    return new CallFailure(reasonOfCode(thrown.code), thrown.rawMessage, { cause: thrown });
  if (isPassingDatabaseFault(thrown))
    return new CallFailure("UNAVAILABLE", "the database cannot be reached at present: try again", { cause: thrown });
  return new CallFailure("INTERNAL", `Ordertrail has a fault; the server's log tells more under ${traceId}`, {
    metadata: { trace_id: traceId },
    cause: thrown,
  });
}

/** The google.rpc details of a failure, as ConnectError takes them. */
export function errorDetails(failure: CallFailure): { desc: DescMessage; value: Message }[] {
  const { reason, shape, metadata, violations, message, subject, retryAfterSeconds } = failure;
  const details: { desc: DescMessage; value: Message }[] = [
    detail(ErrorInfoSchema, create(ErrorInfoSchema, { reason, domain: ERROR_DOMAIN, metadata })),
  ];
  if (violations.length > 0) {
    details.push(detail(BadRequestSchema, create(BadRequestSchema, { fieldViolations: violations.map(fieldViolation) })));
  }
  if (shape.code === Code.FailedPrecondition) {
    details.push(
      detail(
        PreconditionFailureSchema,
        create(PreconditionFailureSchema, { violations: [{ type: reason, subject, description: message }] }),
      ),
    );
  }
  if (retryAfterSeconds !== undefined) {
    details.push(detail(RetryInfoSchema, create(RetryInfoSchema, { retryDelay: { seconds: BigInt(retryAfterSeconds) } })));
  }
  return details;
}

/** The failure as google.rpc.Status, for the header grpc-status-details-bin; of very many violations only the first. */
export function encodeStatus(failure: CallFailure): Uint8Array {
  const { reason, shape, message, metadata, violations, subject } = failure;
  const fitting = new CallFailure(reason, message, { metadata, subject, violations: firstWithin(violations, MAX_STATUS_DETAILS_BYTES) });
  const details = errorDetails(fitting).map(({ desc, value }) => anyPack(desc, value));
  return toBinary(StatusSchema, create(StatusSchema, { code: shape.code, message, details }));
}

/** One sentence for several violations. */
export function violationsMessage(violations: readonly Violation[]): string {
  const [first, ...others] = violations;
  const told = first ? `${first.field || "request"}: ${first.detail}` : "the request breaks a rule";
  return others.length === 0 ? told : `${told} (and ${others.length} more: see the violations)`;
}

function fieldViolation({ field, rule, detail: description }: Violation): BadRequest_FieldViolation {
  return create(BadRequest_FieldViolationSchema, { field, reason: reasonWord(rule), description });
}

/** A rule's name in the form that google.rpc asks of a reason: "string.max_len" as STRING_MAX_LEN. */
function reasonWord(rule: string): string {
  return rule.replaceAll(/[^A-Za-z0-9]+/g, "_").toUpperCase();
}

function firstWithin(violations: readonly Violation[], maxBytes: number): readonly Violation[] {
  let bytes = 0;
  const end = violations.findIndex((violation) => {
    bytes += toBinary(BadRequest_FieldViolationSchema, fieldViolation(violation)).byteLength;
    return bytes > maxBytes;
  });
  return end === -1 ? violations : violations.slice(0, end);
}

function detail(desc: DescMessage, value: Message): { desc: DescMessage; value: Message } {
  return { desc, value };
}

const PASSING_DATABASE_FAULT =
  /^Mongo(Network|NetworkTimeout|ServerSelection|NotConnected|TopologyClosed|PoolCleared|WaitQueueTimeout|OperationTimeout|ClientClosed)Error$/;
/** What members answer that step down, shut down or are no primary any more. */
const PASSING_SERVER_CODES: readonly unknown[] = [91, 189, 10058, 10107, 11600, 11602, 13435, 13436];

function isPassingDatabaseFault(thrown: unknown): boolean {
  if (!(thrown instanceof Error)) return false;
  return (
    PASSING_DATABASE_FAULT.test(thrown.name) ||
    (thrown.name === "MongoServerError" && "code" in thrown && PASSING_SERVER_CODES.includes(thrown.code))
  );
}
