import { setTimeout as pause } from "node:timers/promises";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Db } from "mongodb";
import type { AuditLog } from "../audit/audit-log.ts";
import { openCheckpoint, type TreeHead } from "../audit/checkpoint.ts";
import type { CheckpointFile } from "../audit/checkpoint-file.ts";
import type { CheckpointStore, SignedCheckpoint } from "../audit/checkpoint-store.ts";
import { sameHash } from "../audit/merkle.ts";
import type { VerifierKey } from "../audit/signed-note.ts";
import { findStray, storedLog } from "../audit/stored-log.ts";
import type { TileStore } from "../audit/tile-store.ts";
import { consistencyProof, inclusionProof, resolveNodes } from "../audit/tree-proofs.ts";
import { readTreeState } from "../audit/tree-state.ts";
import { type Difference, verifyRest, verifyTree } from "../audit/verify-tree.ts";
import { LogDamaged } from "../domain/log-damaged.ts";
import { orderStream } from "../domain/order.ts";
import { Refusal } from "../domain/refusal.ts";
import type { AuditService } from "../gen/ordertrail/v1/audit_service_pb.js";
import type { RecordedEntry } from "../log/log-entry.ts";
import type { LogReader } from "../log/reader.ts";
import type { ServiceHandlers } from "./call.ts";

export type AuditTreeOptions = {
  readonly db: Db;
  readonly reader: LogReader;
  readonly audit: AuditLog;
  readonly tiles: TileStore;
  readonly checkpoints: CheckpointStore;
  /** The newest checkpoint that this process has signed, apart from the database. */
  readonly remembered: Pick<CheckpointFile, "read">;
  /** The log's keys, the newest first. */
  readonly verifiers: () => Promise<readonly VerifierKey[]>;
  readonly now: () => Date;
};

/** The methods of AuditService that prove the history. */
export type AuditTreeHandlers = Pick<
  ServiceHandlers<typeof AuditService>,
  "getCheckpoint" | "getInclusionProof" | "getConsistencyProof" | "verifyLog"
>;

/** How long a proof waits for the checkpoint that covers its entry, and how often it looks. */
const COVER_WITHIN_MS = 3000;
const LOOK_EVERY_MS = 50;

