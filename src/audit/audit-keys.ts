import { randomBytes, randomUUID } from "node:crypto";
import { readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { readOrCreateSecret, writeDurably } from "../secret-file.ts";
import { createSignerKey, type SignerKey } from "./signed-note.ts";

/** The secret halves of the keys that sign checkpoints: 32 bytes each, the newest first. All of them sign. */
export type AuditSeeds = readonly [Uint8Array, ...Uint8Array[]];

/** Where the keys that sign checkpoints are kept. */
export type AuditKeySource = {
  /** The keys as they are now, for a log of this name. The file of keys is read again each time. */
  signers(origin: string): Promise<SignerKey[]>;
  /**
   * Puts a new key before those there are. With `retire`, those there were are gone, and sign no more. Throws an Error
   * when the keys are not in a file.
   */
  rotate(options: { readonly retire: boolean }): Promise<void>;
};

const SEED_BYTES = 32;
const RULE = `must hold keys of ${SEED_BYTES} bytes in base64 (44 characters), as made by: openssl rand -base64 ${SEED_BYTES}`;

/**
 * Reads the keys that sign checkpoints: 32 bytes in base64 each, the newest first, with commas or white space between.
 * Throws an Error whose message says what the text must be ("must hold …") and shows nothing of it.
 */
export function parseAuditSeeds(text: string): AuditSeeds {
  const [newest, ...older] = text
    .split(/[\s,]+/)
    .filter((word) => word !== "")
    .map((word) => {
      const bytes = Buffer.from(word, "base64");
      if (bytes.length !== SEED_BYTES || bytes.toString("base64") !== word) throw new Error(RULE);
      return bytes;
    });
  if (!newest) throw new Error(RULE);
  return [newest, ...older];
}

/** Where the keys are by configuration: given themselves, in a file that is given, or in one of DATA_DIR that is made when it is first needed. */
export function createAuditKeySource(config: {
  readonly auditKeys: AuditSeeds | undefined;
  readonly auditKeysFile: string | undefined;
  readonly dataDir: string;
}): AuditKeySource {
  const { auditKeys } = config;
  const path = config.auditKeysFile ?? join(config.dataDir, "keys", "audit.key");

  async function read(): Promise<AuditSeeds> {
    if (auditKeys) return auditKeys;
    const text = config.auditKeysFile ? await readFile(path, "utf8") : await readOrCreateSecret(path, newSeed);
    try {
      return parseAuditSeeds(text);
    } catch (cause) {
      throw new Error(`${path} does not hold the keys that sign checkpoints; put the right ones back`, { cause });
    }
  }

  return {
    async signers(origin) {
      return (await read()).map((seed) => createSignerKey(origin, seed));
    },
    async rotate({ retire }) {
      if (auditKeys) throw new Error("the keys are in AUDIT_KEYS: put a new one before them there, and start Ordertrail again");
      const kept = retire ? [] : (await read()).map((seed) => `${Buffer.from(seed).toString("base64")}\n`);
      const draft = `${path}.${randomUUID()}`;
      try {
        await writeDurably(draft, newSeed() + kept.join(""));
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
