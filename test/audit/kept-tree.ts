import { randomBytes } from "node:crypto";
import type { Db } from "mongodb";
import type { AuditKeySource } from "../../src/audit/audit-keys.ts";
import { type AuditLog, createAuditLog } from "../../src/audit/audit-log.ts";
import { openCheckpoint, type TreeHead } from "../../src/audit/checkpoint.ts";
import type { CheckpointFile } from "../../src/audit/checkpoint-file.ts";
import { createCheckpointSigner } from "../../src/audit/checkpoint-signer.ts";
import { type CheckpointStore, createCheckpointStore, type SignedCheckpoint } from "../../src/audit/checkpoint-store.ts";
import { createSignerKey } from "../../src/audit/signed-note.ts";
import { createTileStore, type TileStore } from "../../src/audit/tile-store.ts";
import { createTreeKeeper } from "../../src/audit/tree-keeper.ts";
import type { Appender } from "../../src/log/appender.ts";
import { createLogger } from "../../src/logger.ts";
import { eventually } from "../support/eventually.ts";
import { anEntry, type TestLog } from "../support/log.ts";

export const ORIGIN = "log.example/audit";
/** The key with which the trees of tests are signed. */
export const SIGNER = createSignerKey(ORIGIN, Buffer.alloc(32, 7));

const LEASE_MS = 600;

/** What is needed to read, keep and sign a log's tree, over one database. */
export type AuditParts = {
  readonly db: Db;
  readonly tiles: TileStore;
  readonly checkpoints: CheckpointStore;
  readonly audit: AuditLog;
  /** The newest checkpoint, verified, once it covers so many entries. */
  covered(size: number): Promise<TreeHead>;
};

export function auditParts(db: Db): AuditParts {
  const tiles = createTileStore(db);
  const checkpoints = createCheckpointStore(db);
  const audit = createAuditLog(db, tiles, checkpoints);
  return {
    db,
    tiles,
    checkpoints,
    audit,
    covered: (size) =>
      eventually(async () => {
        const newest = await audit.checkpoint();
        if (!newest || newest.size < size) throw new Error(`covers ${newest?.size} of ${size}`);
        return openCheckpoint(newest.signed, [SIGNER.verifier]);
      }),
  };
}

export type KeeperOptions = {
  readonly keys?: Pick<AuditKeySource, "signers">;
  readonly onSigned?: (checkpoint: SignedCheckpoint) => void;
  readonly onAppended?: Appender["onAppended"];
  readonly remembered?: CheckpointFile;
  readonly published?: CheckpointFile;
  /** Lines that it logs. */
  readonly lines?: string[];
};

/** Keeps the tree of a log until the end of the `await using` block, as a process of its own would. */
export function keepTree({ db, tiles, checkpoints }: AuditParts, options: KeeperOptions = {}): AsyncDisposable {
  const { keys = { signers: async () => [SIGNER] }, onSigned = () => undefined, onAppended, remembered, published, lines } = options;
  const signer = createCheckpointSigner({ origin: ORIGIN, keys, checkpoints, remembered, clock: () => new Date() });
  const logger = lines ? createLogger("debug", { write: (line) => lines.push(line) }) : createLogger("silent");
  const keeper = createTreeKeeper({
    db,
    tiles,
    checkpoints,
    signer,
    remembered,
    published,
    onSigned,
    logger,
    leaseMs: LEASE_MS,
    ...(onAppended && { onAppended }),
  });
  keeper.start();
  return { [Symbol.asyncDispose]: () => keeper.stop() };
}

/** Appends so many entries, of a stream each, and answers the position of the last. */
export async function appendEntries(log: TestLog, count: number): Promise<number> {
  const stream = randomBytes(6).toString("hex");
  const positions = Array.from({ length: count }, (_, index) => log.appender.append(anEntry(`${stream}-${index}`, 1)));
  return Math.max(0, ...(await Promise.all(positions)));
}
