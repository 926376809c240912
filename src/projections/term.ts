import { setTimeout as pause } from "node:timers/promises";
import { type Db, Long } from "mongodb";
import type { Logger } from "pino";
import type { LogReader } from "../log/reader.ts";
import { dropLeftOvers, ensureIndexes, exists } from "./copies.ts";
import { type Lease, LeaseLost } from "./lease.ts";
import type { Position } from "./positions.ts";
import type { Projection } from "./projection.ts";
import { readAhead } from "./read-ahead.ts";
import { finishSwap, rebuildProjection, wantsRebuild } from "./rebuild.ts";
import { createTurns } from "./turns.ts";

const BATCH_ENTRIES = 1000;
/** Under load, changes of so long are written together, unless somebody waits for them: each write costs the database as much as an append. */
const REST_MS = 250;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 5000;
const LOOK_FOR_REBUILD_MS = 50;
const SWEEP_MS = 60_000;
const MAX_ERROR_LENGTH = 500;

export type TermOptions = {
  readonly db: Db;
  readonly reader: LogReader;
  readonly logger: Logger;
  readonly projection: Projection;
  readonly lease: Lease;
  /** How long the lease lasts without being prolonged. */
  readonly leaseMs: number;
  readonly position: Position;
  readonly signal: AbortSignal;
};

/**
 * Runs a projection for as long as this process holds its lease: keeps the lease, applies the log, rebuilds when that is
 * wanted. Resolves after a rebuild, so that the next term begins with nothing remembered of the collection that is gone;
 * otherwise rejects, with LeaseLost, the signal's reason, or the fault because of which nothing could begin.
 */
export async function runTerm(options: TermOptions): Promise<void> {
  const { db, reader, projection, lease, leaseMs, position } = options;
  const logger = options.logger.child({ projection: projection.name });
  const over = new AbortController();
  const signal = AbortSignal.any([options.signal, over.signal]);
  const turns = createTurns();

  async function prepare(): Promise<void> {
    await finishSwap(db, projection, lease);
    if (lease.checkpoint.position > 0 && !(await exists(db, projection.collection))) {
      logger.warn("the collection is gone; it is made anew from the log");
      await lease.write({ position: Long.ZERO, revision: projection.revision });
    }
    await ensureIndexes(db, projection, projection.collection);
  }

  async function keepLease(): Promise<never> {
    for (let sweptAt = Number.NEGATIVE_INFINITY; ; await pause(leaseMs / 3, undefined, { signal })) {
      try {
        await lease.write({});
        if (performance.now() - sweptAt < SWEEP_MS) continue;
        await dropLeftOvers(db, projection, lease);
        sweptAt = performance.now();
      } catch (error) {
        if (error instanceof LeaseLost) throw error;
        logger.warn({ err: error }, "the lease of a projection could not be prolonged yet");
      }
      lease.check();
    }
  }

  async function applyLog(): Promise<never> {
    let batchSize = BATCH_ENTRIES;
    let failures = 0;
    /** The end of the batch that could not be applied as a whole. */
    let troubleEnds = 0;
    for (;;) {
      let isBehind = true;
      // What calls want of the database comes first, unless the projection has a long way to go.
      const breathe = async (tookMs: number) => {
        if (!isBehind) await position.untilWanted(tookMs, signal);
      };
      const writer = projection.open(projection.collection, { trusted: lease.checkpoint.revision === projection.revision, breathe });
      try {
        const after = lease.checkpoint.position;
        const rest = () => position.untilWanted(projection.restMs ?? REST_MS, signal);
        for await (const followed of readAhead((until) => reader.follow({ after, batchSize, signal: until, rest }), signal)) {
          isBehind = followed.entries.length >= batchSize;
          await turns(async () => {
            lease.check();
            await writer.apply(followed.entries);
            await writer.flush();
            await lease.write({ position: Long.fromNumber(followed.position), progressed_at: "$$NOW", last_error: null });
          });
          position.reached(followed.position);
          if (failures > 0 && followed.position >= troubleEnds) break;
        }
        batchSize = BATCH_ENTRIES;
        failures = 0;
      } catch (error) {
        if (signal.aborted || error instanceof LeaseLost) throw error;
        troubleEnds = Math.max(troubleEnds, lease.checkpoint.position + batchSize);
        // By and by the entry that cannot be applied is alone in its batch, and all before it are applied.
        batchSize = Math.ceil(batchSize / 10);
        await retryLater(error, failures++, "last_error");
      }
    }
  }

  async function rebuildWhenWanted(): Promise<void> {
    while (!wantsRebuild(lease.checkpoint, projection)) await pause(LOOK_FOR_REBUILD_MS, undefined, { signal });
    for (let failures = 0; ; failures++) {
      try {
        return await rebuildProjection({ db, reader, logger }, projection, lease, turns, signal);
      } catch (error) {
        if (signal.aborted || error instanceof LeaseLost) throw error;
        await retryLater(error, failures, lease.checkpoint.rebuild ? "rebuild.last_error" : "last_error");
      }
    }
  }

  async function retryLater(error: unknown, failures: number, field: "last_error" | "rebuild.last_error"): Promise<void> {
    const retryMs = Math.min(FIRST_RETRY_MS * 2 ** failures, LAST_RETRY_MS);
    logger.warn({ err: error, position: lease.checkpoint.position, retry_ms: retryMs }, "a projection cannot go on; trying again");
    try {
      await lease.write({ [field]: { $literal: describe(error) } });
    } catch (unrecorded) {
      if (unrecorded instanceof LeaseLost) throw unrecorded;
      logger.warn({ err: unrecorded }, "why a projection cannot go on could not be recorded");
    }
    await pause(retryMs, undefined, { signal });
  }

  await prepare();
  const tasks = [keepLease(), applyLog(), rebuildWhenWanted()];
  try {
    await Promise.race(tasks);
  } finally {
    over.abort();
    await Promise.allSettled(tasks);
  }
}

function describe(error: unknown): string {
  return String(error).slice(0, MAX_ERROR_LENGTH);
}
