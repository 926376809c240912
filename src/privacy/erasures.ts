import { type Db, type Document, Long, MongoServerError } from "mongodb";
import type { Logger } from "pino";
import { Unavailable } from "../domain/refusal.ts";
import { type ErasureDocument, erasuresOf } from "./erasure-document.ts";
import type { ErasureFile, KeptErasure } from "./erasure-file.ts";
import type { PersonalKeys } from "./personal-keys.ts";
import type { PersonalPlaces } from "./personal-places.ts";
import { personalKeysOf } from "./stored-key.ts";

/** Who wants a person forgotten, and how they said so. Roles and doors are the numbers of their protos. */
export type ErasureOrigin = {
  readonly requestedBy: { readonly role: number; readonly subject: string };
  readonly door: number;
  /** From where, as far as it is known: both are of an organisation, never of a person. */
  readonly address: string;
  readonly certificateName: string;
  readonly requestId: string;
  readonly correlationId: string;
};

/** An erasure as far as the log is to tell of it. */
export type ErasureFacts = ErasureOrigin & { readonly person: string; readonly requestedAt: Date; readonly keysDestroyed: number };

/** That a person was forgotten. */
export type ErasureReceipt = {
  readonly person: string;
  readonly requestedAt: Date;
  readonly erasedAt: Date;
  readonly requestedBy: { readonly role: number; readonly subject: string };
  /** The position of the entry that says so. */
  readonly position: number;
  readonly keysDestroyed: number;
  /** How many orders stay, without personal data. */
  readonly orders: number;
  /** In which collections something was held in the clear, and in how many documents. */
  readonly places: readonly { readonly place: string; readonly documents: number }[];
};

/**
 * Forgets people. That somebody is to be forgotten is recorded first, in the database and in a file apart from it; from
 * then on nothing is sealed for them, and whoever comes next finishes what was begun.
 */
export type Erasures = {
  /** Forgets a person; resolves when all is done and recorded. For one who was forgotten before it answers the first receipt. */
  erase(person: string, origin: ErasureOrigin): Promise<ErasureReceipt>;
  /** Whether a person is to be forgotten, or has been: from when that is recorded, finished or not. */
  isErased(person: string): Promise<boolean>;
  /** The receipt of a person who was forgotten; undefined for others. */
  receiptOf(person: string): Promise<ErasureReceipt | undefined>;
  /**
   * Sees to it that nobody comes back with a restored backup: whoever is in the file or in the database as forgotten, and
   * has keys all the same or is not recorded as forgotten, loses the keys before this resolves, and is left for `finish`.
   * To be called at start, before anybody is answered. Answers how many came back.
   */
  applyAgain(): Promise<number>;
  /**
   * Finishes what others have begun, each as far as it can be; rejects with the first fault. Answers how many erasures that
   * were. Looks before whether some of those in the file have come back: in time it is the turn of each.
   */
  finish(signal: AbortSignal): Promise<number>;
  /**
   * Learns of the erasures of other processes: forgets the keys here, and enters them in this process's file. When the
   * database has fewer than the file, it was put back under way: then looks after all who are in the file, as at start.
   */
  learn(): Promise<void>;
};

export type ErasureDependencies = {
  readonly db: Db;
  readonly keys: Pick<PersonalKeys, "forget">;
  readonly file: ErasureFile;
  readonly places: PersonalPlaces;
  /** Resolves when `order_tracking` has every entry there is. */
  readonly caughtUp: () => Promise<void>;
  /** The newest position of the log. */
  readonly head: () => Promise<number>;
  /** Records in the log that a person was forgotten, if it does not say so yet; answers the position of that entry. */
  readonly record: (facts: ErasureFacts) => Promise<number>;
  /** Who acts when a backup is found restored. */
  readonly self: ErasureOrigin;
  readonly logger: Logger;
};

const DUPLICATE_KEY = 11000;
const PEOPLE_A_QUERY = 500;
/** Changes that were on their way when another, later one was seen. */
const OVERLAP_MS = 10_000;

/** The indexes of `erasures`. */
export async function ensureErasureIndexes(db: Db): Promise<void> {
  await erasuresOf(db).createIndexes([{ key: { changed_at: 1 } }, { key: { done_at: 1 } }]);
}

