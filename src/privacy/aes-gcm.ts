import { createCipheriv, createDecipheriv, type KeyObject } from "node:crypto";

/** Encrypted bytes do not open: they were altered, or belong to another place or key. A fault: no caller's input causes it. */
export class SealBroken extends Error {
  override readonly name = "SealBroken";
}

/** How many bytes a nonce has. */
export const NONCE_BYTES = 12;

const CIPHER = "aes-256-gcm";
const TAG_BYTES = 16;

/** Encrypts with AES-256-GCM; `context` is not in the result, but opening it takes the same. The tag of 16 bytes comes last. */
export function encrypt(key: KeyObject, nonce: Uint8Array, plaintext: Uint8Array, context: string): Uint8Array {
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(Buffer.from(context));
  return Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

/** Opens what `encrypt` made with the same key, nonce and context; throws SealBroken if it is anything else. */
export function decrypt(key: KeyObject, nonce: Uint8Array, ciphertext: Uint8Array, context: string): Uint8Array {
  const end = ciphertext.length - TAG_BYTES;
  if (nonce.length !== NONCE_BYTES || end < 0) throw new SealBroken("sealed bytes have the wrong length");
  const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(Buffer.from(context));
  decipher.setAuthTag(ciphertext.subarray(end));
  try {
    return Buffer.concat([decipher.update(ciphertext.subarray(0, end)), decipher.final()]);
  } catch (cause) {
    throw new SealBroken("sealed bytes do not open: they were altered, or belong to another place or key", { cause });
  }
}
