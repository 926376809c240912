import type { AuditKeySource } from "./audit-keys.ts";
import { checkpointText, type TreeHead } from "./checkpoint.ts";
import type { CheckpointFile } from "./checkpoint-file.ts";
import { type CheckpointStore, HistoryChanged, type SignedCheckpoint } from "./checkpoint-store.ts";
import { sameHash } from "./merkle.ts";
import { parseNote, signNote } from "./signed-note.ts";

/** Signs the heads of a log's tree. */
export type CheckpointSigner = {
  /**
   * Signs a head, and keeps it; undefined when it is signed by all present keys already. Its root is entered as the one of
   * its size before it is signed, and what is signed is remembered before anybody else sees it. Throws HistoryChanged when that size has another root.
   */
  sign(head: TreeHead): Promise<SignedCheckpoint | undefined>;
};

export type CheckpointSignerOptions = {
  readonly origin: string;
  readonly keys: Pick<AuditKeySource, "signers">;
  readonly checkpoints: CheckpointStore;
  /** Where the newest that was signed is remembered, apart from the database. */
  readonly remembered?: CheckpointFile | undefined;
  readonly clock: () => Date;
};

/** A signer for the log that `origin` names. */
export function createCheckpointSigner(options: CheckpointSignerOptions): CheckpointSigner {
  const { origin, keys, checkpoints, remembered, clock } = options;
  return {
    async sign(head) {
      const signers = await keys.signers(origin);
      const newest = await checkpoints.newest();
      if (newest?.size === head.size) {
        if (!sameHash(newest.root, head.root)) throw new HistoryChanged(head.size);
        const ids = new Set(parseNote(newest.signed).signatures.map(({ name, id }) => `${name} ${id}`));
        if (signers.every(({ verifier }) => ids.has(`${verifier.name} ${verifier.id}`))) return undefined;
      }
      await checkpoints.reserve(head);
      const signed = signNote(checkpointText({ origin, ...head }), signers);
      await remembered?.write(signed);
      const signedAt = clock();
      await checkpoints.publish(head.size, signed, signedAt);
      return { ...head, signed, signedAt };
    },
  };
}