export function createErasures(dependencies: ErasureDependencies): Erasures {
  const { db, keys, file, places, caughtUp, head, record, self, logger } = dependencies;
  const erasures = erasuresOf(db);
  const personalKeys = personalKeysOf(db);
  let learntUntil: Date | undefined;
  /** How many erasures the database had when they were too few, and yet nobody had come back. */
  let foundTooFew: number | undefined;
  /** Which people in the file are the next to be looked after. */
  let nextTurn = 0;

  /** Records that a person is to be forgotten, in the database and in the file; changes nothing of what is recorded already. */
  async function intend(person: string, origin: ErasureOrigin, requestedAt?: Date): Promise<ErasureDocument> {
    const intention: Document = {
      requested_at: requestedAt ?? "$$NOW",
      requested_by: { role: origin.requestedBy.role, subject: { $literal: origin.requestedBy.subject } },
      door: origin.door,
      address: origin.address,
      certificate_name: { $literal: origin.certificateName },
      request_id: { $literal: origin.requestId },
      correlation_id: { $literal: origin.correlationId },
      changed_at: "$$NOW",
      key_ids: [],
      places: {},
    };
    const upsert = () =>
      erasures.findOneAndUpdate({ _id: person }, [{ $replaceWith: { $mergeObjects: [intention, "$$ROOT"] } }], {
        upsert: true,
        returnDocument: "after",
      });
    const intended = await upsert().catch((error: unknown) => {
      // Another process was faster, between the server's look and its insert.
      if (error instanceof MongoServerError && error.code === DUPLICATE_KEY) return upsert();
      throw error;
    });
    if (!intended) throw new Error("an upsert into erasures returned no document");
    await file.add(keptOf(intended));
    return intended;
  }

  /** Destroys the person's keys. Which they are is recorded before, so that the count is right wherever it is broken off. */
  async function destroyKeys(person: string): Promise<void> {
    for (;;) {
      const found = await personalKeys.find({ person }, { projection: { _id: 1 } }).toArray();
      keys.forget(person);
      if (found.length === 0) return;
      const ids = found.map(({ _id }) => _id);
      await erasures.updateOne({ _id: person }, { $addToSet: { key_ids: { $each: ids } } });
      await personalKeys.deleteMany({ _id: { $in: ids } });
    }
  }

  async function carryOut({ _id: person }: Pick<ErasureDocument, "_id">): Promise<ErasureReceipt> {
    await destroyKeys(person);
    await caughtUp();
    const counts = Object.entries(await places.count(person)).map(([place, count]) => [`places.${place}`, count]);
    await erasures.updateOne({ _id: person }, { $max: Object.fromEntries(counts) });
    await places.remove(person);
    const orders = await places.countOrders(person);
    const erasure = await erasures.findOne({ _id: person });
    if (!erasure) throw new Error(`the erasure of ${person} is not recorded any more`);
    const position = await record(factsOf(erasure));
    const done = await erasures.findOneAndUpdate(
      { _id: person },
      [{ $set: { done_at: { $ifNull: ["$done_at", "$$NOW"] }, orders, position: Long.fromNumber(position) } }],
      { returnDocument: "after" },
    );
    const receipt = done && receiptFrom(done);
    if (!receipt) throw new Error(`the erasure of ${person} is not recorded any more`);
    logger.info({ person, position, keys: receipt.keysDestroyed, orders }, "a person was erased");
    return receipt;
  }

  async function receiptOf(person: string): Promise<ErasureReceipt | undefined> {
    const erasure = await erasures.findOne({ _id: person });
    return erasure ? receiptFrom(erasure) : undefined;
  }

  /** Of these people, those who have keys, or whom the database does not know as forgotten; and whether that is a surprise. */
  async function returnedAmong(people: readonly KeptErasure[]): Promise<Map<string, { readonly cameBack: boolean }>> {
    const persons = people.map(({ person }) => person);
    const [known, held] = await Promise.all([
      erasures.find({ _id: { $in: persons } }, { projection: { done_at: 1 } }).toArray(),
      personalKeys.find({ person: { $in: persons } }, { projection: { person: 1, created_at: 1 } }).toArray(),
    ]);
    const done = new Map(known.map(({ _id, done_at }) => [_id, done_at !== undefined]));
    const oldestKey = new Map<string, Date>();
    for (const { person, created_at } of held) {
      const oldest = oldestKey.get(person);
      if (!oldest || created_at < oldest) oldestKey.set(person, created_at);
    }
    const returned = people.filter(({ person }) => !done.has(person) || oldestKey.has(person));
    return new Map(
      returned.map(({ person, requestedAt }) => {
        const key = oldestKey.get(person);
        // Nobody has come back where an erasure was broken off, with keys left, nor where a key was made while it went on.
        return [person, { cameBack: !done.has(person) || (done.get(person) === true && key !== undefined && key < requestedAt) }];
      }),
    );
  }

  /** Takes from these people what a restored backup, or an erasure that was broken off, has left them. Answers how many had come back. */
  async function sendBack(people: readonly KeptErasure[]): Promise<number> {
    if (people.length === 0) return 0;
    let again = 0;
    const returned = await returnedAmong(people);
    for (const { person, requestedAt, requestedBy } of people) {
      const found = returned.get(person);
      if (!found) continue;
      if (found.cameBack) {
        await intend(person, { ...self, requestedBy }, requestedAt);
        await erasures.updateOne({ _id: person }, [{ $set: { changed_at: "$$NOW" } }, { $unset: ["done_at"] }]);
      }
      await destroyKeys(person);
      if (!found.cameBack) continue;
      again++;
      logger.warn(
        { person, requested_at: requestedAt },
        "an erased person was found in the database, as after a restored backup: erased again",
      );
    }
    return again;
  }

  async function sendBackAll(): Promise<number> {
    const kept = [...file.all()];
    let again = 0;
    for (let from = 0; from < kept.length; from += PEOPLE_A_QUERY) again += await sendBack(kept.slice(from, from + PEOPLE_A_QUERY));
    return again;
  }

  /** Looks after the next few people in the file: all of them every ten seconds could be too many. */
  async function sendBackNext(): Promise<number> {
    if (nextTurn >= file.count()) nextTurn = 0;
    const again = await sendBack([...file.all()].slice(nextTurn, nextTurn + PEOPLE_A_QUERY));
    nextTurn += PEOPLE_A_QUERY;
    return again;
  }

  function tellOfRestore(cameBack: number): void {
    if (cameBack > 0)
      logger.error("a backup was restored while this process ran, and it remembers what is not there any more: start every process anew");
  }

  async function applyAgain(): Promise<number> {
    for (const line of file.unreadable)
      logger.warn({ line }, "a line of the file of erasures cannot be read: whom it names is not known from it");
    // Whom only the database knows is entered in the file, such as on a machine that is new.
    for await (const erasure of erasures.find({})) await file.add(keptOf(erasure));
    const again = await sendBackAll();
    // The log may have been put back, too, without what it said of an erasure.
    await erasures.updateMany({ position: { $gt: await head() } }, { $unset: { done_at: 1 } });
    return again;
  }

  return {
    async erase(person, origin) {
      const known = await receiptOf(person);
      if (known) return known;
      return await carryOut(await intend(person, origin));
    },
    async isErased(person) {
      return (await erasures.findOne({ _id: person }, { projection: { _id: 1 } })) !== null;
    },
    receiptOf,
    applyAgain,
    async finish(signal) {
      tellOfRestore(await sendBackNext());
      const open = await erasures.find({ done_at: { $exists: false } }).toArray();
      const faults: unknown[] = [];
      for (const erasure of open) {
        signal.throwIfAborted();
        await file.add(keptOf(erasure));
        await carryOut(erasure).catch((fault: unknown) => faults.push(fault));
      }
      if (faults.length > 0) throw faults[0];
      return open.length;
    },
    async learn() {
      const since = learntUntil && new Date(learntUntil.getTime() - OVERLAP_MS);
      // The first time nothing is remembered yet that would have to be forgotten: only the clock's time is wanted.
      const filter = since ? { changed_at: { $gte: since } } : {};
      const found = erasures.find(filter, { sort: { changed_at: -1 }, ...(!since && { limit: 1 }) });
      for await (const erasure of found) {
        if (learntUntil === undefined || erasure.changed_at > learntUntil) learntUntil = erasure.changed_at;
        keys.forget(erasure._id);
        await file.add(keptOf(erasure));
        // A key that was made while the person was being erased has sealed nothing, and is not to stay. An older one has come back: that is for
        // `finish`, which tells of it.
        if (erasure.done_at) await personalKeys.deleteMany({ person: erasure._id, created_at: { $gte: erasure.requested_at } });
      }
      learntUntil ??= new Date(0);
      const count = await erasures.estimatedDocumentCount();
      if (count >= file.count()) foundTooFew = undefined;
      else if (count !== foundTooFew) {
        const again = await sendBackAll();
        tellOfRestore(again);
        // Estimates may be wrong: one that led to nothing is not heeded again and again.
        foundTooFew = again > 0 ? undefined : count;
      }
    },
  };
}