/** Proofs over the log's tree, and its verification. */
export function createAuditTreeHandlers(options: AuditTreeOptions): AuditTreeHandlers {
  const { db, reader, audit, tiles, checkpoints, remembered, verifiers, now } = options;

  async function present({ size, root, signed, signedAt }: SignedCheckpoint) {
    const verifierKeys = (await verifiers()).map(({ text }) => text).toReversed();
    return { size: BigInt(size), root, signed, signedAt: timestampFromDate(signedAt), verifierKeys };
  }

  /** What the log's keys have signed, of all that is kept and remembered, the smallest first; and what is kept that they have not. */
  async function readSigned(): Promise<{ readonly heads: readonly TreeHead[]; readonly problem: string | undefined }> {
    const keys = await verifiers();
    const own = await remembered.read();
    const heads: TreeHead[] = own ? [own] : [];
    let problem: string | undefined;
    for await (const { size, root, signed } of checkpoints.all()) {
      try {
        // What stands beside the note is not signed: what the note says counts.
        const head = openCheckpoint(signed, keys);
        heads.push(head);
        if (head.size !== size || !sameHash(head.root, root)) throw new Error("what stands beside it says something else");
      } catch (error) {
        problem ??= `the checkpoint over ${size} entries that the database keeps is not as it was signed: ${(error as Error).message}`;
      }
    }
    return { heads: heads.toSorted((a, b) => a.size - b.size), problem };
  }

  async function newestCheckpoint(): Promise<SignedCheckpoint> {
    const newest = await audit.checkpoint();
    if (newest) return newest;
    const { problem } = await readTreeState(db, checkpoints, now);
    throw new Refusal(
      "NOT_COVERED",
      problem ? `no checkpoint has been signed: ${problem}` : "no checkpoint has been signed yet: try again",
    );
  }

  /** The newest checkpoint, as soon as it covers so many entries. */
  async function covering(size: number, signal: AbortSignal): Promise<SignedCheckpoint> {
    const until = performance.now() + COVER_WITHIN_MS;
    for (;;) {
      const newest = await audit.checkpoint();
      if (newest && newest.size >= size) return newest;
      if (performance.now() > until) throw notCovered(size, newest?.size ?? 0);
      await pause(LOOK_EVERY_MS, undefined, { signal });
    }
  }

  async function entryAt(position: number): Promise<RecordedEntry[]> {
    for await (const entries of reader.readForward({ after: position - 1, to: position })) return entries;
    const head = await reader.head();
    throw position > head ? notCovered(position, head) : new LogDamaged(position, "there is no entry");
  }

  return {
    async getCheckpoint() {
      const newest = await newestCheckpoint();
      const { head, problem } = await readTreeState(db, checkpoints, now);
      return { checkpoint: await present(newest), logPosition: BigInt(head), treeProblem: problem ?? "" };
    },

    async getInclusionProof({ entry }, call) {
      const entries = entry.case === "orderId" ? await reader.readStream(orderStream(entry.value), 0) : await entryAt(Number(entry.value));
      const last = entries.at(-1);
      if (!last) throw new Refusal("ORDER_NOT_FOUND", "there is no such order");
      const checkpoint = await covering(last.position, call.signal);
      const paths = entries.map(({ position }) => inclusionProof(position - 1, checkpoint.size));
      const resolved = (await resolveNodes(paths.flat(), tiles.read)).values();
      return {
        checkpoint: await present(checkpoint),
        entries: entries.map(({ position, body }, index) => ({
          position: BigInt(position),
          body,
          hashes: resolved.take(paths[index]?.length ?? 0).toArray(),
        })),
      };
    },

    async getConsistencyProof({ oldSize, newSize }) {
      const checkpoint = await audit.checkpoint();
      const covered = checkpoint?.size ?? 0;
      const older = Number(oldSize);
      const newer = Number(newSize) || covered;
      if (Number(newSize) > 0 && older > newer) {
        const detail = `must be at most new_size, which is ${newer}`;
        throw new Refusal("VALIDATION_FAILED", `old_size: ${detail}`, {}, [{ field: "old_size", rule: "at_most_new_size", detail }]);
      }
      if (!checkpoint || newer > covered) throw notCovered(newer, covered);
      if (older > newer) throw notCovered(older, newer);
      const hashes = await resolveNodes(consistencyProof(older, newer), tiles.read);
      return { oldSize, newSize: BigInt(newer), hashes, checkpoint: await present(checkpoint) };
    },

    async *verifyLog(_request, call) {
      await newestCheckpoint();
      const { heads, problem: unsigned } = await readSigned();
      const newest = heads.at(-1);
      const total = BigInt(newest?.size ?? 0);
      const stray = await findStray(db);
      if (stray !== undefined || !newest) {
        yield { total, done: true, difference: { problem: stray ?? unsigned ?? "no checkpoint is kept" } };
        return;
      }
      const source = storedLog(db, tiles);
      const { signal } = call;
      const verifying = verifyTree(source, { head: newest, earlier: heads.slice(0, -1), signal });
      let difference: Difference | undefined;
      for (let next = await verifying.next(); ; next = await verifying.next()) {
        if (next.done) {
          difference = next.value;
          break;
        }
        yield { checked: BigInt(next.value.checked), total };
      }
      const { head, covered, problem } = await readTreeState(db, checkpoints, now);
      if (!difference && unsigned === undefined) {
        const rest = verifyRest(source, { after: newest.size, to: head, covered, signal });
        for (let next = await rest.next(); ; next = await rest.next()) {
          if (next.done) {
            difference = next.value;
            break;
          }
          yield { checked: total, total };
        }
      }
      yield {
        checked: difference && difference.position <= newest.size ? BigInt(difference.position) - 1n : total,
        total,
        done: true,
        unsignedEntries: BigInt(Math.max(0, head - newest.size)),
        treeProblem: problem ?? "",
        ...(difference && {
          difference: { position: BigInt(difference.position), toPosition: BigInt(difference.to), problem: difference.what },
        }),
        ...(!difference && unsigned !== undefined && { difference: { problem: unsigned } }),
      };
    },
  };
}

function notCovered(position: number, covered: number): Refusal {
  return new Refusal("NOT_COVERED", `the log is signed up to position ${covered}, and ${position} is asked for`, {
    position: String(position),
    covered: String(covered),
  });
}
