import type { Collection, Document } from "mongodb";
import { AS_OF_NOW, type Checkpoint, type CheckpointDocument, toCheckpoint } from "./checkpoint.ts";
import { createTurns } from "./turns.ts";

/** Another process runs the projection now, or may: this one must not touch it any more. */
export class LeaseLost extends Error {
  override readonly name = "LeaseLost";
  constructor(projection: string) {
    super(`this process does not hold the lease of projection ${projection} any more`);
  }
}

/** The right of one process to run a projection, for a time. */
export type Lease = {
  /** The checkpoint as this process last saw it. */
  readonly checkpoint: Checkpoint;
  /** The fencing number of this holder: higher than that of every one before it. */
  readonly fence: number;
  /** Throws LeaseLost once the lease may have run out. By this process's own clock, from before it last asked for more time. */
  check(): void;
  /** Changes the checkpoint by a `$set` stage and prolongs the lease. Throws LeaseLost, with nothing changed, when another process has taken it over. */
  write(changes: Document): Promise<Checkpoint>;
  /** Lets others have it at once. */
  release(): Promise<void>;
};

/**
 * Takes the lease of a projection if nobody holds it, by the database's clock. Each holder gets a higher fencing number,
 * and every change of the checkpoint is bound to the holder's. A process whose code is older than what wrote the live
 * copy, or than what is building the next, gets none.
 */
export async function acquireLease(
  checkpoints: Collection<CheckpointDocument>,
  name: string,
  owner: string,
  revision: number,
  leaseMs: number,
): Promise<Lease | undefined> {
  const prolonged = { "lease.expires_at": { $add: ["$$NOW", leaseMs] } };
  let heldUntil = performance.now() + leaseMs;
  const acquired = await checkpoints.findOneAndUpdate(
    {
      _id: name,
      revision: { $lte: revision },
      $or: [{ rebuild: null }, { "rebuild.revision": { $lte: revision } }],
      $expr: { $or: [{ $lte: ["$lease.expires_at", "$$NOW"] }, { $eq: ["$lease.owner", null] }] },
    },
    [{ $set: { ...prolonged, "lease.owner": { $literal: owner }, "lease.fence": { $add: ["$lease.fence", 1] } } }, { $set: AS_OF_NOW }],
    { returnDocument: "after" },
  );
  if (!acquired) return undefined;
  const mine = { _id: name, "lease.owner": owner, "lease.fence": acquired.lease.fence };
  let checkpoint = toCheckpoint(acquired);
  // One change after the other, so that what is known of the checkpoint never goes back.
  const turns = createTurns();

  async function write(changes: Document): Promise<Checkpoint> {
    const askedAt = performance.now();
    const written = await checkpoints.findOneAndUpdate(mine, [{ $set: { ...changes, ...prolonged } }, { $set: AS_OF_NOW }], {
      returnDocument: "after",
    });
    if (!written) throw new LeaseLost(name);
    heldUntil = askedAt + leaseMs;
    checkpoint = toCheckpoint(written);
    return checkpoint;
  }

  return {
    get checkpoint() {
      return checkpoint;
    },
    fence: acquired.lease.fence,
    check() {
      if (performance.now() >= heldUntil) throw new LeaseLost(name);
    },
    write: (changes) => turns(() => write(changes)),
    async release() {
      await checkpoints.updateOne(mine, [{ $set: { "lease.owner": null, "lease.expires_at": "$$NOW" } }]);
    },
  };
}
