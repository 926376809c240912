import type { Logger } from "pino";
import type { CourierJobs } from "../projections/courier-jobs.ts";

export type CourierFollowUpOptions = {
  readonly jobs: Pick<CourierJobs, "toSettle" | "quietSince" | "claim">;
  /** Does what is left to do about an order's courier. */
  readonly lookAfter: (orderId: string, signal: AbortSignal) => Promise<void>;
  /** Asks the provider how an order's delivery stands. */
  readonly refresh: (orderId: string, signal: AbortSignal) => Promise<unknown>;
  readonly now: () => Date;
  readonly logger: Logger;
  /** For how long a provider may tell nothing of a delivery before it is asked, and how often it is asked then. */
  readonly quietMs: number;
  /** For how long whoever made a request is left to bring it to an end. */
  readonly graceMs: number;
};

/** How often a request is repeated that cannot be settled. */
const RETRY_MS = 15_000;
/** For how long a request that was left unanswered is asked for again: providers know our keys for about an hour. */
const ASK_AGAIN_MS = 3_600_000;
/** For how long a courier who is not to come is called off. */
const CALL_OFF_MS = 24 * 3_600_000;
const AT_ONE_TIME = 8;
const MOST = 10_000;
/** Quiet deliveries are looked for this many times in the time after which one counts as quiet. */
const LOOKS = 6;

/**
 * One round of what nobody else has finished: requests whose process died before the provider's answer was recorded, and
 * deliveries of which no webhook has told anything for some time. Any number of processes may do it: they share the work by
 * claims, and where two do the same, the provider and the log take it as one.
 */
export function createCourierFollowUp(options: CourierFollowUpOptions): (signal: AbortSignal) => Promise<void> {
  const { jobs, lookAfter, refresh, now, logger, quietMs, graceMs } = options;

  async function each(
    orderIds: readonly string[],
    everyMs: number,
    work: (orderId: string, signal: AbortSignal) => Promise<unknown>,
    signal: AbortSignal,
  ): Promise<void> {
    const left = [...orderIds];
    const one = async () => {
      for (let orderId = left.shift(); orderId !== undefined && !signal.aborted; orderId = left.shift()) {
        try {
          if (await jobs.claim(orderId, new Date(now().getTime() - everyMs), now())) await work(orderId, signal);
        } catch (error) {
          if (!signal.aborted)
            logger.warn({ err: error, order_id: orderId }, "a courier's job could not be followed up; it will be tried again");
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONE_TIME }, one));
  }

  let lookedAt = 0;
  return async (signal) => {
    const at = now().getTime();
    const before = (ms: number) => new Date(at - ms);
    const times = { requestedBy: before(graceMs), unansweredSince: before(ASK_AGAIN_MS), unwantedSince: before(CALL_OFF_MS) };
    await each(await jobs.toSettle(times, MOST), RETRY_MS, lookAfter, signal);
    if (at - lookedAt < quietMs / LOOKS) return;
    lookedAt = at;
    await each(await jobs.quietSince(new Date(at - quietMs), MOST), quietMs, refresh, signal);
  };
}
