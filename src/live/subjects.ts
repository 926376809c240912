/** What stands before all that Ordertrail says over NATS; two installations on one NATS need two. */
export type Prefix = string;

/** Where an entry of a stream is mirrored: its category, and what it is about. */
export function eventSubject(prefix: Prefix, stream: string): string {
  const dash = stream.indexOf("-");
  return dash < 0 ? `${prefix}.events.${stream}` : `${prefix}.events.${stream.slice(0, dash)}.${stream.slice(dash + 1)}`;
}

/** Every entry. */
export const allEvents = (prefix: Prefix): string => `${prefix}.events.>`;

/** The JetStream stream that mirrors the log. */
export const eventStreamName = (prefix: Prefix): string => `${prefix}-events`;

/** Where a process tells the others how far the log reaches now. */
export const newsSubject = (prefix: Prefix): string => `${prefix}.news`;

/** Where the points of an order's driver go, from the process that takes them to those who watch. */
export const pointSubject = (prefix: Prefix, orderId: string): string => `${prefix}.locations.${orderId}`;
