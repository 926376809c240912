import { readFile, stat, writeFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { fileKeys } from "../../src/access/key-source.ts";
import { createDevelopmentKeys, developmentKeyFile, makeKeyPair } from "../../src/access/keys.ts";
import { createTokenVerifier } from "../../src/access/tokens.ts";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { AUDIENCE, ISSUER, trusting } from "./issuer.ts";

const claims = { iss: ISSUER, aud: AUDIENCE, sub: "operator-1", role: "operator" };

describe("development keys", () => {
  it("sign tokens that the server in the same folder accepts, until they expire", async () => {
    await using dir = await temporaryFolder();
    const token = await (await createDevelopmentKeys(dir.path)).sign(claims, { expiresInSeconds: 60 });
    let now = Date.now();
    const { verify } = createTokenVerifier({
      ...trusting(fileKeys(developmentKeyFile(dir.path))),
      clockSkewSeconds: 0,
      clock: () => new Date(now),
      cacheSize: 1,
    });
    expect(await verify(token)).toEqual({ role: Role.OPERATOR, subject: "operator-1" });
    now += 61_000;
    await expect(verify(token)).rejects.toThrow("expired");
  });

  it("are made once, for their owner only, whoever comes at the same time", async () => {
    await using dir = await temporaryFolder();
    const all = await Promise.all(Array.from({ length: 8 }, () => createDevelopmentKeys(dir.path)));
    all.push(await createDevelopmentKeys(dir.path));
    expect(new Set(all.map(({ jwks }) => jwks.keys[0]?.kid)).size).toBe(1);
    expect((await stat(developmentKeyFile(dir.path))).mode & 0o777).toBe(0o600);
  });

  it("have names that no command takes for an option", async () => {
    const pairs = await Promise.all(Array.from({ length: 400 }, makeKeyPair));
    expect(pairs.filter(({ kid }) => kid?.startsWith("-"))).toEqual([]);
  });

  it("publish no private part", async () => {
    await using dir = await temporaryFolder();
    const { jwks } = await createDevelopmentKeys(dir.path);
    expect(Object.keys(jwks.keys[0] ?? {}).sort()).toEqual(["alg", "crv", "kid", "kty", "use", "x", "y"]);
  });

  it("sign with the first key of their file", async () => {
    await using one = await temporaryFolder();
    await using two = await temporaryFolder();
    await createDevelopmentKeys(one.path);
    const newest = await createDevelopmentKeys(two.path);
    const read = async (dir: string) => JSON.parse(await readFile(developmentKeyFile(dir), "utf8")).keys;
    await writeFile(developmentKeyFile(one.path), JSON.stringify({ keys: [...(await read(two.path)), ...(await read(one.path))] }));
    const rotated = await createDevelopmentKeys(one.path);
    expect(rotated.jwks.keys).toHaveLength(2);
    const [header = ""] = (await rotated.sign(claims, { expiresInSeconds: 60 })).split(".");
    expect(JSON.parse(Buffer.from(header, "base64url").toString())).toMatchObject({ alg: "ES256", kid: newest.jwks.keys[0]?.kid });
  });

  it.each(["", "not json", "{}", '{"keys":[]}', '{"keys":[{"kty":"EC"}]}'])("say what to do when their file holds %j", async (text) => {
    await using dir = await temporaryFolder();
    await createDevelopmentKeys(dir.path);
    await writeFile(developmentKeyFile(dir.path), text);
    await expect(createDevelopmentKeys(dir.path)).rejects.toThrow(/jwt\.json does not .* delete it/);
  });
});
