import type { Logger } from "pino";
import type { CheckpointFile } from "./checkpoint-file.ts";
import { type CheckpointStore, HistoryChanged, type SignedCheckpoint } from "./checkpoint-store.ts";
import type { TileStore } from "./tile-store.ts";
import { goesOnFrom, resolveNodes } from "./tree-proofs.ts";
import { createWitnessClient, type Witness, WitnessDisagrees } from "./witness.ts";

/** Takes checkpoints out of the operator's hands: to witnesses, to a file, to an address. */
export type Announcer = {
  /**
   * Begins to; of several that come meanwhile, the newest goes next. What fails is logged, and holds nothing up. That a
   * checkpoint does not go on from what a witness or the file has is an error, and leaves them as they are.
   */
  announce(checkpoint: SignedCheckpoint): void;
  /** Resolves when nothing is under way any more. */
  settled(): Promise<void>;
};

export type AnnouncerOptions = {
  readonly witnesses: readonly Witness[];
  /** A file that always holds the newest checkpoint. */
  readonly file: CheckpointFile | undefined;
  /** An address to which every checkpoint is PUT. */
  readonly url: URL | undefined;
  readonly checkpoints: CheckpointStore;
  readonly tiles: TileStore;
  readonly logger: Logger;
};

const TIMEOUT_MS = 5000;

export function createAnnouncer({ witnesses, file, url, checkpoints, tiles, logger }: AnnouncerOptions): Announcer {
  const destinations: ((checkpoint: SignedCheckpoint) => Promise<void>)[] = witnesses.map((witness) => {
    const client = createWitnessClient(witness, (nodes) => resolveNodes(nodes, tiles.read));
    return async (checkpoint) => {
      try {
        await checkpoints.addCosignatures(checkpoint.size, await client.cosign(checkpoint));
      } catch (error) {
        if (!(error instanceof WitnessDisagrees && error.size > checkpoint.size)) throw error;
        // Another process may have shown it a newer one meanwhile.
        const newest = await checkpoints.newest();
        if (!newest || newest.size < error.size) throw error;
      }
    };
  });
  if (file)
    destinations.push(async (checkpoint) => {
      const published = await file.read();
      if (published && published.size > checkpoint.size) {
        const newest = await checkpoints.newest();
        if (!newest || !(await goesOnFrom(published, newest, tiles.read))) throw new HistoryChanged(published.size, file.path);
        return;
      }
      if (published && !(await goesOnFrom(published, checkpoint, tiles.read))) throw new HistoryChanged(published.size, file.path);
      await file.write(checkpoint.signed);
    });
  if (url)
    destinations.push(async ({ signed }) => {
      const headers = { "content-type": "text/plain; charset=utf-8" };
      const { ok, status } = await fetch(url, { method: "PUT", headers, body: signed, signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (!ok) throw new Error(`the address that checkpoints are published to answered ${status}`);
    });
  const sending = destinations.map((send) => latestOnly(send, logger));
  return {
    announce: (checkpoint) => {
      for (const { give } of sending) give(checkpoint);
    },
    async settled() {
      await Promise.all(sending.map(({ settled }) => settled()));
    },
  };
}

/** One at a time, and none that a newer one has overtaken. */
function latestOnly(send: (checkpoint: SignedCheckpoint) => Promise<void>, logger: Logger) {
  let next: SignedCheckpoint | undefined;
  let running: Promise<void> | undefined;

  async function run(): Promise<void> {
    while (next) {
      const checkpoint = next;
      next = undefined;
      await send(checkpoint).catch((error: unknown) => {
        const facts = { err: error, size: checkpoint.size };
        if (error instanceof HistoryChanged || error instanceof WitnessDisagrees)
          logger.error(facts, "THE LOG HAS BEEN CHANGED: a checkpoint does not go on from what has been announced");
        else logger.warn(facts, "a checkpoint could not be announced");
      });
    }
    running = undefined;
  }

  return {
    give(checkpoint: SignedCheckpoint) {
      next = checkpoint;
      running ??= run();
    },
    settled: async () => running,
  };
}
