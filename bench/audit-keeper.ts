import { setTimeout as pause } from "node:timers/promises";
import type { Db } from "mongodb";
import { pino } from "pino";
import { createAuditKeySource } from "../src/audit/audit-keys.ts";
import { createCheckpointSigner } from "../src/audit/checkpoint-signer.ts";
import { CHECKPOINTS_COLLECTION, createCheckpointStore } from "../src/audit/checkpoint-store.ts";
import { createTileStore, TILES_COLLECTION } from "../src/audit/tile-store.ts";
import { AUDIT_TREE, createTreeKeeper } from "../src/audit/tree-keeper.ts";
import { loadConfig } from "../src/config.ts";
import type { Appender } from "../src/log/appender.ts";

/** Ordertrail's keeper of the log's tree, at work. */
export type RunningKeeper = {
  /** Resolves when a checkpoint over so many entries is signed. */ covered(size: number): Promise<void>;
  stop(): Promise<void>;
};

const LEASE_MS = 10_000;
const LOOK_EVERY_MS = 5;

/** Keeps the tree of the log in a database, as the application does; its keys are in a folder. */
export async function runKeeper(db: Db, folder: string, onAppended?: Appender["onAppended"]): Promise<RunningKeeper> {
  const clock = () => new Date();
  const config = loadConfig({ DATA_DIR: folder });
  const tiles = createTileStore(db);
  const checkpoints = createCheckpointStore(db);
  await checkpoints.ensureIndexes();
  const signer = createCheckpointSigner({ origin: config.auditOrigin, keys: createAuditKeySource(config), checkpoints, clock });
  let signed = -1;
  const onSigned = ({ size }: { readonly size: number }) => {
    signed = size;
  };
  const logger = pino({ level: "error" }, process.stderr);
  const keeper = createTreeKeeper({
    db,
    tiles,
    checkpoints,
    signer,
    onSigned,
    logger,
    leaseMs: LEASE_MS,
    ...(onAppended && { onAppended }),
  });
  keeper.start();
  return {
    async covered(size) {
      while (signed < size) await pause(LOOK_EVERY_MS);
    },
    stop: () => keeper.stop(),
  };
}

/** Makes the log of a database one that has never had a tree. */
export async function forgetTree(db: Db): Promise<void> {
  await db.dropCollection(TILES_COLLECTION);
  await db.dropCollection(CHECKPOINTS_COLLECTION);
  await db.collection<{ _id: string }>("checkpoints").deleteOne({ _id: AUDIT_TREE });
}
