import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { Command, type CommanderError } from "commander";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { fileKeys } from "../../src/access/key-source.ts";
import { developmentKeyFile } from "../../src/access/keys.ts";
import { createTokenVerifier } from "../../src/access/tokens.ts";
import { registerToken } from "../../src/cli/token.ts";
import { DeliveryProvider, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { trusting } from "../access/issuer.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
beforeEach(async () => {
  folder = await temporaryFolder();
  vi.stubEnv("NODE_ENV", "development");
  vi.stubEnv("DATA_DIR", join(folder.path, "data"));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await folder[Symbol.asyncDispose]();
});

/** Runs `ordertrail token` with these arguments. */
async function token(...args: string[]): Promise<{ out: string; err: string; exitCode: number }> {
  let out = "";
  let err = "";
  const program = new Command().exitOverride().configureOutput({ writeOut: (text) => (out += text), writeErr: (text) => (err += text) });
  registerToken(program);
  const exitCode = await program.parseAsync(["token", ...args], { from: "user" }).then(
    () => 0,
    (error: CommanderError) => error.exitCode,
  );
  return { out, err, exitCode };
}

const verify = (text: string, at: Date) =>
  createTokenVerifier({
    ...trusting(fileKeys(developmentKeyFile(join(folder.path, "data"))), "ordertrail", "ordertrail"),
    clockSkewSeconds: 0,
    clock: () => at,
    cacheSize: 1,
  }).verify(text);

const inSeconds = (seconds: number) => new Date(Date.now() + seconds * 1000);

describe("ordertrail token", () => {
  it.each([
    [["--role", "customer", "--subject", "customer-1"], { role: Role.CUSTOMER, subject: "customer-1" }],
    [["--role", "store", "--subject", "clerk-1", "--store", "store-1"], { role: Role.STORE, subject: "clerk-1", storeId: "store-1" }],
    [["--role", "partner", "--subject", "uber"], { role: Role.PARTNER, subject: "uber", provider: DeliveryProvider.UBER }],
    [["--role", "operator", "--subject", "operator-1"], { role: Role.OPERATOR, subject: "operator-1" }],
  ])("prints a token that the server accepts, and nothing else, for %j", async (args, caller) => {
    const { out, err, exitCode } = await token(...args);
    expect(exitCode).toBe(0);
    expect(err).toBe("");
    expect(out).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+\n$/);
    expect(await verify(out.trim(), new Date())).toEqual(caller);
  });

  it("is valid for 12 hours, or as long as it was asked for", async () => {
    const usual = (await token("--role", "auditor", "--subject", "a")).out.trim();
    await expect(verify(usual, inSeconds(12 * 3600 - 60))).resolves.toBeDefined();
    await expect(verify(usual, inSeconds(12 * 3600 + 60))).rejects.toThrow("expired");
    const short = (await token("--role", "auditor", "--subject", "a", "--expires-in", "15m")).out.trim();
    await expect(verify(short, inSeconds(14 * 60))).resolves.toBeDefined();
    await expect(verify(short, inSeconds(16 * 60))).rejects.toThrow("expired");
  });

  it.each([
    ["an unknown role", ["--role", "admin", "--subject", "x"], "one of service, customer, store, driver, partner, auditor, operator"],
    ["Ordertrail's own role", ["--role", "system", "--subject", "x"], "one of service"],
    ["a store without --store", ["--role", "store", "--subject", "x"], "needs --store"],
    ["--store for another role", ["--role", "customer", "--subject", "x", "--store", "s"], "--store goes with role store"],
    ["a store_id that is none", ["--role", "store", "--subject", "x", "--store", "a b"], "store_id"],
    ["a subject that is none", ["--role", "customer", "--subject", "a@b.c"], "sub"],
    ["an unknown provider", ["--role", "partner", "--subject", "acme"], "uber, doordash, in_house"],
    ["a time without unit", ["--role", "auditor", "--subject", "a", "--expires-in", "12"], "--expires-in"],
    ["no time at all", ["--role", "auditor", "--subject", "a", "--expires-in", "0s"], "--expires-in"],
    ["a time too long", ["--role", "auditor", "--subject", "a", "--expires-in", "366d"], "--expires-in"],
  ])("refuses %s with exit code 2, and prints no token", async (_, args, message) => {
    const { out, err, exitCode } = await token(...args);
    expect({ out, exitCode }).toEqual({ out: "", exitCode: 2 });
    expect(err).toContain(message);
  });

  it("is refused in production", async () => {
    const production = {
      NODE_ENV: "production",
      MONGODB_URL: "mongodb://db/?replicaSet=a",
      NATS_URL: "nats://bus",
      AUDIT_ORIGIN: "orders.test/audit",
      AUDIT_KEYS: randomBytes(32).toString("base64"),
      ERASURES_FILE: "/kept/erasures",
      MASTER_KEYS: randomBytes(32).toString("base64"),
    };
    for (const [name, value] of Object.entries(production)) vi.stubEnv(name, value);
    const { out, err, exitCode } = await token("--role", "operator", "--subject", "x");
    expect({ out, exitCode }).toEqual({ out: "", exitCode: 1 });
    expect(err).toContain("AuthService/IssueToken");
  });
});
