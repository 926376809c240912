import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { setTimeout as pause, setImmediate } from "node:timers/promises";
import { type Db, Long } from "mongodb";
import type { Logger } from "pino";
import { LogDamaged } from "../domain/log-damaged.ts";
import type { AppendListener } from "../log/appender.ts";
import { readBodies } from "../log/body-reader.ts";
import { checkpointsOf, createCheckpoint } from "../projections/checkpoint.ts";
import { acquireLease, type Lease, LeaseLost } from "../projections/lease.ts";
import { readAhead } from "../projections/read-ahead.ts";
import type { TreeHead } from "./checkpoint.ts";
import type { CheckpointFile } from "./checkpoint-file.ts";
import type { CheckpointSigner } from "./checkpoint-signer.ts";
import { type CheckpointStore, HistoryChanged, type SignedCheckpoint } from "./checkpoint-store.ts";
import { createFrontier, type Frontier } from "./frontier.ts";
import { hearLeaves } from "./heard-leaves.ts";
import { EMPTY_ROOT, hashLeaf, sameHash } from "./merkle.ts";
import { partialTiles } from "./tile.ts";
import type { TileStore } from "./tile-store.ts";
import { goesOnFrom, resolveNodes, subtree, TileMissing, tileKey } from "./tree-proofs.ts";

/** The name of the tree's checkpoint and lease among those of the projections. */
export const AUDIT_TREE = "audit_tree";

const REVISION = 1;
/** How long the log is let grow between two looks at it. */
const LOOK_EVERY_MS = 400;
/** How long the newest entry may be missing before it is taken to be gone: a new primary may, for a moment, show less than the old one did. */
const MISSING_MS = 3000;
const READ_BATCH = 2000;
/** After how many leaves in a row others get their turn: a millisecond or two. */
const YIELD_AFTER = 1000;
/** After how many entries the tiles are written, at the latest: as much is read again after a crash. */
const COMMIT_ENTRIES = 20_000;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 5000;
const MAX_ERROR_LENGTH = 500;

export type TreeKeeperOptions = {
  readonly db: Db;
  readonly tiles: TileStore;
  readonly checkpoints: CheckpointStore;
  readonly signer: CheckpointSigner;
  /** Where this process remembers the newest checkpoint apart from the database: nothing is signed that does not go on from it. */
  readonly remembered?: CheckpointFile | undefined;
  /** Where the newest checkpoint is published: the same goes for that. */
  readonly published?: CheckpointFile | undefined;
  /** Is told of every checkpoint after it has been kept. Must not throw. */
  readonly onSigned: (checkpoint: SignedCheckpoint) => void;
  /** Spares the reading of what this process appends itself; all else is read from the database. */
  readonly onAppended?: (listener: AppendListener) => () => void;
  readonly logger: Logger;
  readonly leaseMs: number;
};

/** A head that was signed, and the file that tells of it, where it is not the database. */
type SignedHead = TreeHead & { readonly path?: string };

/** Keeps the Merkle tree of the log, when no other process does. */
export type TreeKeeper = {
  start(): void;
  /** Ends that; resolves when the lease is free for others. */
  stop(): Promise<void>;
};

/**
 * The projection of the log into its Merkle tree. Whoever holds its lease reads the bodies, writes tiles, notes how many
 * entries they cover, and then signs: so tiles are there before a checkpoint needs them. What a crash leaves is done again,
 * with the same result. Where the log is not what was signed before, as the database or a file apart from it tells, nothing
 * is signed until it is again. A process that waits for the lease remembers what the others sign.
 */
