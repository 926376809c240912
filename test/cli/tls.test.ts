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

// An instance whose ports want client certificates, under a name that is not this machine's.
beforeAll(async () => {
  const database = parts.use(await testDatabase());
  ({ path: folder } = parts.use(await temporaryFolder()));
  authority = await createAuthority();
  const caFile = join(folder, "ca.crt");
  await writeFile(caFile, authority.cert);
  const server = await writeIssued(
    folder,
    "server",
    await authority.issue({ name: "server", names: [{ type: "dns", value: "orders.example.com" }] }),
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
