import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { setTimeout as pause } from "node:timers/promises";
import type { Db } from "mongodb";
import type { Logger } from "pino";
import type { LogReader } from "../log/reader.ts";
import { checkpointsOf, createCheckpoint, readCheckpoints } from "./checkpoint.ts";
import { acquireLease, type Lease, LeaseLost } from "./lease.ts";
import { createPosition } from "./positions.ts";
import type { Projection } from "./projection.ts";
import { requestRebuild } from "./rebuild.ts";
import { runTerm } from "./term.ts";
import { type VerifyProgress, verifyProjection } from "./verify.ts";

/** How a projection stands, for people who look after it. */
export type ProjectionState = {
  readonly name: string;
  /** Every entry up to this position is in it. */
  readonly position: number;
  /** The process that runs it; empty if none does. */
  readonly runner: string;
  readonly progressedAt?: Date;
  readonly rebuilding: boolean;
  /** What keeps it, or its rebuild, from going on; empty if nothing does. */
  readonly lastError: string;
};

/** How far a rebuild has come. */
export type RebuildProgress = { readonly position: number; readonly target: number; readonly done: boolean };

/** Runs projections, and looks after those that other processes run. */
export type Projector = {
  /** The names of the projections. */
  readonly names: readonly string[];
  /** Those that `verify` compares: the ones of documents. */
  readonly comparable: readonly string[];
  /** Begins to run the projections, each when no other process does. */
  start(): void;
  /** Ends that; resolves when their leases are free for others. */
  stop(): Promise<void>;
  /** Resolves when a projection has every entry up to a position, whichever process runs it. Rejects with the signal's reason. */
  waitFor(name: string, position: number, signal: AbortSignal): Promise<void>;
  states(): Promise<ProjectionState[]>;
  /** Has a projection built anew, or joins the rebuild under way, and tells how far it is. It goes on when the caller leaves. */
  rebuild(name: string, signal: AbortSignal): AsyncIterable<RebuildProgress>;
  /** Compares a projection with what the log says. */
  verify(name: string, signal: AbortSignal): AsyncIterable<VerifyProgress>;
};

export type ProjectorOptions = {
  readonly db: Db;
  readonly reader: LogReader;
  readonly logger: Logger;
  /** How long another process waits before it takes over from one that is not heard of. */
  readonly leaseMs: number;
  /** Names of projections that something else runs, by the same leases: they are listed, waited for and rebuilt alike. */
  readonly others?: readonly string[];
};

const REPORT_MS = 100;

/** The projector of this process. It runs nothing until it is started. */
export function createProjector(options: ProjectorOptions, projections: readonly Projection[]): Projector {
  const { db, reader, logger, leaseMs, others = [] } = options;
  const checkpoints = checkpointsOf(db);
  const owner = `${hostname()}:${process.pid}:${randomBytes(4).toString("hex")}`;
  const stopping = new AbortController();
  let running: Promise<unknown> | undefined;
  /** The leases that this process holds. */
  const held = new Map<string, Lease>();
  const names = [...projections.map(({ name }) => name), ...others];
  const positions = new Map(names.map((name) => [name, createPosition(() => positionOf(name))]));
  const known = new Map(projections.map((projection) => [projection.name, projection]));

  function find<Found>(all: ReadonlyMap<string, Found>, name: string): Found {
    const found = all.get(name);
    if (!found) throw new Error(`there is no projection ${name}`);
    return found;
  }

  async function positionOf(name: string): Promise<number> {
    const [checkpoint] = await readCheckpoints(checkpoints, [name]);
    return checkpoint?.position ?? 0;
  }

  async function ensureCheckpoint(projection: Projection): Promise<void> {
    if ((await readCheckpoints(checkpoints, [projection.name])).length > 0) return;
    // Documents of which no checkpoint tells may be of any revision.
    const isEmpty = (await db.collection(projection.collection).findOne({}, { projection: { _id: 1 } })) === null;
    await createCheckpoint(checkpoints, projection.name, isEmpty ? projection.revision : 0);
  }

  async function run(projection: Projection): Promise<void> {
    const { signal } = stopping;
    while (!signal.aborted) {
      try {
        await ensureCheckpoint(projection);
        const lease = await acquireLease(checkpoints, projection.name, owner, projection.revision, leaseMs);
        if (lease) {
          held.set(projection.name, lease);
          try {
            await runTerm({ db, reader, logger, projection, lease, leaseMs, position: find(positions, projection.name), signal });
          } finally {
            held.delete(projection.name);
            await lease.release();
          }
          continue;
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof LeaseLost) logger.warn({ projection: projection.name }, "another process runs the projection now");
        else logger.error({ err: error, projection: projection.name }, "a projection cannot be run; trying again");
      }
      await pause(leaseMs / 3, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Answers the identifier of the rebuild that is to come, or under way. */
  async function askForRebuild(name: string): Promise<string | undefined> {
    const lease = held.get(name);
    try {
      // By the lease this process knows of it at once; another one learns of it when it next prolongs its own.
      if (lease) return (await lease.write(requestRebuild())).rebuild?.id;
    } catch (error) {
      if (!(error instanceof LeaseLost)) throw error;
    }
    const asked = await checkpoints.findOneAndUpdate({ _id: name }, [{ $set: requestRebuild() }], { returnDocument: "after" });
    return asked?.rebuild?.id;
  }

  async function* rebuild(name: string, signal: AbortSignal): AsyncGenerator<RebuildProgress, void, undefined> {
    const projection = known.get(name);
    if (projection) await ensureCheckpoint(projection);
    const id = await askForRebuild(name);
    for (;;) {
      const [checkpoint] = await readCheckpoints(checkpoints, [name]);
      const target = await reader.head();
      if (checkpoint?.rebuild?.id !== id) {
        yield { position: checkpoint?.position ?? 0, target, done: true };
        return;
      }
      yield { position: checkpoint?.rebuild?.position ?? 0, target, done: false };
      await pause(REPORT_MS, undefined, { signal });
    }
  }

  return {
    names,
    comparable: [...known.keys()],
    start() {
      running ??= Promise.all(projections.map(run));
    },
    async stop() {
      stopping.abort();
      await running;
    },
    waitFor: (name, position, signal) => find(positions, name).waitFor(position, signal),
    async states() {
      const found = new Map((await readCheckpoints(checkpoints, names)).map((checkpoint) => [checkpoint.name, checkpoint]));
      return names.map((name) => {
        const checkpoint = found.get(name);
        return {
          name,
          position: checkpoint?.position ?? 0,
          runner: checkpoint?.runner ?? "",
          rebuilding: checkpoint?.rebuild != null,
          lastError: checkpoint?.lastError ?? checkpoint?.rebuild?.lastError ?? "",
          ...(checkpoint?.progressedAt && { progressedAt: checkpoint.progressedAt }),
        };
      });
    },
    rebuild,
    verify: (name, signal) => verifyProjection({ db, reader, checkpoints }, find(known, name), signal),
  };
}
