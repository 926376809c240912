import type { Db, Document, Filter } from "mongodb";
import { generationAt, LASTING_GENERATION } from "./personal-keys.ts";
import { ordersOf } from "./personal-places.ts";
import { ensureKeyIndexes, personalKeysOf, type StoredKey } from "./stored-key.ts";

export type RetentionOptions = {
  readonly db: Db;
  /** For how many days after an order has ended its personal data is kept. */
  readonly days: number;
  readonly clock: () => Date;
  /** Resolves when `order_tracking` has every entry there is. */
  readonly caughtUp: () => Promise<void>;
  /** Forgets a person's keys here, in this process. */
  readonly forget: (person: string) => void;
};

const DAY_MS = 86_400_000;
/** An order may be recorded a little after its data was sealed, by another clock. */
const SLACK_MS = 3_600_000;
const BATCH_KEYS = 100;
const FINAL = ["DELIVERED", "CANCELLED"];
/** Generations below were not bound to a day: what they have sealed may be of any time. */
const FIRST_DAY = 10_000;

/**
 * Destroys the personal keys that only seal data of orders that ended longer ago than `days`: what they sealed can then
 * be read nowhere, the log and its copies included. A key seals the data of one day, so an order's data goes at the latest
 * a day after its time. May be run by several processes at once, and broken off anywhere. Answers how many keys went.
 */
export async function destroyExpiredKeys({ db, days, clock, caughtUp, forget }: RetentionOptions, signal: AbortSignal): Promise<number> {
  const keys = personalKeysOf(db);
  await ensureKeyIndexes(keys);
  const endedBefore = new Date(clock().getTime() - days * DAY_MS);
  const orders = db.collection("order_tracking", { readPreference: "primary" });

  async function isNeeded({ person, generation }: StoredKey): Promise<boolean> {
    const ofPerson = ordersOf(person);
    if (!ofPerson) return true;
    const sealedUntil = new Date((generation + 1) * DAY_MS + SLACK_MS);
    const needing: Filter<Document> = {
      ...ofPerson,
      ...(generation >= FIRST_DAY && { created_at: { $lt: sealedUntil } }),
      $or: [{ current_status: { $nin: FINAL } }, { updated_at: { $gt: endedBefore } }],
    };
    return (await orders.findOne(needing, { projection: { _id: 1 } })) !== null;
  }

  let destroyed = 0;
  // An order that is not there yet would look as if nobody needed its data.
  await caughtUp();
  const candidates = keys.find(
    { generation: { $lt: generationAt(endedBefore), $gt: LASTING_GENERATION } },
    { sort: { generation: 1, _id: 1 }, batchSize: BATCH_KEYS },
  );
  while (await candidates.hasNext()) {
    signal.throwIfAborted();
    const batch = candidates.readBufferedDocuments(BATCH_KEYS);
    const needed = await Promise.all(batch.map(isNeeded));
    const expired = batch.filter((_, index) => needed[index] === false);
    if (expired.length === 0) continue;
    destroyed += (await keys.deleteMany({ _id: { $in: expired.map(({ _id }) => _id) } })).deletedCount;
    for (const { person } of expired) forget(person);
  }
  return destroyed;
}
