import { randomBytes, randomUUID } from "node:crypto";
import { readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { readOrCreateSecret, writeDurably } from "../secret-file.ts";
import { createSignerKey, parseVerifierKey, type SignerKey, type VerifierKey } from "./signed-note.ts";

/** The keys of a log, as its operator configures them. Nothing else says which keys are the log's: least of all the database. */
export type AuditKeys = {
  /** The secret halves of the keys that sign checkpoints: 32 bytes each, the newest first. All of them sign. */
  readonly seeds: readonly [Uint8Array, ...Uint8Array[]];
  /** The public halves of those that have signed and do no more, the newest first. */
  readonly retired: readonly VerifierKey[];
};

/** Where the keys that sign checkpoints are kept. */
export type AuditKeySource = {
  /** The keys as they are now, for a log of this name. The file of keys is read again each time. */
  signers(origin: string): Promise<SignerKey[]>;
  /** The public halves of all keys that have signed, the newest first: those of the signers, and those that are retired. */
  verifiers(origin: string): Promise<VerifierKey[]>;
  /**
   * Puts a new key before those there are. With `retire`, of those there were only the public halves stay, and they sign no
   * more. Throws an Error when the keys are not in a file.
   */
  rotate(origin: string, options: { readonly retire: boolean }): Promise<void>;
};

const SEED_BYTES = 32;
const RULE = `must hold keys of ${SEED_BYTES} bytes in base64 (44 characters), as made by: openssl rand -base64 ${SEED_BYTES}, and then the public halves of retired ones, if there are any, in note form (name+hash+key)`;

/**
 * Reads the keys of a log, with commas or white space between: those that sign, 32 bytes in base64 each, and the public
 * halves in note form of those that are retired; of both the newest first. Throws an Error whose message says what the text
 * must be ("must hold …") and shows nothing of it.
 */
export function parseAuditKeys(text: string): AuditKeys {
  const words = text.split(/[\s,]+/).filter((word) => word !== "");
  const [newest, ...older] = words.flatMap((word) => parseSeed(word) ?? []);
  if (!newest) throw new Error(RULE);
  return { seeds: [newest, ...older], retired: words.filter((word) => !parseSeed(word)).map(parseRetired) };
}

function parseSeed(word: string): Uint8Array | undefined {
  const bytes = Buffer.from(word, "base64");
  return bytes.length === SEED_BYTES && bytes.toString("base64") === word ? bytes : undefined;
}

function parseRetired(word: string): VerifierKey {
  try {
    return parseVerifierKey(word);
  } catch {
    throw new Error(RULE);
  }
}

/** Where the keys are by configuration: given themselves, in a file that is given, or in one of DATA_DIR that is made when it is first needed. */
export function createAuditKeySource(config: {
  readonly auditKeys: AuditKeys | undefined;
  readonly auditKeysFile: string | undefined;
  readonly dataDir: string;
}): AuditKeySource {
  const { auditKeys } = config;
  const path = config.auditKeysFile ?? join(config.dataDir, "keys", "audit.key");

  async function read(): Promise<AuditKeys> {
    if (auditKeys) return auditKeys;
    const text = config.auditKeysFile ? await readFile(path, "utf8") : await readOrCreateSecret(path, newSeed);
    try {
      return parseAuditKeys(text);
    } catch (cause) {
      throw new Error(`${path} does not hold the keys that sign checkpoints; put the right ones back`, { cause });
    }
  }

  return {
    async signers(origin) {
      return (await read()).seeds.map((seed) => createSignerKey(origin, seed));
    },
    async verifiers(origin) {
      const { seeds, retired } = await read();
      return [...seeds.map((seed) => createSignerKey(origin, seed).verifier), ...retired];
    },
    async rotate(origin, { retire }) {
      if (auditKeys) throw new Error("the keys are in AUDIT_KEYS: put a new one before them there, and start Ordertrail again");
      const { seeds, retired } = await read();
      const kept = seeds.map((seed) => (retire ? createSignerKey(origin, seed).verifier.text : Buffer.from(seed).toString("base64")));
      const lines = [...kept, ...retired.map(({ text }) => text)].map((line) => `${line}\n`);
      const draft = `${path}.${randomUUID()}`;
      try {
        await writeDurably(draft, newSeed() + lines.join(""));
        await rename(draft, path);
      } finally {
        await rm(draft, { force: true });
      }
    },
  };
}

function newSeed(): string {
  return `${randomBytes(SEED_BYTES).toString("base64")}\n`;
}
