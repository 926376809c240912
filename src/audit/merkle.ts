import { hash } from "node:crypto";

/** The hashes of RFC 6962 section 2.1, by SHA-256: 32 bytes each. */
export const HASH_BYTES = 32;

/** The root of a tree without leaves. */
export const EMPTY_ROOT: Uint8Array = hash("sha256", "", "buffer");

const LEAF_PREFIX = 0;
const NODE_PREFIX = 1;
const SCRATCH_BYTES = 64 * 1024;

// Hashing is synchronous, so one scratch is enough for all.
const leafInput = new Uint8Array(SCRATCH_BYTES);
leafInput[0] = LEAF_PREFIX;
const nodeInput = new Uint8Array(1 + 2 * HASH_BYTES);
nodeInput[0] = NODE_PREFIX;

/** The hash of a leaf whose data is given. */
export function hashLeaf(data: Uint8Array): Uint8Array {
  if (data.length >= SCRATCH_BYTES) return hash("sha256", Buffer.concat([Uint8Array.of(LEAF_PREFIX), data]), "buffer");
  leafInput.set(data, 1);
  return hash("sha256", leafInput.subarray(0, 1 + data.length), "buffer");
}

/** The hash of the node over two others. */
export function hashNode(left: Uint8Array, right: Uint8Array): Uint8Array {
  nodeInput.set(left, 1);
  nodeInput.set(right, 1 + HASH_BYTES);
  return hash("sha256", nodeInput, "buffer");
}

/** The root over perfect subtrees, given from the left to the right, each smaller than the one before it. */
export function rootOf(subtrees: readonly Uint8Array[]): Uint8Array {
  return subtrees.length === 0 ? EMPTY_ROOT : subtrees.reduceRight((right, left) => hashNode(left, right));
}

/** Whether two hashes are the same. */
export function sameHash(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0;
}

/** Whether a path shows a leaf to be at an index of the tree of a size and root (RFC 6962 section 2.1.1). */
export function verifyInclusion(
  leaf: Uint8Array,
  index: number,
  { size, root }: { readonly size: number; readonly root: Uint8Array },
  path: readonly Uint8Array[],
): boolean {
  if (!isIndex(index, size)) return false;
  let node = leaf;
  let position = index;
  let last = size - 1;
  for (const sibling of path) {
    if (last === 0) return false;
    if (position % 2 === 1 || position === last) {
      node = hashNode(sibling, node);
      while (position % 2 === 0 && position !== 0) [position, last] = [half(position), half(last)];
    } else {
      node = hashNode(node, sibling);
    }
    [position, last] = [half(position), half(last)];
  }
  return last === 0 && sameHash(node, root);
}

/** Whether a proof shows the newer tree to begin with all that is in the older one (RFC 6962 section 2.1.2). */
export function verifyConsistency(
  older: { readonly size: number; readonly root: Uint8Array },
  newer: { readonly size: number; readonly root: Uint8Array },
  proof: readonly Uint8Array[],
): boolean {
  if (older.size > newer.size) return false;
  if (older.size === newer.size) return proof.length === 0 && sameHash(older.root, newer.root);
  if (older.size === 0) return proof.length === 0 && sameHash(older.root, EMPTY_ROOT);
  let position = older.size - 1;
  let last = newer.size - 1;
  while (position % 2 === 1) [position, last] = [half(position), half(last)];
  // A tree that is a perfect subtree of the newer one is where the proof begins, and is not repeated in it.
  const [first, ...rest] = position === 0 ? [older.root, ...proof] : proof;
  if (!first) return false;
  let oldNode = first;
  let newNode = first;
  for (const sibling of rest) {
    if (last === 0) return false;
    if (position % 2 === 1 || position === last) {
      oldNode = hashNode(sibling, oldNode);
      newNode = hashNode(sibling, newNode);
      while (position % 2 === 0 && position !== 0) [position, last] = [half(position), half(last)];
    } else {
      newNode = hashNode(newNode, sibling);
    }
    [position, last] = [half(position), half(last)];
  }
  return last === 0 && sameHash(oldNode, older.root) && sameHash(newNode, newer.root);
}

/** Not by shifting: a log may have more than 2^31 entries. */
function half(value: number): number {
  return Math.floor(value / 2);
}

function isIndex(index: number, size: number): boolean {
  return Number.isSafeInteger(index) && index >= 0 && index < size;
}
