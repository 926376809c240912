import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Authority, createAuthority, writeIssued } from "../support/certificates.ts";
import { eventually } from "../support/eventually.ts";
import { testDatabase } from "../support/mongo.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));
const HEALTH_CHECK = fileURLToPath(new URL("../../src/health-check.ts", import.meta.url));

const parts = new AsyncDisposableStack();
let environment: NodeJS.ProcessEnv;
let cli: NodeJS.ProcessEnv;
let authority: Authority;
let folder: string;
let said = "";

// An instance whose ports want client certificates, under names that are not its addresses.
beforeAll(async () => {
  const database = parts.use(await testDatabase());
  ({ path: folder } = parts.use(await temporaryFolder()));
  authority = await createAuthority();
  const caFile = join(folder, "ca.crt");
  await writeFile(caFile, authority.cert);
  const server = await writeIssued(
    folder,
    "server",
    await authority.issue({
      name: "server",
      names: [
        { type: "dns", value: "orders.example.com" },
        { type: "dns", value: "localhost" },
      ],
    }),
  );
  const client = await writeIssued(folder, "cli", await authority.issue({ name: "command-line" }));
  cli = { CLI_CA_FILE: caFile, CLI_CERT_FILE: client.certFile, CLI_KEY_FILE: client.keyFile };
  const tls = (door: string) => ({
    [`${door}_TLS_CERT_FILE`]: server.certFile,
    [`${door}_TLS_KEY_FILE`]: server.keyFile,
    [`${door}_TLS_CLIENT_CA_FILE`]: caFile,
  });
  environment = {
    ...{ DATA_DIR: join(folder, "data"), MONGODB_URL: database.url, DATABASE_NAME: database.name, NATS_URL: "nats://127.0.0.1:1" },
    ...{ GRPC_PORT: "0", HTTP_PORT: "0", ...tls("GRPC"), ...tls("HTTP") },
  };
  const child = spawn(process.execPath, [MAIN, "start"], { env: { ...environment, ...cli }, stdio: ["ignore", "pipe", "ignore"] });
  parts.defer(async () => {
    child.kill("SIGTERM");
    await once(child, "exit");
  });
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  await eventually(() => expect(said).toContain("the data stays in"), 30_000);
});
afterAll(() => parts.disposeAsync());

function ordertrail(args: readonly string[], more: NodeJS.ProcessEnv = cli): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], { env: { ...environment, ...more } }, (error, out, err) => {
      resolve({ code: error ? Number(error.code) : 0, out, err });
    });
  });
}