export function createTreeKeeper(options: TreeKeeperOptions): TreeKeeper {
  const { db, tiles, checkpoints, signer, remembered, published, onSigned, onAppended, logger, leaseMs } = options;
  const leases = checkpointsOf(db);
  const owner = `${hostname()}:${process.pid}:${randomBytes(4).toString("hex")}`;
  const stopping = new AbortController();
  let running: Promise<void> | undefined;

  async function run(): Promise<void> {
    const { signal } = stopping;
    for (let failures = 0; !signal.aborted; ) {
      let retryMs = leaseMs / 3;
      try {
        await createCheckpoint(leases, AUDIT_TREE, REVISION);
        const lease = await acquireLease(leases, AUDIT_TREE, owner, REVISION, leaseMs);
        if (lease) {
          retryMs = 0;
          try {
            await runTerm(lease, signal, () => {
              failures = 0;
            });
            // A rebuild is wanted: the next term has a higher fencing number, so it may write over every tile of this one.
          } catch (error) {
            if (!signal.aborted && !(error instanceof LeaseLost)) await lease.write({ last_error: { $literal: describe(error) } });
            throw error;
          } finally {
            await lease.release();
          }
        } else {
          await remember();
        }
      } catch (error) {
        if (signal.aborted) return;
        retryMs = Math.min(FIRST_RETRY_MS * 2 ** failures++, LAST_RETRY_MS);
        if (error instanceof LeaseLost) logger.warn({ projection: AUDIT_TREE }, "another process keeps the log's tree now");
        else if (error instanceof HistoryChanged || error instanceof LogDamaged)
          logger.error({ projection: AUDIT_TREE, err: error }, "THE LOG HAS BEEN CHANGED: no checkpoint is signed any more");
        else logger.warn({ projection: AUDIT_TREE, err: error, retry_ms: retryMs }, "the log's tree cannot be kept; trying again");
      }
      await pause(retryMs, undefined, { signal }).catch(() => undefined);
    }
  }

  async function runTerm(lease: Lease, stopped: AbortSignal, progressed: () => void): Promise<void> {
    const over = new AbortController();
    const signal = AbortSignal.any([stopped, over.signal]);
    const tasks = [keepLease(lease, signal), growTree(lease, signal, progressed)];
    try {
      await Promise.race(tasks);
    } finally {
      over.abort();
      await Promise.allSettled(tasks);
    }
  }

  async function keepLease(lease: Lease, signal: AbortSignal): Promise<never> {
    for (;;) {
      await pause(leaseMs / 3, undefined, { signal });
      try {
        await lease.write({});
      } catch (error) {
        if (error instanceof LeaseLost) throw error;
        logger.warn({ projection: AUDIT_TREE, err: error }, "the lease of the log's tree could not be prolonged yet");
      }
      lease.check();
    }
  }

  /** Resolves when a rebuild is wanted that was not when the term began. */
  async function growTree(lease: Lease, signal: AbortSignal, progressed: () => void): Promise<void> {
    const rebuilding = lease.checkpoint.rebuild?.id;
    const anchors = await signedHeads();
    const frontier = await openFrontier(lease, anchors, signal);
    /** Those that the tree has yet to grow to. */
    const ahead = anchors.filter(({ size }) => size > frontier.size);
    let signedAt = Number.NEGATIVE_INFINITY;
    let missingSince: number | undefined;
    using heard = hearLeaves(onAppended);

    /** Holds the tree, just as it is, against what has been signed. */
    function holdAgainstSigned(): void {
      for (let next = ahead[0]; next?.size === frontier.size; next = ahead[0]) {
        if (!sameHash(next.root, frontier.root())) throw new HistoryChanged(next.size, next.path);
        ahead.shift();
      }
    }

    /** Makes durable what the tree is at this moment; it may grow on meanwhile. */
    async function commit(): Promise<void> {
      lease.check();
      const { size } = frontier;
      await tiles.write(frontier.takeChanged(), lease.fence);
      const position = Long.fromNumber(size);
      if (rebuilding !== undefined && lease.checkpoint.rebuild?.id === rebuilding) await lease.write({ "rebuild.position": position });
      if (lease.checkpoint.position !== size || lease.checkpoint.lastError)
        await lease.write({ position, progressed_at: "$$NOW", last_error: null });
      progressed();
    }

    /** Signs what was committed last: nothing may have been appended since. */
    async function sign(): Promise<void> {
      if (ahead.length > 0) return;
      lease.check();
      const head: TreeHead = { size: frontier.size, root: frontier.root() };
      const signed = await signer.sign(head);
      if (signed) onSigned(signed);
      signedAt = performance.now();
    }

    function append(leaf: Uint8Array): void {
      frontier.append(leaf);
      holdAgainstSigned();
    }

    /** Appends what was heard, with pauses for others in between; answers whether there was anything. */
    async function appendHeard(): Promise<boolean> {
      const leaves = heard.takeAfter(frontier.size);
      for (const [index, leaf] of leaves.entries()) {
        append(leaf);
        if ((index + 1) % YIELD_AFTER === 0) await setImmediate();
      }
      return leaves.length > 0;
    }

    /** Reads on to the end of the log; answers whether the newest entry that is known is still there. */
    async function appendStored(): Promise<boolean> {
      // From the last entry that is known, so that it shows when that has been taken away or replaced.
      const from = Math.max(1, frontier.size);
      let seenLast = frontier.size === 0;
      let uncommitted = 0;
      let committing: Promise<void> = Promise.resolve();
      const open = (until: AbortSignal) => readBodies(db, { from, batchSize: READ_BATCH, signal: until });
      for await (const batch of readAhead(open, signal)) {
        for (const { position, body } of batch) {
          if (!seenLast) {
            seenLast = position === frontier.size;
            if (!seenLast || (frontier.lastLeaf && !sameHash(hashLeaf(body), frontier.lastLeaf)))
              throw new LogDamaged(frontier.size, "its entry is not the one that it was");
            continue;
          }
          if (position !== frontier.size + 1) throw new LogDamaged(frontier.size + 1, "there is no entry");
          append(hashLeaf(body));
          uncommitted++;
        }
        if (uncommitted < COMMIT_ENTRIES) continue;
        uncommitted = 0;
        await committing;
        committing = commit();
        // Awaited below, but perhaps not before it fails; without this the process would call it unhandled.
        committing.catch(() => undefined);
        if (performance.now() - signedAt < LOOK_EVERY_MS) continue;
        await committing;
        await sign();
      }
      await committing;
      return seenLast;
    }

    for (;;) {
      const lookedAt = performance.now();
      const isThere = (await appendHeard()) || (await appendStored());
      if (isThere) {
        await commit();
        await sign();
        const { rebuild } = lease.checkpoint;
        if (rebuild && rebuild.id !== rebuilding) return;
        if (rebuild) await lease.write({ rebuild: null });
      }
      const [next] = ahead;
      if (isThere && !next) {
        missingSince = undefined;
      } else {
        missingSince ??= lookedAt;
        if (lookedAt - missingSince > MISSING_MS)
          throw isThere && next ? new HistoryChanged(next.size, next.path) : new LogDamaged(frontier.size, "there is no entry any more");
      }
      await pause(Math.max(0, LOOK_EVERY_MS - (performance.now() - lookedAt)), undefined, { signal });
    }
  }

  /** What the tree must have had the root of, the smallest first: by the database, and by the files that are kept apart from it. */
  async function signedHeads(): Promise<SignedHead[]> {
    const stored = await checkpoints.newestRoot();
    const own = await headIn(remembered);
    if (stored && stored.size > 0 && remembered && !own)
      logger.warn(
        { projection: AUDIT_TREE, size: stored.size, file: remembered.path },
        "no checkpoint is remembered in DATA_DIR: the log is believed as the database has it",
      );
    const elsewhere = await headIn(published).catch((error: unknown) => {
      // Whoever publishes looks at it again, and replaces nothing that cannot be read.
      logger.warn({ projection: AUDIT_TREE, err: error }, "the published checkpoint cannot be read");
      return undefined;
    });
    return [stored, own, elsewhere].flatMap((head) => (head && head.size > 0 ? [head] : [])).toSorted((a, b) => a.size - b.size);
  }

  /** Remembers the newest checkpoint that is signed, if it goes on from the one that is remembered. */
  async function remember(): Promise<void> {
    const newest = remembered && (await checkpoints.newest());
    if (!newest) return;
    const known = await remembered.read();
    // A new primary may, for a moment, show less than the old one did.
    if (known && known.size > newest.size) return;
    if (known && !(await goesOnFrom(known, newest, tiles.read))) throw new HistoryChanged(known.size, remembered.path);
    if (known?.size !== newest.size) await remembered.write(newest.signed);
  }

  /** The edge of the tree as the tiles have it; an empty one, to begin anew, when tiles are missing or are not what was signed. */
  async function openFrontier(lease: Lease, anchors: readonly SignedHead[], signal: AbortSignal): Promise<Frontier> {
    const size = lease.checkpoint.rebuild ? 0 : lease.checkpoint.position;
    try {
      if (size > 0) {
        const edge = partialTiles(size);
        const found = await tiles.read(edge);
        const partials = edge.map(({ level, index }) => ({ level, index, hashes: found.get(tileKey(level, index)) ?? new Uint8Array() }));
        const frontier = createFrontier(size, partials);
        const within = anchors.filter((anchor) => anchor.size <= size);
        const roots = await resolveNodes(
          within.map((anchor) => subtree(0, anchor.size)),
          tiles.read,
        );
        if (within.every(({ root }, index) => sameHash(root, roots[index] ?? EMPTY_ROOT))) return frontier;
        logger.error({ projection: AUDIT_TREE }, "the tiles of the log's tree are not what was signed");
      }
    } catch (error) {
      if (!(error instanceof TileMissing) && !(error instanceof Error && error.message.startsWith("tile "))) throw error;
      logger.warn({ projection: AUDIT_TREE, err: error }, "tiles of the log's tree are missing");
    }
    if (size > 0 || lease.checkpoint.rebuild) logger.warn({ projection: AUDIT_TREE }, "the log's tree is made anew from the log");
    // Tiles that tell what was signed are not written over with those of a log that has been changed.
    await holdLogAgainst(anchors, signal);
    return createFrontier();
  }

  /** Throws HistoryChanged when the log has not had one of these roots, and LogDamaged when it lacks an entry that they cover. */
  async function holdLogAgainst(anchors: readonly SignedHead[], signal: AbortSignal): Promise<void> {
    const size = anchors.at(-1)?.size;
    if (size === undefined) return;
    const frontier = createFrontier();
    const due = [...anchors];
    for await (const batch of readBodies(db, { from: 1, to: size, batchSize: READ_BATCH, signal })) {
      for (const { position, body } of batch) {
        if (position !== frontier.size + 1) throw new LogDamaged(frontier.size + 1, "there is no entry");
        frontier.append(hashLeaf(body));
        for (let next = due[0]; next?.size === frontier.size; next = due[0]) {
          if (!sameHash(next.root, frontier.root())) throw new HistoryChanged(next.size, next.path);
          due.shift();
        }
      }
      frontier.takeChanged();
    }
    if (frontier.size < size) throw new LogDamaged(frontier.size + 1, "there is no entry any more");
  }

  return {
    start() {
      running ??= run();
    },
    async stop() {
      stopping.abort();
      await running;
    },
  };
}

async function headIn(file: CheckpointFile | undefined): Promise<SignedHead | undefined> {
  const head = await file?.read();
  return file && head && { size: head.size, root: head.root, path: file.path };
}

function describe(error: unknown): string {
  return String(error).slice(0, MAX_ERROR_LENGTH);
}
