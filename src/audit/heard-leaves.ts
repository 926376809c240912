import type { AppendListener } from "../log/appender.ts";
import { hashLeaf } from "./merkle.ts";

/** The leaves that this process has itself appended to the log, so that they need not be read again. */
export type HeardLeaves = Disposable & {
  /** Takes the leaves that come right after a tree of this size; none when something else must be read before them. */
  takeAfter(size: number): readonly Uint8Array[];
};

/** As many are held at most; what goes beyond is read from the database. */
const MAX_LEAVES = 100_000;

/** Listens from now on, and hashes what it hears at once: so the work is spread as the appends are. */
export function hearLeaves(onAppended: ((listener: AppendListener) => () => void) | undefined): HeardLeaves {
  let leaves: Uint8Array[] = [];
  /** The position of the first of them. */
  let from = 1;

  const unsubscribe = onAppended?.((entries) => {
    const [first] = entries;
    if (!first) return;
    // Another process has appended in between, or nobody has taken them for long: whoever grows the tree must read.
    if (leaves.length === 0 || first.position !== from + leaves.length || leaves.length > MAX_LEAVES) {
      leaves = [];
      from = first.position;
    }
    for (const { body } of entries) leaves.push(hashLeaf(body));
  });

  return {
    takeAfter(size) {
      if (from > size + 1) return [];
      const taken = leaves.slice(size + 1 - from);
      leaves = [];
      return taken;
    },
    [Symbol.dispose]() {
      unsubscribe?.();
    },
  };
}
