import type { ErrorReason } from "../gen/ordertrail/v1/error_reason_pb.js";

/** Why something is refused: the names of the API's ErrorReason, such as "ORDER_NOT_FOUND". */
export type RefusalReason = Exclude<keyof typeof ErrorReason, "UNSPECIFIED">;

/** A rule of the input that is broken. */
export type Violation = {
  /** Where, as a path in the names of the API, such as "items[0].unit_price.currency". */
  readonly field: string;
  /** Which rule, as a word for programs. */
  readonly rule: string;
  /** What is wrong, for people. */
  readonly detail: string;
};

/** A "no" that the caller can understand and act upon. Not a fault: it is neither logged as one nor hidden. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly reason: RefusalReason;
  /** Everything in the message that varies, for programs. No personal data. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The rules that are broken; only with VALIDATION_FAILED. */
  readonly violations: readonly Violation[];

  constructor(
    reason: RefusalReason,
    message: string,
    metadata: Readonly<Record<string, string>> = {},
    violations: readonly Violation[] = [],
  ) {
    super(message);
    this.reason = reason;
    this.metadata = metadata;
    this.violations = violations;
  }
}

/** A fault that is known to pass, such as a database without a primary. The message is safe to show; the cause is not. */
export class Unavailable extends Error {
  override readonly name = "Unavailable";
}
