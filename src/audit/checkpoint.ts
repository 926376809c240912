import { HASH_BYTES } from "./merkle.ts";
import { decodeBase64, type Note, parseNote, type VerifierKey, verifiedBy } from "./signed-note.ts";

/** How large a log is, and the root of its tree. */
export type TreeHead = { readonly size: number; readonly root: Uint8Array };

/** What a log says of itself by a checkpoint. */
export type Checkpoint = TreeHead & { readonly origin: string };

/** The text of a checkpoint, which is then signed. */
export function checkpointText({ origin, size, root }: Checkpoint): string {
  return `${origin}\n${size}\n${Buffer.from(root).toString("base64")}\n`;
}

/** Reads the text of a checkpoint. Throws an Error when it is none. */
export function parseCheckpointText(text: string): Checkpoint {
  const [origin = "", size = "", root = ""] = text.split("\n");
  const bytes = decodeBase64(root);
  const isCheckpoint = origin !== "" && /^(0|[1-9]\d{0,15})$/.test(size) && Number.isSafeInteger(Number(size));
  if (!isCheckpoint || bytes?.length !== HASH_BYTES) throw new Error("this is not a checkpoint of a log");
  return { origin, size: Number(size), root: bytes };
}

/** Reads a signed checkpoint, and holds it against the log's key or keys. Throws an Error when none of them has signed it. */
export function openCheckpoint(signed: string, keys: readonly VerifierKey[]): Checkpoint & { readonly note: Note } {
  const note = parseNote(signed);
  const checkpoint = parseCheckpointText(note.text);
  const own = keys.filter(({ name }) => name === checkpoint.origin);
  if (own.length === 0)
    throw new Error(`the checkpoint is of ${checkpoint.origin}, and the key of ${keys.map(({ name }) => name).join(", ")}`);
  if (verifiedBy(note, own).length === 0) throw new Error("the checkpoint is not signed with the key that is given");
  return { ...checkpoint, note };
}
