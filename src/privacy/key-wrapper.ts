import { type MasterKeys, unwrapKey, type WrappedKey, wrapKey } from "./master-key.ts";

/**
 * Wraps and unwraps personal keys under master keys: what a key management service offers, and no more, so that one can
 * take the place of keys in the environment or in a file. Every call may go over a network, and may fail.
 */
export type KeyWrapper = {
  /** The identifier of the master key that wraps from now on; looks for a newer one first. */
  newest(): Promise<string>;
  /** Wraps 32 secret bytes under the newest master key. They unwrap only with the same `binding`, which says whose key it is. */
  wrap(secret: Uint8Array, binding: string): Promise<WrappedKey>;
  /** Unwraps what `wrap` made with the same binding. Throws SealBroken if it was altered, an Error if its master key cannot be had. */
  unwrap(wrapped: WrappedKey, binding: string): Promise<Uint8Array>;
};

/** How long master keys are taken to be those that were read last. */
const READ_AGAIN_MS = 60_000;

/**
 * Wraps under the master keys that `read` answers, here in the process. They are read again every minute, and at once when
 * a key is wrapped under one that is not known: so a newer one may be put first while all goes on. What cannot be read
 * then, such as a file that is being replaced, leaves those that are known in use.
 */
export async function createKeyWrapper(read: () => MasterKeys | Promise<MasterKeys>, clock: () => Date): Promise<KeyWrapper> {
  let known = await read();
  let readAt = clock().getTime();

  async function readAgain(): Promise<void> {
    readAt = clock().getTime();
    known = await read();
  }

  async function readSometimes(): Promise<void> {
    if (clock().getTime() - readAt >= READ_AGAIN_MS) await readAgain().catch(() => undefined);
  }

  return {
    async newest() {
      await readAgain();
      return known.newest.id;
    },
    async wrap(secret, binding) {
      await readSometimes();
      return wrapKey(known, secret, binding);
    },
    async unwrap(wrapped, binding) {
      if (!known.byId.has(wrapped.masterKeyId)) await readAgain().catch(() => undefined);
      return unwrapKey(known, wrapped, binding);
    },
  };
}
