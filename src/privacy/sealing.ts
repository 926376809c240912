import { createHmac, createSecretKey, hkdfSync, type KeyObject } from "node:crypto";
import { decrypt, encrypt, NONCE_BYTES } from "./aes-gcm.ts";

/** The key that seals one person's data, ready for use. */
export type DataKey = { readonly encryption: KeyObject; readonly nonces: KeyObject };

/** Sealed bytes: a nonce of 12 bytes, and the ciphertext followed by its tag of 16 bytes. */
export type SealedBytes = { readonly nonce: Uint8Array; readonly ciphertext: Uint8Array };

/** The data key that the 32 bytes `secret` stand for: HKDF-SHA256 makes of them one key that encrypts and one for nonces. */
export function deriveDataKey(secret: Uint8Array): DataKey {
  const derive = (purpose: string) => createSecretKey(Buffer.from(hkdfSync("sha256", secret, "", `ordertrail/${purpose}`, 32)));
  return { encryption: derive("encryption"), nonces: derive("nonces") };
}

/**
 * Seals `plaintext` for the place that `context` names; it opens only with the same context.
 * Equal data in the same place seals to equal bytes, so that a command sent twice can be recognised as the same.
 */
export function seal(key: DataKey, plaintext: Uint8Array, context: string): SealedBytes {
  const nonce = nonceFor(key, plaintext, context);
  return { nonce, ciphertext: encrypt(key.encryption, nonce, plaintext, context) };
}

/** Opens what `seal` made with the same key and context; throws SealBroken if it is anything else. */
export function open(key: DataKey, sealed: SealedBytes, context: string): Uint8Array {
  return decrypt(key.encryption, sealed.nonce, sealed.ciphertext, context);
}

/** GCM fails badly when one nonce meets two messages; a nonce made from all that is sealed meets only one. */
function nonceFor(key: DataKey, plaintext: Uint8Array, context: string): Uint8Array {
  const place = Buffer.from(context);
  // Without its length, the end of a context could pass for the beginning of a plaintext, and two messages share a nonce.
  const placeLength = Buffer.alloc(4);
  placeLength.writeUInt32BE(place.length);
  return createHmac("sha256", key.nonces).update(placeLength).update(place).update(plaintext).digest().subarray(0, NONCE_BYTES);
}
