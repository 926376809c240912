import type { Db } from "mongodb";
import type { Logger } from "pino";
import { WRITERS_COLLECTION } from "./log-entry.ts";

/** Which of the processes that append to a log does it for all. A hint: two may take themselves for it, and there may be none. */
export type AdvisoryWriter = {
  /** Its name; undefined when it is this process, or when it is not known. To be asked for every batch: only who appends wants to be it. */
  current(): string | undefined;
  /** To be told when it did not answer: it is not asked again for a while. */
  suspect(writer: string): void;
  stop(): Promise<void>;
};

type LeaseDocument = { readonly _id: string; readonly holder: string; readonly until: Date };

const LEASE = "advisory-writer";
const LEASE_MS = 1000;
const RENEW_MS = 300;
/** A process that has appended nothing for so long lets the lease go. */
const IDLE_MS = 1000;
const SUSPECTED_MS = 2000;

/**
 * Takes and keeps a short lease, by the database's clock, while this process appends and no other holds it. What it says is
 * as old as the last look, at most RENEW_MS.
 */
export function createAdvisoryWriter(db: Db, self: string, logger: Logger): AdvisoryWriter {
  const leases = db.collection<LeaseDocument>(WRITERS_COLLECTION);
  const suspects = new Map<string, number>();
  let holder: string | undefined;
  let lookedAt = Number.NEGATIVE_INFINITY;
  let askedAt = Number.NEGATIVE_INFINITY;
  let timer: NodeJS.Timeout | undefined;
  let looking: Promise<void> | undefined;
  let stopped = false;

  async function look(): Promise<void> {
    const free = { $or: [{ $lte: [{ $ifNull: ["$until", new Date(0)] }, "$$NOW"] }, { $eq: ["$holder", { $literal: self }] }] };
    const set = {
      holder: { $cond: [free, { $literal: self }, "$holder"] },
      until: { $cond: [free, { $add: ["$$NOW", LEASE_MS] }, "$until"] },
    };
    try {
      const found = await leases.findOneAndUpdate({ _id: LEASE }, [{ $set: set }], {
        upsert: true,
        returnDocument: "after",
        writeConcern: { w: 1 },
        maxTimeMS: LEASE_MS,
      });
      holder = found?.holder;
      lookedAt = performance.now();
    } catch (error) {
      logger.debug({ err: error }, "who appends for all cannot be read; this process appends itself");
      holder = undefined;
    }
  }

  function lookAndGoOn(): void {
    looking = look().finally(() => {
      looking = undefined;
      const idle = performance.now() - askedAt > IDLE_MS;
      timer = stopped || idle ? undefined : setTimeout(lookAndGoOn, RENEW_MS);
    });
  }

  return {
    current() {
      askedAt = performance.now();
      if (!timer && !looking && !stopped) lookAndGoOn();
      if (holder === undefined || holder === self || askedAt - lookedAt > LEASE_MS) return undefined;
      return (suspects.get(holder) ?? 0) > askedAt ? undefined : holder;
    },
    suspect(writer) {
      suspects.clear();
      suspects.set(writer, performance.now() + SUSPECTED_MS);
    },
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await looking;
      await leases.updateOne({ _id: LEASE, holder: self }, [{ $set: { until: "$$NOW" } }]).catch((error: unknown) => {
        logger.debug({ err: error }, "the lease of who appends for all runs out by itself");
      });
    },
  };
}
