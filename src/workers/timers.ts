import { randomUUID } from "node:crypto";
import type { Logger } from "pino";
import { decide, type OrderState } from "../domain/order.ts";
import { Deadline, Door, OrderStatus, Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { Transactor } from "../log/transact.ts";
import type { Deadlines, DueOrder } from "../projections/deadlines.ts";

/** Acts on what is overdue, beside the timers of other processes. */
export type Timers = {
  /** Acts on everything that is due by now, once each. */
  act(signal: AbortSignal): Promise<void>;
  /** Throws, with the reason, when nothing has been looked at for long. */
  check(): Promise<void>;
};

export type TimersOptions = {
  readonly deadlines: Deadlines;
  readonly orders: Transactor<OrderState>;
  readonly clock: () => Date;
  readonly logger: Logger;
};

const PAGE = 200;
const AT_ONCE = 32;
/** For how long nothing may have been looked at without being told of. */
const STUCK_MS = 30_000;
const SYSTEM = { role: Role.SYSTEM, subject: "ordertrail" };

/**
 * The timers of this process. What is due is found in `deadlines`, which may be some seconds behind; whether it still is, the order itself
 * decides. So each deadline acts once, however many processes look and wherever one ends.
 */
export function createTimers({ deadlines, orders, clock, logger }: TimersOptions): Timers {
  /** What was acted on, by the order, until `deadlines` shows it. */
  let acted = new Map<string, number>();
  let lookedAt = performance.now();

  async function actOn({ orderId }: DueOrder, at: Date): Promise<void> {
    const command = { type: "CheckDeadline", at } as const;
    const before = (await orders.read(orderId))?.state;
    if (!before) return;
    const { appended, position, state } = await orders.transact(orderId, {
      method: "ordertrail.v1.Timers/CheckDeadline",
      requestId: "",
      correlationId: randomUUID(),
      actor: SYSTEM,
      door: Door.INTERNAL,
      decide: (state) => decide(state, command, SYSTEM),
    });
    if (!appended) return;
    const deadline = before.waiting && Deadline[before.waiting.deadline];
    const escalated = state.waiting?.escalatedAt !== undefined || state.status !== before.status;
    logger.info(
      { order_id: orderId, position, deadline, status: OrderStatus[state.status] },
      escalated
        ? "a deadline has passed, and nobody has done what the order waits for"
        : "somebody was reminded of what an order waits for",
    );
  }

  /** What cannot be acted on is tried again at the next look, and holds up nothing else. */
  async function tryToActOn(due: DueOrder, at: Date): Promise<boolean> {
    try {
      await actOn(due, at);
      return true;
    } catch (error) {
      logger.warn({ err: error, order_id: due.orderId }, "what an order waits for cannot be acted on; trying again");
      return false;
    }
  }

  return {
    async act(signal) {
      const at = clock();
      const now = new Map<string, number>();
      for (let after: DueOrder | undefined; ; ) {
        const page = await deadlines.due(at, PAGE, after);
        const fresh = page.filter(({ orderId, nextAt }) => acted.get(orderId) !== nextAt.getTime());
        for (const { orderId, nextAt } of page) now.set(orderId, nextAt.getTime());
        for (let from = 0; from < fresh.length; from += AT_ONCE) {
          signal.throwIfAborted();
          const batch = fresh.slice(from, from + AT_ONCE);
          const done = await Promise.all(batch.map((due) => tryToActOn(due, at)));
          for (const [index, { orderId }] of batch.entries()) if (!done[index]) now.delete(orderId);
        }
        lookedAt = performance.now();
        if (page.length < PAGE) break;
        after = page.at(-1);
      }
      acted = now;
    },
    async check() {
      const silentMs = performance.now() - lookedAt;
      if (silentMs > STUCK_MS) throw new Error(`deadlines have not been looked at for ${Math.round(silentMs / 1000)} seconds`);
    },
  };
}
