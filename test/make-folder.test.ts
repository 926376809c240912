import { mkdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { makeFolder } from "../src/make-folder.ts";
import { temporaryFolder } from "./support/temporary-folder.ts";

describe("makeFolder()", () => {
  it("makes a folder with all above it, once, for its owner only", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "a", "b");
    await Promise.all([makeFolder(path), makeFolder(path), makeFolder(join(folder.path, "a"))]);
    await makeFolder(path);
    for (const made of [path, join(folder.path, "a")]) expect((await stat(made)).mode & 0o777).toBe(0o700);
  });

  it("leaves a folder that is there as it is", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "open");
    await mkdir(path, { mode: 0o755 });
    await makeFolder(path);
    expect((await stat(path)).mode & 0o777).toBe(0o755);
  });

  it("says so where none can be: in place of a file, and in a file system that takes none", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "file");
    await writeFile(path, "");
    await expect(makeFolder(path)).rejects.toMatchObject({ code: "EEXIST" });
    await expect(makeFolder(join(path, "below"))).rejects.toMatchObject({ code: "ENOTDIR" });
    await expect(makeFolder("/proc/none/below")).rejects.toMatchObject({ code: "ENOENT" });
  });
});