/** Resolves as `ready` does, or rejects with Unavailable after a while: an erasure then waits for whoever comes next. */
export async function within(ms: number, ready: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const signal = AbortSignal.timeout(ms);
  try {
    await ready(signal);
  } catch (cause) {
    if (!signal.aborted) throw cause;
    throw new Unavailable("order_tracking is not up to date; what was begun is finished when it is", { cause });
  }
}

function keptOf({ _id, requested_at, requested_by }: ErasureDocument): KeptErasure {
  return { person: _id, requestedAt: requested_at, requestedBy: requested_by };
}

function factsOf(erasure: ErasureDocument): ErasureFacts {
  return {
    person: erasure._id,
    requestedAt: erasure.requested_at,
    requestedBy: erasure.requested_by,
    door: erasure.door,
    address: erasure.address ?? "",
    certificateName: erasure.certificate_name ?? "",
    requestId: erasure.request_id,
    correlationId: erasure.correlation_id,
    keysDestroyed: erasure.key_ids.length,
  };
}

function receiptFrom(erasure: ErasureDocument): ErasureReceipt | undefined {
  if (!erasure.done_at || erasure.position === undefined) return undefined;
  return {
    person: erasure._id,
    requestedAt: erasure.requested_at,
    erasedAt: erasure.done_at,
    requestedBy: erasure.requested_by,
    position: Number(erasure.position),
    keysDestroyed: erasure.key_ids.length,
    orders: erasure.orders ?? 0,
    places: Object.entries(erasure.places).map(([place, documents]) => ({ place, documents })),
  };
}
