import { randomUUID } from "node:crypto";
import { rename, rm, writeFile } from "node:fs/promises";
import type { Logger } from "pino";
import type { CheckpointStore, SignedCheckpoint } from "./checkpoint-store.ts";
import type { TileStore } from "./tile-store.ts";
import { resolveNodes } from "./tree-proofs.ts";
import { createWitnessClient, type Witness } from "./witness.ts";

/** Takes checkpoints out of the operator's hands: to witnesses, to a file, to an address. */
export type Announcer = {
  /** Begins to; of several that come meanwhile, the newest goes next. What fails is logged, and holds nothing up. */
  announce(checkpoint: SignedCheckpoint): void;
  /** Resolves when nothing is under way any more. */
  settled(): Promise<void>;
};

export type AnnouncerOptions = {
  readonly witnesses: readonly Witness[];
  /** A file that always holds the newest checkpoint. */
  readonly file: string | undefined;
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
    return async (checkpoint) => checkpoints.addCosignatures(checkpoint.size, await client.cosign(checkpoint));
  });
  if (file !== undefined) destinations.push(({ signed }) => replaceFile(file, signed));
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
      await send(checkpoint).catch((error: unknown) =>
        logger.warn({ err: error, size: checkpoint.size }, "a checkpoint could not be announced"),
      );
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

async function replaceFile(path: string, text: string): Promise<void> {
  const draft = `${path}.${randomUUID()}`;
  try {
    await writeFile(draft, text);
    await rename(draft, path);
  } finally {
    await rm(draft, { force: true });
  }
}
