import { createHash, createSecretKey, type KeyObject, randomBytes, randomUUID } from "node:crypto";
import { open, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { readOrCreateSecret } from "../secret-file.ts";
import { decrypt, encrypt, NONCE_BYTES } from "./aes-gcm.ts";

/** The keys that wrap every person's key. The newest wraps; each unwraps what it has wrapped. */
export type MasterKeys = { readonly newest: MasterKey; readonly byId: ReadonlyMap<string, MasterKey> };

/** `id` is the first 8 bytes of the key's SHA-256, in hexadecimal. */
export type MasterKey = { readonly id: string; readonly key: KeyObject };

/** A wrapped key: `wrapped` is the ciphertext followed by its tag of 16 bytes. */
export type WrappedKey = { readonly wrapped: Uint8Array; readonly nonce: Uint8Array; readonly masterKeyId: string };

const KEY_BYTES = 32;
/** How a message goes on after the name of whatever should hold the keys. */
const RULE = `must hold keys of ${KEY_BYTES} bytes in base64 (44 characters), as made by: openssl rand -base64 ${KEY_BYTES}`;

/**
 * Reads master keys: 32 bytes in base64 each, the newest first, with commas or white space between.
 * Throws an Error whose message says what the text must be ("must hold …") and shows nothing of it.
 */
export function parseMasterKeys(text: string): MasterKeys {
  const keys = text
    .split(/[\s,]+/)
    .filter((word) => word !== "")
    .map(parseMasterKey);
  const [newest] = keys;
  if (!newest) throw new Error(RULE);
  return { newest, byId: new Map(keys.map((key) => [key.id, key])) };
}

/** The file of a development instance's master keys. */
export function developmentMasterKeyFile(dataDir: string): string {
  return join(dataDir, "keys", "master.key");
}

/** Reads the master keys of a file. Throws an Error that names it and shows nothing of it. */
export async function readMasterKeys(path: string): Promise<MasterKeys> {
  const text = await readFile(path, "utf8");
  try {
    return parseMasterKeys(text);
  } catch (cause) {
    throw new Error(`${path} does not hold master keys`, { cause });
  }
}

/** Puts a new master key before those that a file holds. The others stay: what they have wrapped needs them. */
export async function addMasterKey(path: string): Promise<MasterKeys> {
  await readMasterKeys(path);
  const draft = `${path}.${randomUUID()}`;
  try {
    await using file = await open(draft, "wx", 0o600);
    await file.writeFile(`${randomBytes(KEY_BYTES).toString("base64")}\n${await readFile(path, "utf8")}`);
    await file.sync();
    await rename(draft, path);
  } finally {
    await rm(draft, { force: true });
  }
  return await readMasterKeys(path);
}

/** The master key of a development instance, in `<dataDir>/keys/master.key`; made on first use. */
export async function createDevelopmentMasterKeys(dataDir: string): Promise<MasterKeys> {
  const path = developmentMasterKeyFile(dataDir);
  const text = await readOrCreateSecret(path, () => `${randomBytes(KEY_BYTES).toString("base64")}\n`);
  try {
    return parseMasterKeys(text);
  } catch (cause) {
    throw new Error(`${path} does not hold a master key; put the right one back, for without it no personal data opens`, { cause });
  }
}

/** Wraps a person's key under the newest master key. It unwraps only with the same `binding`, which says whose key it is. */
export function wrapKey(masterKeys: MasterKeys, secret: Uint8Array, binding: string): WrappedKey {
  const { id, key } = masterKeys.newest;
  const nonce = randomBytes(NONCE_BYTES);
  return { wrapped: encrypt(key, nonce, secret, binding), nonce, masterKeyId: id };
}

/** Unwraps what `wrapKey` wrapped with the same binding. Throws SealBroken if it was altered, an Error if its master key is not given. */
export function unwrapKey(masterKeys: MasterKeys, { wrapped, nonce, masterKeyId }: WrappedKey, binding: string): Uint8Array {
  const master = masterKeys.byId.get(masterKeyId);
  if (!master) throw new Error(`a key is wrapped under master key ${masterKeyId}, which is not among those configured`);
  return decrypt(master.key, nonce, wrapped, binding);
}

function parseMasterKey(word: string): MasterKey {
  const bytes = Buffer.from(word, "base64");
  // Buffer.from skips what is not base64: only what encodes to the same text again was.
  if (bytes.length !== KEY_BYTES || bytes.toString("base64") !== word) throw new Error(RULE);
  return { id: createHash("sha256").update(bytes).digest("hex").slice(0, 16), key: createSecretKey(bytes) };
}
