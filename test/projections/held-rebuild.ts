import type { LogReader } from "../../src/log/reader.ts";

/** A reader with which a rebuild waits, once it has begun, until it is let go; following goes on. */
export function heldRebuild(reader: LogReader): { readonly reader: LogReader; readonly letGo: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  const left = (signal?: AbortSignal) => new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
  return {
    reader: {
      ...reader,
      async *readForward(range) {
        await Promise.race([promise, left(range.signal)]);
        yield* reader.readForward(range);
      },
    },
    letGo: resolve,
  };
}
