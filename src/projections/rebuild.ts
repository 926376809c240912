import { randomUUID } from "node:crypto";
import { type Db, type Document, Long } from "mongodb";
import type { Logger } from "pino";
import type { LogReader } from "../log/reader.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { copyName, createCopy, ensureIndexes, exists, swapIn } from "./copies.ts";
import type { Lease } from "./lease.ts";
import type { Projection } from "./projection.ts";
import { readAhead } from "./read-ahead.ts";
import type { Turns } from "./turns.ts";

const READ_BATCH = 250;
/** How long what was read may be held back from the copy: as much is read again after a crash. */
const SETTLE_MS = 15_000;
/** How far behind the live one a copy may be for the live one to stop and wait for it. */
const CLOSE_ENTRIES = 1000;

/** A `$set` stage that asks for a rebuild, or joins the one under way. */
export function requestRebuild(): Document {
  const rebuild = { id: randomUUID(), phase: "requested", copy: null, revision: 0, position: Long.ZERO, last_error: null };
  return { rebuild: { $ifNull: ["$rebuild", { $literal: rebuild }] } };
}

/** Whether a projection is to be built anew: someone has asked for it, or the live copy is of older code. */
export function wantsRebuild(checkpoint: Checkpoint, projection: Projection): boolean {
  return checkpoint.rebuild !== null || checkpoint.revision < projection.revision;
}

/**
 * Builds a copy of a projection from the whole log and puts it in the place of the live one, which goes on meanwhile and
 * stands still only for the last step (`turns`). Goes on with what an earlier holder of the lease had begun.
 *
 * A crash at any point loses nothing: until `swapping` is recorded the live collection and its position stand as they are,
 * and the copy up to its own recorded position is complete. From then on the copy is complete up to the live position, so it
 * does not matter for that position whether the rename has happened; whoever has the lease next finishes it first.
 */
export async function rebuildProjection(
  { db, reader, logger }: { readonly db: Db; readonly reader: LogReader; readonly logger: Logger },
  projection: Projection,
  lease: Lease,
  turns: Turns,
  signal: AbortSignal,
): Promise<void> {
  const { copy, position: begunAt } = await begin(db, projection, lease);
  logger.info({ projection: projection.name, copy, position: begunAt }, "rebuilding a projection");
  const writer = projection.open(copy, { trusted: true });
  let position = begunAt;

  async function settle(): Promise<void> {
    await writer.flush();
    await lease.write({ "rebuild.position": Long.fromNumber(position), "rebuild.last_error": null });
  }

  async function catchUp(to?: number): Promise<void> {
    let settledAt = performance.now();
    const range = { after: position, batchSize: READ_BATCH, ...(to !== undefined && { to }) };
    for await (const entries of readAhead((until) => reader.readForward({ ...range, signal: until }), signal)) {
      lease.check();
      await writer.apply(entries);
      position = entries.at(-1)?.position ?? position;
      if (performance.now() - settledAt < SETTLE_MS) continue;
      await settle();
      settledAt = performance.now();
    }
    await settle();
  }

  await catchUp();
  await ensureIndexes(db, projection, copy);
  do await catchUp();
  while (position + CLOSE_ENTRIES < lease.checkpoint.position);
  await turns(async () => {
    signal.throwIfAborted();
    await catchUp(lease.checkpoint.position);
    await projection.carryOver(copy);
    await lease.write({ "rebuild.phase": "swapping" });
    await finishSwap(db, projection, lease);
  });
  logger.info({ projection: projection.name, position }, "rebuilt a projection");
}

/** Ends a rebuild whose copy is complete. To be done before anything else is done to the projection. */
export async function finishSwap(db: Db, projection: Projection, lease: Lease): Promise<void> {
  const { rebuild } = lease.checkpoint;
  if (rebuild?.phase !== "swapping" || rebuild.copy === null) return;
  lease.check();
  await swapIn(db, projection, rebuild.copy);
  await lease.write({ rebuild: null, revision: rebuild.revision, progressed_at: "$$NOW" });
  // Once more, for what came in between.
  await projection.carryOver(projection.collection);
}

/** Goes on with the copy that is there, if this code's revision began it; otherwise begins a new one. */
async function begin(db: Db, projection: Projection, lease: Lease): Promise<{ readonly copy: string; readonly position: number }> {
  const { rebuild } = lease.checkpoint.rebuild ? lease.checkpoint : await lease.write(requestRebuild());
  if (rebuild?.copy && rebuild.revision === projection.revision && (await exists(db, rebuild.copy)))
    return { copy: rebuild.copy, position: rebuild.position };
  const copy = copyName(projection, "rebuild");
  await lease.write({
    "rebuild.phase": "building",
    "rebuild.copy": copy,
    "rebuild.revision": projection.revision,
    "rebuild.position": Long.ZERO,
  });
  if (rebuild?.copy) await db.dropCollection(rebuild.copy);
  await createCopy(db, projection, copy);
  return { copy, position: 0 };
}
