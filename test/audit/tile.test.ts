import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { hashesAt, parseTilePath, partialTiles, type TileAddress, tilePath } from "../../src/audit/tile.ts";

describe("the path of a tile", () => {
  it.each<[TileAddress, string]>([
    [{ level: 0, index: 0, width: 256 }, "tile/0/000"],
    [{ level: 2, index: 1234067, width: 256 }, "tile/2/x001/x234/067"],
    [{ level: "entries", index: 273, width: 112 }, "tile/entries/273.p/112"],
    [{ level: 63, index: 1000, width: 1 }, "tile/63/x001/000.p/1"],
  ])("of %j is %s, and back", (address, path) => {
    expect(tilePath(address)).toBe(path);
    expect(parseTilePath(path)).toEqual(address);
  });

  it("is read back, whatever the tile", () => {
    const level = fc.oneof(fc.constant("entries" as const), fc.integer({ min: 0, max: 63 }));
    const address = fc.record({ level, index: fc.nat(1e12), width: fc.integer({ min: 1, max: 256 }) });
    fc.assert(
      fc.property(address, (given) => {
        expect(parseTilePath(tilePath(given))).toEqual(given);
      }),
    );
  });

  it.each([
    "tile/0/0",
    "tile/00/000",
    "tile/64/000",
    "tile/-1/000",
    "tile/0/x000/000",
    "tile/0/001/000",
    "tile/0/x001",
    "tile/0/1000",
    "tile/0/000.p/0",
    "tile/0/000.p/256",
    "tile/0/000.p/01",
    "tile/0/000.p/",
    "tile/0/000/",
    "tile/data/000",
    "tile/entries/000.p/-1",
    "tile/0/%30%30%30",
    "tile",
  ])("is not %s", (path) => {
    expect(parseTilePath(path)).toBeUndefined();
  });

  it("is nothing that is not read back to itself", () => {
    const parts = fc.constantFrom(
      "tile",
      "0",
      "1",
      "63",
      "64",
      "entries",
      "000",
      "x001",
      "x000",
      "999",
      "000.p",
      "255",
      "256",
      "7",
      "..",
      "",
    );
    fc.assert(
      fc.property(fc.array(parts, { maxLength: 6 }), (given) => {
        const path = given.join("/");
        const address = parseTilePath(path);
        if (address) expect(tilePath(address)).toBe(path);
      }),
    );
  });
});

describe("the tiles of a tree", () => {
  it("are those that the format's own example gives for 70,000 entries, and for 256", () => {
    expect(Math.floor(hashesAt(0, 70_000) / 256)).toBe(273);
    expect(Math.floor(hashesAt(1, 70_000) / 256)).toBe(1);
    expect(partialTiles(70_000)).toEqual([
      { level: 0, index: 273, width: 112 },
      { level: 1, index: 1, width: 17 },
      { level: 2, index: 0, width: 1 },
    ]);
    expect(partialTiles(256)).toEqual([{ level: 1, index: 0, width: 1 }]);
    expect(partialTiles(0)).toEqual([]);
  });
});
