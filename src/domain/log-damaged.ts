/** The log is not what it must be: a position is missing, or a body cannot be decoded. */
export class LogDamaged extends Error {
  override readonly name = "LogDamaged";
  /** The first position at which it is. */
  readonly position: number;
  constructor(position: number, what: string, options?: ErrorOptions) {
    super(`the log is damaged at position ${position}: ${what}`, options);
    this.position = position;
  }
}