describe("the command line and an instance by TLS", () => {
  it("tells the addresses, and how to call them", async () => {
    const { code, out } = await ordertrail(["status", "--json"]);
    expect(code).toBe(0);
    const { grpc, http, ready } = JSON.parse(out);
    expect({ grpc, http, ready }).toEqual({
      grpc: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
      http: expect.stringMatching(/^https:\/\/127\.0\.0\.1:\d+$/),
      ready: true,
    });
    expect(said).toContain(`grpcurl -cacert ${cli["CLI_CA_FILE"]} -H`);
    expect(said).toContain(`curl -s --cacert ${cli["CLI_CA_FILE"]} -H`);
  });

  it.each([
    ["demo", "--pause", "0"],
    ["projections", "list"],
    ["projections", "verify", "order_tracking"],
    ["log", "tail"],
  ])("works: %s %s", async (...args) => {
    const { code, out, err } = await ordertrail(args);
    expect([code, err]).toEqual([0, ""]);
    expect(out).not.toBe("");
  });

  describe("audit", () => {
    const orderId = "proved";
    let key: string;
    let token: string;
    let url: string;
    const bundle = () => join(folder, "proved.bundle");
    beforeAll(async () => {
      expect(await ordertrail(["demo", "--pause", "0", "--order", orderId])).toMatchObject({ code: 0 });
      key = (await ordertrail(["audit", "key"])).out.trim();
      token = (await ordertrail(["token", "--role", "auditor", "--subject", "ann"])).out.trim();
      const { http } = JSON.parse((await ordertrail(["status", "--json"])).out);
      url = `https://localhost:${new URL(http).port}/audit`;
    });

    it.each<[string, () => readonly string[], RegExp]>([
      ["key --all", () => ["key", "--all"], /^log\.|\+/],
      ["checkpoint", () => ["checkpoint"], /\n— /],
      ["verify", () => ["verify"], /^verified: /],
      ["verify --in-database", () => ["verify", "--in-database"], /^verified: /],
      ["verify --url", () => ["verify", "--url", url, "--key", key, "--token", token], /^verified: /],
      ["prove", () => ["prove", orderId, "-o", bundle()], /entries of order proved/],
      ["check", () => ["check", bundle(), "--key", key], /^proved: /],
      ["replay", () => ["replay", orderId], /OrderSubmitted/],
      ["explain", () => ["explain", orderId], /InitTracking/],
      ["export", () => ["export"], /"specversion":"1.0"/],
    ])("works: %s", async (_verb, args, told) => {
      const { code, out, err } = await ordertrail(["audit", ...args()]);
      expect([code, err]).toEqual([0, expect.not.stringContaining("error")]);
      expect(out).toMatch(told);
    });

    it("says what is wrong with the certificate", async () => {
      for (const args of [["checkpoint"], ["verify", "--url", url, "--key", key], ["explain", orderId]]) {
        const { code, err } = await ordertrail(["audit", ...args], {});
        expect([code, err]).toEqual([1, expect.stringMatching(/certificate/)]);
      }
      const { err } = await ordertrail(["audit", "checkpoint"], { ...cli, CLI_CERT_FILE: "", CLI_KEY_FILE: "" });
      expect(err).toMatch(/^error: https:.* cannot be read: .*(certificate|reset|hang up)/i);
    });

    it("verifies what is published elsewhere without any other setting", async () => {
      const args = ["audit", "verify", "--url", url, "--key", key, "--token", token];
      expect(await ordertrail(args, { ...cli, NODE_ENV: "production" })).toMatchObject({ code: 0 });
    });

    it("says that nobody answers", async () => {
      const { code, err } = await ordertrail(["audit", "checkpoint", "--url", "http://localhost:1/audit", "--key", key]);
      expect([code, err]).toEqual([1, expect.stringMatching(/^error: http:\/\/localhost:1 cannot be read: .*ECONNREFUSED/)]);
    });
  });

  it("is healthy for its container, and not without the CA", async () => {
    const check = (more: NodeJS.ProcessEnv) =>
      new Promise<number>((resolve) => {
        execFile(process.execPath, [HEALTH_CHECK], { env: { ...environment, ...more } }, (error) =>
          resolve(error ? Number(error.code) : 0),
        );
      });
    expect(await check(cli)).toBe(0);
    expect(await check({})).toBe(1);
  });

  it("does not trust a CA that it has not been told of, and says so", async () => {
    expect(await ordertrail(["status"], {})).toMatchObject({ code: 1, out: expect.stringMatching(/^ready +no$/m) });
    const { code, err } = await ordertrail(["projections", "list"], {});
    expect(code).toBe(1);
    expect(err).toMatch(/certificate/);
  });

  it("trusts no other CA in place of the right one", async () => {
    const other = await createAuthority();
    await writeFile(join(folder, "other-ca.crt"), other.cert);
    expect(await ordertrail(["status"], { ...cli, CLI_CA_FILE: join(folder, "other-ca.crt") })).toMatchObject({ code: 1 });
  });

  it("gets nowhere without a certificate where one is required", async () => {
    expect(await ordertrail(["status"], { ...cli, CLI_CERT_FILE: "", CLI_KEY_FILE: "" })).toMatchObject({ code: 1 });
    expect(await ordertrail(["projections", "list"], { ...cli, CLI_CERT_FILE: "", CLI_KEY_FILE: "" })).toMatchObject({ code: 1 });
  });
});
