import { Command, type CommanderError } from "commander";
import { afterEach, beforeEach, describe, expect, inject, it, vi } from "vitest";
import { createClients } from "../../src/access/clients.ts";
import { registerClients } from "../../src/cli/clients.ts";
import { registerTokenKeys } from "../../src/cli/token-keys.ts";
import { openAuth } from "../access/auth-database.ts";
import { type TestDatabase, testDatabase } from "../support/mongo.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

let stack: AsyncDisposableStack;
let database: TestDatabase;
beforeEach(async () => {
  stack = new AsyncDisposableStack();
  database = stack.use(await testDatabase());
  const folder = stack.use(await temporaryFolder());
  vi.stubEnv("MONGODB_URL", inject("mongodbUrl"));
  vi.stubEnv("DATABASE_NAME", database.name);
  vi.stubEnv("DATA_DIR", folder.path);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await stack.disposeAsync();
});

/** Runs `ordertrail` with these arguments. */
async function run(...args: string[]): Promise<{ out: string; err: string; exitCode: number }> {
  let out = "";
  let err = "";
  const program = new Command().exitOverride().configureOutput({ writeOut: (text) => (out += text), writeErr: (text) => (err += text) });
  registerClients(program);
  registerTokenKeys(program);
  const exitCode = await program.parseAsync(args, { from: "user" }).then(
    () => 0,
    (error: CommanderError) => error.exitCode,
  );
  return { out, err, exitCode };
}

describe("ordertrail clients", () => {
  it("makes a client whose secret it shows once, lists it, and disables it with all its tokens", async () => {
    const made = await run("clients", "create", "picking", "--role", "partner", "--subject", "uber", "--json");
    expect([made.exitCode, made.err]).toEqual([0, ""]);
    const { client_id: clientId, client_secret: secret } = JSON.parse(made.out);
    const clients = createClients(database.db, () => new Date());
    await expect(clients.authenticate(clientId, secret, "here")).resolves.toMatchObject({ role: "partner", subject: "uber" });
    const listed = await run("clients", "list");
    expect(listed.out).toMatch(/^client +role +subject/);
    expect(listed.out).toContain("picking");
    expect(listed.out).not.toContain(secret.slice(4));
    await using auth = await openAuth(database.db);
    const { sessionId } = await auth.sessions.begin("picking", 60);
    expect((await run("clients", "disable", "picking")).out).toBe("disabled picking and revoked the tokens of 1 sessions\n");
    await expect(clients.authenticate(clientId, secret, "here")).rejects.toMatchObject({ reason: "UNAUTHENTICATED" });
    expect(await auth.revocations.find([`session:${sessionId}`])).toBe(true);
    const [line = ""] = (await run("clients", "list", "--json")).out.split("\n");
    expect(JSON.parse(line)).toMatchObject({ client_id: "picking", disabled_at: expect.stringMatching(/^20/) });
  });

  it("names the secret to people, too", async () => {
    expect((await run("clients", "create", "store-7", "--role", "store", "--store", "store-7")).out).toMatch(
      /client_secret +otc_[\w-]{43}\n/,
    );
  });

  it.each([
    ["a second one of a name", ["create", "one", "--role", "service"], 2, "already"],
    ["a role that logs in elsewhere", ["create", "two", "--role", "customer"], 1, "service, partner, store"],
    ["a store without --store", ["create", "two", "--role", "store"], 2, "store_id"],
    ["an unknown provider", ["create", "two", "--role", "partner"], 2, "uber, doordash, in_house"],
    ["a name that is none", ["create", "a b", "--role", "service"], 1, "letters, digits"],
    ["to disable nobody", ["disable", "nobody"], 1, "no client nobody"],
  ])("refuses %s", async (_, args, exitCode, message) => {
    await run("clients", "create", "one", "--role", "service");
    const refused = await run("clients", ...args);
    expect([refused.out, refused.exitCode]).toEqual(["", exitCode]);
    expect(refused.err).toContain(message);
  });
});

describe("ordertrail token-keys", () => {
  it("lists, rotates and revokes", async () => {
    const keysOf = async () =>
      (await run("token-keys", "list", "--json")).out
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as { kid: string; phase: string });
    const [first] = await keysOf();
    expect(first?.phase).toBe("signing");
    expect((await run("token-keys", "rotate")).out).toMatch(/ is published, and signs from 20/);
    expect((await keysOf()).map(({ phase }) => phase)).toEqual(["next", "signing"]);
    expect((await run("token-keys", "revoke", first?.kid ?? "")).out).toContain("signs now");
    expect((await keysOf()).map(({ phase }) => phase)).toEqual(["signing", "withdrawn"]);
    await using auth = await openAuth(database.db);
    expect(auth.revocations.isRevoked([`key:${first?.kid}`])).toBe(true);
    expect(await run("token-keys", "revoke", "none")).toMatchObject({ exitCode: 1, err: expect.stringContaining("no key none") });
  });
});
