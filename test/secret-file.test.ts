import { readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readOrCreateSecret } from "../src/secret-file.ts";
import { temporaryFolder } from "./support/temporary-folder.ts";

describe("a secret file", () => {
  it("is made once, with its folder, for its owner only", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "keys", "secret");
    expect(await readOrCreateSecret(path, () => "first")).toBe("first");
    expect(await readOrCreateSecret(path, () => "second")).toBe("first");
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await stat(join(folder.path, "keys"))).mode & 0o777).toBe(0o700);
  });

  it("is not replaced by one who began before it was there and ends after", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "secret");
    const slow = await readOrCreateSecret(path, async () => {
      expect(await readOrCreateSecret(path, () => "quick")).toBe("quick");
      return "slow";
    });
    expect(slow).toBe("quick");
    expect(await readdir(folder.path)).toEqual(["secret"]);
  });

  it("leaves nothing behind when it cannot be made", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "secret");
    await expect(readOrCreateSecret(path, () => Promise.reject(new Error("no entropy")))).rejects.toThrow("no entropy");
    expect(await readdir(folder.path)).toEqual([]);
  });

  it("is an error when it is there but cannot be read", async () => {
    await using folder = await temporaryFolder();
    await writeFile(join(folder.path, "file"), "");
    await expect(readOrCreateSecret(join(folder.path, "file", "secret"), () => "x")).rejects.toThrow("ENOTDIR");
  });
});
