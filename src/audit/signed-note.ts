import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from "node:crypto";

/** What a key signs: 1 is Ed25519 over the text, 4 a witness's cosignature with its time. */
export type SignatureType = 1 | 4;

/** A public key that verifies signatures of notes. */
export type VerifierKey = {
  readonly name: string;
  /** The first four bytes of a hash over name, type and key, as a number: it finds the key, and is no proof of it. */
  readonly id: number;
  readonly type: SignatureType;
  readonly key: KeyObject;
  /** In note form: name+id+key. */
  readonly text: string;
};

/** A key that signs notes. */
export type SignerKey = { readonly verifier: VerifierKey; readonly key: KeyObject };

/** A signature line of a note. */
export type NoteSignature = { readonly name: string; readonly id: number; readonly signature: Uint8Array; readonly line: string };

/** A note: its text, with the newline at its end, and its signatures, none of which has been verified. */
export type Note = { readonly text: string; readonly signatures: readonly NoteSignature[] };

const KEY_BYTES = 32;
const SIGNATURE_BYTES = 64;
const ID_BYTES = 4;
const TIME_BYTES = 8;
const MAX_NOTE_CHARS = 64 * 1024;
const DER_PUBLIC = Buffer.from("302a300506032b6570032100", "hex");
const DER_PRIVATE = Buffer.from("302e020100300506032b657004220420", "hex");
const NAME = /^[^\s+]+$/u;

/** A signer of notes by an Ed25519 key, given by its 32 secret bytes. */
export function createSignerKey(name: string, seed: Uint8Array): SignerKey {
  const key = createPrivateKey({ key: Buffer.concat([DER_PRIVATE, seed]), format: "der", type: "pkcs8" });
  const spki = createPublicKey(key).export({ format: "der", type: "spki" });
  return { verifier: createVerifierKey(name, 1, spki.subarray(DER_PUBLIC.length)), key };
}

/** A verifier of signatures by an Ed25519 key of 32 bytes. */
export function createVerifierKey(name: string, type: SignatureType, bytes: Uint8Array): VerifierKey {
  const typed = Buffer.concat([Uint8Array.of(type), bytes]);
  const id = createHash("sha256").update(`${name}\n`).update(typed).digest().readUInt32BE(0);
  const key = createPublicKey({ key: Buffer.concat([DER_PUBLIC, bytes]), format: "der", type: "spki" });
  return { name, id, type, key, text: `${name}+${id.toString(16).padStart(8, "0")}+${typed.toString("base64")}` };
}

/** Reads a verifier key in note form. Throws an Error that says what it must be. */
export function parseVerifierKey(text: string): VerifierKey {
  const [, name = "", id = "", encoded = ""] = /^([^+]*)\+([0-9a-f]{8})\+(.*)$/u.exec(text.trim()) ?? [];
  const bytes = decodeBase64(encoded);
  const [type] = bytes ?? [];
  if (!NAME.test(name) || bytes?.length !== 1 + KEY_BYTES || (type !== 1 && type !== 4))
    throw new Error("must be an Ed25519 verifier key in note form: name+hash+key");
  const key = createVerifierKey(name, type, bytes.subarray(1));
  if (key.id !== Number.parseInt(id, 16)) throw new Error("must be a verifier key whose hash is that of its name and key");
  return key;
}

/** A text, which must end with a newline, as a note signed by keys. */
export function signNote(text: string, signers: readonly SignerKey[]): string {
  const lines = signers.map(({ verifier, key }) => signatureLine(verifier, sign(null, Buffer.from(text), key)));
  return `${text}\n${lines.join("")}`;
}

/** A signature line of a note. */
export function signatureLine({ name, id }: Pick<VerifierKey, "name" | "id">, signature: Uint8Array): string {
  const idBytes = Buffer.alloc(ID_BYTES);
  idBytes.writeUInt32BE(id);
  return `— ${name} ${Buffer.concat([idBytes, signature]).toString("base64")}\n`;
}

/** Reads a note. Throws an Error when it is none. */
export function parseNote(note: string): Note {
  const end = note.lastIndexOf("\n\n");
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a note must not have any but newlines.
  if (note.length > MAX_NOTE_CHARS || end < 0 || /[\u0000-\u0009\u000b-\u001f]/.test(note)) throw new Error("this is not a signed note");
  return { text: note.slice(0, end + 1), signatures: parseSignatures(note.slice(end + 2)) };
}

/** Reads signature lines. Throws an Error when there are none, or something else. */
export function parseSignatures(lines: string): NoteSignature[] {
  const signatures = lines.split(/(?<=\n)/).map((line) => {
    const [, name = "", encoded = ""] = /^— (\S+) (\S+)\n$/u.exec(line) ?? [];
    const bytes = decodeBase64(encoded);
    if (!NAME.test(name) || !bytes || bytes.length <= ID_BYTES) throw new Error("this is not a signature line of a note");
    return { name, id: bytes.readUInt32BE(0), signature: bytes.subarray(ID_BYTES), line };
  });
  return signatures;
}

/**
 * The keys of those given by which a note is signed. Signatures of other keys are passed over; throws an Error when one of
 * these keys' does not verify.
 */
export function verifiedBy({ text, signatures }: Note, keys: readonly VerifierKey[]): VerifierKey[] {
  return keys.filter((key) => {
    const mine = signatures.filter(({ name, id }) => name === key.name && id === key.id);
    for (const { signature } of mine)
      if (!isValid(key, text, signature)) throw new Error(`the signature of ${key.name} does not match the text`);
    return mine.length > 0;
  });
}

function isValid({ type, key }: VerifierKey, text: string, signature: Uint8Array): boolean {
  if (type === 1) return signature.length === SIGNATURE_BYTES && verify(null, Buffer.from(text), key, signature);
  if (signature.length !== TIME_BYTES + SIGNATURE_BYTES) return false;
  const time = Buffer.from(signature).readBigUInt64BE(0);
  return verify(null, Buffer.from(`cosignature/v1\ntime ${time}\n${text}`), key, signature.subarray(TIME_BYTES));
}

/** The bytes that a text stands for in base64 with padding; undefined when it is not that to the letter, or empty. */
export function decodeBase64(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, "base64");
  return text !== "" && bytes.toString("base64") === text ? bytes : undefined;
}
