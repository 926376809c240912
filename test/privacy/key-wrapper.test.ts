import { randomBytes } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { createKeyWrapper } from "../../src/privacy/key-wrapper.ts";
import {
  addMasterKey,
  createDevelopmentMasterKeys,
  developmentMasterKeyFile,
  parseMasterKeys,
  readMasterKeys,
} from "../../src/privacy/master-key.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const makeText = () => randomBytes(32).toString("base64");

describe("wrapping under master keys that may change while running", () => {
  it("takes a newer key within a minute, and at once when asked for the newest", async () => {
    let text = makeText();
    let now = 0;
    const clock = () => new Date(now);
    const wrapper = await createKeyWrapper(() => parseMasterKeys(text), clock);
    const older = parseMasterKeys(text).newest.id;
    text = `${makeText()},${text}`;
    const newer = parseMasterKeys(text).newest.id;
    expect((await wrapper.wrap(randomBytes(32), "p")).masterKeyId).toBe(older);
    now += 60_000;
    expect((await wrapper.wrap(randomBytes(32), "p")).masterKeyId).toBe(newer);
    text = makeText();
    expect(await wrapper.newest()).toBe(parseMasterKeys(text).newest.id);
  });

  it("reads the keys again for one that it does not know", async () => {
    let text = makeText();
    const clock = () => new Date(0);
    const wrapper = await createKeyWrapper(() => parseMasterKeys(text), clock);
    text = `${makeText()},${text}`;
    const secret = randomBytes(32);
    const wrapped = await (await createKeyWrapper(() => parseMasterKeys(text), clock)).wrap(secret, "p");
    expect(Buffer.from(await wrapper.unwrap(wrapped, "p"))).toEqual(secret);
    const foreign = await (await createKeyWrapper(() => parseMasterKeys(makeText()), clock)).wrap(secret, "p");
    await expect(wrapper.unwrap(foreign, "p")).rejects.toThrow(foreign.masterKeyId);
  });

  it("goes on with the keys that it has while they cannot be read", async () => {
    const text = makeText();
    let there = true;
    let now = 0;
    const read = () => {
      if (!there) throw new Error("the file is being replaced");
      return parseMasterKeys(text);
    };
    const wrapper = await createKeyWrapper(read, () => new Date(now));
    there = false;
    now += 60_000;
    expect((await wrapper.wrap(randomBytes(32), "p")).masterKeyId).toBe(parseMasterKeys(text).newest.id);
    await expect(wrapper.newest()).rejects.toThrow("being replaced");
  });
});

describe("a new master key in a file", () => {
  it("stands before the others, which stay, and is for the owner only", async () => {
    await using folder = await temporaryFolder();
    const before = await createDevelopmentMasterKeys(folder.path);
    const path = developmentMasterKeyFile(folder.path);
    const { newest } = await addMasterKey(path);
    const after = await readMasterKeys(path);
    expect([...after.byId.keys()]).toEqual([newest.id, before.newest.id]);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await readFile(path, "utf8")).trim().split("\n")).toHaveLength(2);
  });
});
