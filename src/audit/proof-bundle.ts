import { orderStream } from "../domain/order.ts";
import type { LogEntry } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { decodeBody } from "../log/log-entry.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { HASH_BYTES, hashLeaf, verifyInclusion } from "./merkle.ts";
import { decodeBase64, type VerifierKey } from "./signed-note.ts";

/** An order's entries with all that proves them to be in the log, to be kept as a file. */
export type ProofBundle = {
  readonly format: typeof FORMAT;
  readonly order_id: string;
  /** The signed checkpoint. */
  readonly checkpoint: string;
  readonly entries: readonly {
    readonly position: number;
    /** The body in base64. */
    readonly body: string;
    /** The path from the leaf to the root, from below, in base64. */
    readonly inclusion: readonly string[];
  }[];
};

/** What a bundle proves. */
export type ProvenOrder = {
  readonly orderId: string;
  readonly origin: string;
  readonly size: number;
  readonly entries: readonly { readonly position: number; readonly entry: LogEntry }[];
};

const FORMAT = "ordertrail-audit-proof/v1";

/** The text of a bundle. */
export function writeBundle(
  orderId: string,
  checkpoint: string,
  entries: readonly { readonly position: bigint; readonly body: Uint8Array; readonly hashes: readonly Uint8Array[] }[],
): string {
  const bundle: ProofBundle = {
    format: FORMAT,
    order_id: orderId,
    checkpoint,
    entries: entries.map(({ position, body, hashes }) => ({
      position: Number(position),
      body: Buffer.from(body).toString("base64"),
      inclusion: hashes.map((node) => Buffer.from(node).toString("base64")),
    })),
  };
  return `${JSON.stringify(bundle, undefined, 2)}\n`;
}

/**
 * What the text of a bundle proves, by the log's key and nothing else. Throws an Error that says what is wrong: no part of a
 * bundle is believed that the checkpoint does not prove.
 */
export function openBundle(text: string, keys: readonly VerifierKey[]): ProvenOrder {
  const bundle = parseBundle(text);
  const { origin, size, root } = openCheckpoint(bundle.checkpoint, keys);
  const entries = bundle.entries.map(({ position, body, inclusion }) => {
    const bytes = decodeBase64(body);
    if (!bytes) throw new Error(`the entry at position ${position} is not in base64`);
    const path = inclusion.map((node) => decodeBase64(node) ?? Buffer.alloc(0));
    if (path.some((node) => node.length !== HASH_BYTES) || !verifyInclusion(hashLeaf(bytes), position - 1, { size, root }, path))
      throw new Error(`the entry at position ${position} is not proved to be in the log`);
    return { position, entry: decodeBody(bytes) };
  });
  for (const [index, { position, entry }] of entries.entries()) {
    if (entry.stream !== orderStream(bundle.order_id))
      throw new Error(`the entry at position ${position} is not of order ${bundle.order_id}`);
    if (entry.version !== index + 1) throw new Error(`the order's entry ${index + 1} is missing before position ${position}`);
  }
  return { orderId: bundle.order_id, origin, size, entries };
}

function parseBundle(text: string): ProofBundle {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Told below, as anything else that is no bundle.
  }
  if (!isBundle(value)) throw new Error("this is not a bundle as `ordertrail audit prove` writes it");
  return value;
}

function isBundle(value: unknown): value is ProofBundle {
  if (typeof value !== "object" || value === null) return false;
  const { format, order_id, checkpoint, entries } = value as Partial<Record<keyof ProofBundle, unknown>>;
  return (
    format === FORMAT &&
    typeof order_id === "string" &&
    typeof checkpoint === "string" &&
    Array.isArray(entries) &&
    entries.length > 0 &&
    entries.every(
      (entry: unknown) =>
        typeof entry === "object" &&
        entry !== null &&
        "position" in entry &&
        Number.isSafeInteger(entry.position) &&
        "body" in entry &&
        typeof entry.body === "string" &&
        "inclusion" in entry &&
        Array.isArray(entry.inclusion) &&
        entry.inclusion.every((node: unknown) => typeof node === "string"),
    )
  );
}
