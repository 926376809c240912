import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createFrontier } from "../../src/audit/frontier.ts";
import { EMPTY_ROOT, hashLeaf, hashNode, verifyConsistency, verifyInclusion } from "../../src/audit/merkle.ts";
import { consistencyProof, inclusionProof, resolveNodes, TileMissing } from "../../src/audit/tree-proofs.ts";
import { grownTree } from "./grown-tree.ts";

/** The leaves of RFC 6962's reference tree of eight, and its roots by size, as published with Certificate Transparency. */
const LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const ROOTS = [
  "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
  "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
  "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
  "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
  "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
  "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
  "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
  "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];
const leaves = LEAVES.map((leaf) => hashLeaf(Buffer.from(leaf, "hex")));
const hex = (hash: Uint8Array | undefined) => Buffer.from(hash ?? []).toString("hex");

describe("the reference tree of RFC 6962", () => {
  it("has the known roots at every size", () => {
    expect(hex(EMPTY_ROOT)).toBe("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    const frontier = createFrontier();
    expect(hex(frontier.root())).toBe(hex(EMPTY_ROOT));
    for (const [index, leaf] of leaves.entries()) {
      frontier.append(leaf);
      expect(hex(frontier.root())).toBe(ROOTS[index]);
    }
  });

  it("has the known inclusion proofs", async () => {
    const tree = grownTree(leaves);
    const proof = async (index: number, size: number) => (await resolveNodes(inclusionProof(index, size), tree.read)).map(hex);
    expect(await proof(0, 1)).toEqual([]);
    expect(await proof(0, 8)).toEqual([
      "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
      "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
      "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]);
    expect(await proof(5, 8)).toEqual([
      "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
      "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
      "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]);
    expect(await proof(2, 3)).toEqual(["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]);
  });

  it("has the known consistency proofs", async () => {
    const tree = grownTree(leaves);
    const proof = async (from: number, to: number) => (await resolveNodes(consistencyProof(from, to), tree.read)).map(hex);
    expect(await proof(1, 1)).toEqual([]);
    expect(await proof(1, 8)).toEqual([
      "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
      "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
      "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]);
    expect(await proof(6, 8)).toEqual([
      "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
      "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
      "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]);
    expect(await proof(2, 5)).toEqual([
      "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
      "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ]);
  });
});

describe("any tree", () => {
  it("has the root that the definition gives", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1500 }), (size) => {
        const given = numbered(size);
        expect(hex(grownTree(given).head(size).root)).toBe(hex(defined(given)));
      }),
      { numRuns: 30 },
    );
  });

  it("grows in any steps, with proofs of consistency between all of its sizes", async () => {
    const steps = fc.array(fc.integer({ min: 0, max: 700 }), { minLength: 1, maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(steps, async (growths) => {
        const sizes = [0];
        for (const growth of growths) sizes.push((sizes.at(-1) ?? 0) + growth);
        const tree = grownTree(numbered(sizes.at(-1) ?? 0), growths);
        for (const older of sizes) {
          for (const newer of sizes.filter((size) => size >= older)) {
            const proof = await resolveNodes(consistencyProof(older, newer), tree.read);
            expect(verifyConsistency(tree.head(older), tree.head(newer), proof)).toBe(true);
            if (older === 0 || older === newer) continue;
            expect(verifyConsistency({ size: older, root: hashLeaf(Buffer.from("other")) }, tree.head(newer), proof)).toBe(false);
            expect(verifyConsistency(tree.head(older), tree.head(newer), proof.slice(1))).toBe(false);
            expect(verifyConsistency(tree.head(older), tree.head(newer), [...proof, EMPTY_ROOT])).toBe(false);
          }
        }
      }),
      { numRuns: 40 },
    );
  });

  it("proves each leaf to be where it is, and nowhere else", async () => {
    const places = fc.integer({ min: 1, max: 70_000 }).chain((size) => fc.tuple(fc.constant(size), fc.nat(size - 1), fc.nat(size - 1)));
    const all = numbered(70_000);
    const tree = grownTree(all);
    await fc.assert(
      fc.asyncProperty(places, async ([size, index, other]) => {
        const head = tree.head(size);
        const path = await resolveNodes(inclusionProof(index, size), tree.read);
        const leaf = all[index] as Uint8Array;
        expect(verifyInclusion(leaf, index, head, path)).toBe(true);
        expect(verifyInclusion(hashLeaf(Buffer.from("other")), index, head, path)).toBe(false);
        expect(verifyInclusion(leaf, size + index, head, path)).toBe(false);
        expect(verifyInclusion(leaf, index, head, [...path, EMPTY_ROOT])).toBe(false);
        if (index !== other) expect(verifyInclusion(leaf, other, head, path)).toBe(false);
      }),
      { numRuns: 200 },
    );
  });

  it("goes on from its tiles as if it had never stopped", () => {
    const most = numbered(70_600);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 70_000 }), fc.integer({ min: 0, max: 600 }), (before, more) => {
        const all = most.slice(0, before + more);
        const tree = grownTree(all);
        const resumed = createFrontier(before, tree.tiles());
        for (const leaf of all.slice(before)) resumed.append(leaf);
        expect(hex(resumed.root())).toBe(hex(tree.head(before + more).root));
        expect(hex(resumed.lastLeaf)).toBe(resumed.lastLeaf ? hex(all.at(-1)) : "");
      }),
      // A tile of the third level comes with 65,536 entries.
      { numRuns: 6, examples: [[65_536, 300]] },
    );
  });

  it("says which tile is missing", async () => {
    const tree = grownTree(numbered(600));
    const without = async () => new Map([...(await tree.read([{ level: 0, index: 2 }]))].filter(() => false));
    await expect(resolveNodes(inclusionProof(3, 600), without)).rejects.toThrow(TileMissing);
    expect(() => createFrontier(600, [])).toThrow("tile 0/2 is not there");
  });
});

function numbered(count: number): Uint8Array[] {
  return Array.from({ length: count }, (_, index) => hashLeaf(Buffer.from(String(index))));
}

/** MTH as RFC 6962 section 2.1 defines it. */
function defined(given: readonly Uint8Array[]): Uint8Array {
  if (given.length === 1) return given[0] as Uint8Array;
  const split = 2 ** Math.floor(Math.log2(given.length - 1));
  return hashNode(defined(given.slice(0, split)), defined(given.slice(split)));
}
