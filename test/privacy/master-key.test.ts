import { randomBytes } from "node:crypto";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { SealBroken } from "../../src/privacy/aes-gcm.ts";
import { createDevelopmentMasterKeys, parseMasterKeys, unwrapKey, wrapKey } from "../../src/privacy/master-key.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const makeText = () => randomBytes(32).toString("base64");

describe("master keys", () => {
  it("are named by the first 8 bytes of their SHA-256", () => {
    expect(parseMasterKeys(Buffer.alloc(32).toString("base64")).newest.id).toBe("66687aadf862bd77");
  });

  it("wrap under the newest, and unwrap under any", () => {
    const [older, newer] = [makeText(), makeText()];
    const secret = randomBytes(32);
    const before = wrapKey(parseMasterKeys(older), secret, "person");
    const rotated = parseMasterKeys(`${newer}\n${older}`);
    expect(Buffer.from(unwrapKey(rotated, before, "person"))).toEqual(secret);
    expect(wrapKey(rotated, secret, "person").masterKeyId).toBe(parseMasterKeys(newer).newest.id);
  });

  it("wrap the same key to other bytes each time", () => {
    const keys = parseMasterKeys(makeText());
    const secret = randomBytes(32);
    expect(wrapKey(keys, secret, "person").wrapped).not.toEqual(wrapKey(keys, secret, "person").wrapped);
  });

  it("do not unwrap what was altered or belongs to another person", () => {
    const keys = parseMasterKeys(makeText());
    const sealed = wrapKey(keys, randomBytes(32), "customer-1");
    const altered = Buffer.from(sealed.wrapped);
    altered[0] = (altered[0] ?? 0) ^ 1;
    expect(() => unwrapKey(keys, sealed, "customer-2")).toThrow(SealBroken);
    expect(() => unwrapKey(keys, { ...sealed, wrapped: altered }, "customer-1")).toThrow(SealBroken);
  });

  it("name the one that is missing", () => {
    const sealed = wrapKey(parseMasterKeys(makeText()), randomBytes(32), "customer-1");
    expect(() => unwrapKey(parseMasterKeys(makeText()), sealed, "customer-1")).toThrow(sealed.masterKeyId);
  });

  it.each([
    ["nothing", " \n"],
    ["too short", randomBytes(31).toString("base64")],
    ["too long", randomBytes(33).toString("base64")],
    ["hexadecimal", randomBytes(32).toString("hex")],
    ["base64 with other characters in it", `${makeText().slice(0, 20)}!${makeText().slice(21)}`],
    ["good only at first", `${makeText()},${makeText().slice(0, -2)}`],
  ])("refuse text that is %s, without showing it", (_, text) => {
    let message = "";
    try {
      parseMasterKeys(text);
    } catch (error) {
      message = String(error);
    }
    expect(message).toContain("openssl rand -base64 32");
    for (const word of text.split(/[\s,]+/).filter(Boolean)) expect(message).not.toContain(word);
  });

  describe("of a development instance", () => {
    it("are made once, for their owner only, and are the same ever after", async () => {
      await using dir = await temporaryFolder();
      const all = await Promise.all(Array.from({ length: 8 }, () => createDevelopmentMasterKeys(dir.path)));
      const again = await createDevelopmentMasterKeys(dir.path);
      expect(new Set([...all, again].map((keys) => keys.newest.id)).size).toBe(1);
      const path = join(dir.path, "keys", "master.key");
      expect((await stat(path)).mode & 0o777).toBe(0o600);
      expect((await stat(join(dir.path, "keys"))).mode & 0o777).toBe(0o700);
      expect(await readdir(join(dir.path, "keys"))).toEqual(["master.key"]);
    });

    it("are not replaced when their file is damaged", async () => {
      await using dir = await temporaryFolder();
      await createDevelopmentMasterKeys(dir.path);
      const path = join(dir.path, "keys", "master.key");
      await writeFile(path, "");
      await expect(createDevelopmentMasterKeys(dir.path)).rejects.toThrow(path);
      expect(await readFile(path, "utf8")).toBe("");
    });
  });
});
