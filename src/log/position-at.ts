import { type Db, Long } from "mongodb";
import { LogDamaged } from "../domain/log-damaged.ts";
import { ROUND_TRIP_MS } from "./log-client.ts";
import { EVENTS_COLLECTION, type StoredEvent } from "./log-entry.ts";

/**
 * By how much the times of two entries may stand the other way round than their positions: what the clocks of the
 * processes that write differ by, and how long an entry waits to be written.
 */
export const MOST_DISORDER_MS = 120_000;

/**
 * A position in 0 … `head` such that every entry after it, and none up to it but by disorder, was recorded at `time` or
 * later. Some 20 look-ups in a million entries; there is no index on time, which every append would pay for.
 */
export async function positionBefore(db: Db, time: Date, head: number): Promise<number> {
  const events = db.collection<StoredEvent>(EVENTS_COLLECTION);
  let low = 0;
  let high = head;
  while (low < high) {
    const middle = Math.floor((low + high) / 2) + 1;
    const found = await events.findOne(
      { _id: Long.fromNumber(middle) },
      { projection: { at: 1 }, readConcern: "majority", readPreference: "primary", maxTimeMS: ROUND_TRIP_MS },
    );
    if (!found) throw new LogDamaged(middle, "there is no entry");
    if (found.at < time) low = middle;
    else high = middle - 1;
  }
  return low;
}
