import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { SealBroken } from "../../src/privacy/aes-gcm.ts";
import { deriveDataKey, open, seal } from "../../src/privacy/sealing.ts";

const key = deriveDataKey(randomBytes(32));
const ada = Buffer.from("Ada Lovelace, 12 St James's Square");

describe("sealing", () => {
  it("opens what it sealed, whatever it was", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2000 }), fc.string(), (plaintext, context) => {
        expect(Buffer.from(open(key, seal(key, plaintext, context), context))).toEqual(Buffer.from(plaintext));
      }),
    );
  });

  it("has the sizes that the format names, and shows nothing of the data", () => {
    const { nonce, ciphertext } = seal(key, ada, "order-1/recipient");
    expect(nonce).toHaveLength(12);
    expect(ciphertext).toHaveLength(ada.length + 16);
    expect(Buffer.from(ciphertext).includes("Ada")).toBe(false);
  });

  it("seals equal data in the same place to equal bytes", () => {
    expect(seal(key, ada, "order-1/recipient")).toEqual(seal(key, ada, "order-1/recipient"));
  });

  it.each([
    ["another place", seal(key, ada, "order-2/recipient")],
    ["other data", seal(key, Buffer.from("Ada"), "order-1/recipient")],
    ["another key", seal(deriveDataKey(randomBytes(32)), ada, "order-1/recipient")],
  ])("uses another nonce for %s", (_, other) => {
    expect(other.nonce).not.toEqual(seal(key, ada, "order-1/recipient").nonce);
  });

  it("does not take the end of a place for the beginning of the data", () => {
    expect(seal(key, Buffer.from("bc"), "a").nonce).not.toEqual(seal(key, Buffer.from("c"), "ab").nonce);
  });

  it("refuses to open under another key or for another place", () => {
    const sealed = seal(key, ada, "order-1/recipient");
    expect(() => open(deriveDataKey(randomBytes(32)), sealed, "order-1/recipient")).toThrow(SealBroken);
    expect(() => open(key, sealed, "order-2/recipient")).toThrow(SealBroken);
    expect(() => open(key, sealed, "order-1/note")).toThrow(SealBroken);
  });

  it("refuses to open when any bit was changed, or bytes are missing", () => {
    const { nonce, ciphertext } = seal(key, ada, "order-1/recipient");
    fc.assert(
      fc.property(fc.nat(nonce.length + ciphertext.length - 1), fc.integer({ min: 1, max: 255 }), (index, mask) => {
        const bytes = Buffer.concat([nonce, ciphertext]);
        bytes[index] = (bytes[index] ?? 0) ^ mask;
        const altered = { nonce: bytes.subarray(0, nonce.length), ciphertext: bytes.subarray(nonce.length) };
        expect(() => open(key, altered, "order-1/recipient")).toThrow(SealBroken);
      }),
    );
    for (let length = 0; length < ciphertext.length; length++) {
      expect(() => open(key, { nonce, ciphertext: ciphertext.subarray(0, length) }, "order-1/recipient")).toThrow(SealBroken);
    }
    for (let length = 0; length < nonce.length; length++) {
      expect(() => open(key, { nonce: nonce.subarray(0, length), ciphertext }, "order-1/recipient")).toThrow(SealBroken);
    }
  });

  it("is what another program makes by the description of the format", () => {
    // Made in Python with hmac, hashlib and cryptography's AESGCM, from docs/access.md.
    const foreign = {
      nonce: Buffer.from("32d7d19a96fe8bf64922d2ca", "hex"),
      ciphertext: Buffer.from("4de4640caacefd8dff41d682f043d7543028cb93bdfdc9355cc7", "hex"),
    };
    const fixed = deriveDataKey(Buffer.alloc(32, 7));
    expect(Buffer.from(open(fixed, foreign, "order-7/note")).toString()).toBe("ring twice");
    expect(seal(fixed, Buffer.from("ring twice"), "order-7/note")).toEqual(foreign);
  });
});
