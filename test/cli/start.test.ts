import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { glob, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { identifyProcess } from "../../src/embedded/process-identity.ts";
import { eventually } from "../support/eventually.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

type Status = { grpc: string; http: string; mongodb: string; nats: string; redis: string; pid: number; ready: boolean };

/** `ordertrail start` in a folder of its own, on free ports; all it leaves behind is ended and removed with it. */
async function anInstance() {
  const folder = await temporaryFolder();
  const dataDir = join(folder.path, "data");
  const env = { DATA_DIR: dataDir, GRPC_PORT: "0", HTTP_PORT: "0", SANDBOX_STEP_MS: "700" };
  const started: ChildProcess[] = [];

  async function run(args: readonly string[], more: Record<string, string> = {}) {
    return new Promise<{ code: number; out: string; err: string }>((resolve) => {
      execFile(process.execPath, [MAIN, ...args], { env: { ...env, ...more } }, (error, out, err) => {
        resolve({ code: error ? Number(error.code) : 0, out, err });
      });
    });
  }

  async function status(): Promise<Status> {
    const { code, out } = await run(["status", "--json"]);
    expect(code).toBe(0);
    return JSON.parse(out) as Status;
  }

  /** Starts it and returns when it says that it is ready. */
  async function start() {
    const child = spawn(process.execPath, [MAIN, "start"], { env, stdio: ["ignore", "pipe", "pipe"] });
    started.push(child);
    const said = { out: "", err: "" };
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      said.out += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      said.err += text;
    });
    await eventually(() => expect(said.out, said.err).toContain("the data stays in"), 30_000);
    return { child, said };
  }

  async function serverPids(): Promise<number[]> {
    const pids: number[] = [];
    for await (const path of glob("*/{mongod.lock,nats-server.pid,valkey-server.pid}", { cwd: dataDir }))
      pids.push(Number(await readFile(join(dataDir, path), "utf8")));
    return pids.filter((pid) => pid > 0 && identifyProcess(pid) !== undefined);
  }

  async function dispose() {
    for (const child of started) child.kill("SIGKILL");
    for (const pid of await serverPids()) process.kill(pid, "SIGKILL");
    await eventually(async () => expect(await serverPids()).toEqual([]));
    await folder[Symbol.asyncDispose]();
  }

  const files = () => readdir(folder.path);

  return { dataDir, run, start, status, serverPids, files, [Symbol.asyncDispose]: dispose };
}

describe("ordertrail start", () => {
  it("tells where it is and gives a token for each role; a second one harms nothing; SIGTERM ends it and its servers", async () => {
    await using instance = await anInstance();
    expect(await instance.run(["status"])).toMatchObject({ code: 3, out: "" });
    const { child, said } = await instance.start();

    const status = await instance.status();
    expect(status).toEqual({ ...status, pid: child.pid, ready: true });
    for (const address of [status.grpc, status.http, status.mongodb, status.nats, status.redis]) expect(said.out).toContain(address);
    for (const role of ["service", "customer", "store", "driver", "partner", "auditor", "operator"])
      expect(said.out).toMatch(new RegExp(`^  ${role} .* eyJ`, "m"));
    const [token] = /eyJ\S+/.exec(said.out) ?? [];
    const answer = await fetch(`${status.http}/orders/tracking/none`, { headers: { authorization: `Bearer ${token}` } });
    expect(answer.status).toBe(404);

    const second = await instance.run(["start"]);
    expect(second.code).toBe(1);
    expect(second.err).toContain(`process ${child.pid}, gRPC ${status.grpc}, HTTP ${status.http}`);
    expect((await instance.status()).ready).toBe(true);

    expect(await instance.serverPids()).toHaveLength(3);
    child.kill("SIGTERM");
    expect(await once(child, "exit")).toEqual([0, null]);
    expect(await instance.serverPids()).toEqual([]);
    expect(await instance.run(["status", "--json"])).toMatchObject({ code: 3, out: "" });
  });

  it("starts again after SIGKILL, with its data, and without the servers that were left running", async () => {
    await using instance = await anInstance();
    const killed = await instance.start();
    const before = await instance.status();
    const [token] = /eyJ\S+/.exec(killed.said.out) ?? [];
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    const body = { order_id: "kept", store_id: "s", customer_id: "c", items: [{ item_id: "i", name: "Apples", quantity: 1 }] };
    const made = await fetch(`${before.http}/orders/tracking/init`, { method: "POST", headers, body: JSON.stringify(body) });
    expect(await made.json()).toMatchObject({ order: { order_id: "kept" } });
    const leftOver = await instance.serverPids();
    killed.child.kill("SIGKILL");
    await once(killed.child, "exit");
    expect(await instance.run(["status"])).toMatchObject({ code: 3 });

    await instance.start();
    const after = await instance.status();
    expect(after.mongodb).toBe(before.mongodb);
    expect(leftOver.map(identifyProcess)).toEqual([undefined, undefined, undefined]);
    const answer = await fetch(`${after.http}/orders/tracking/kept`, { headers });
    expect(await answer.json()).toMatchObject({ order_id: "kept", current_status: "SUBMITTED" });
  });

  it("plays delivery providers, and the demonstration shows a driver on the way, but sends none with a real account", async () => {
    await using instance = await anInstance();
    const { said } = await instance.start();
    expect(said.out).toContain("Uber and DoorDash are played here");
    const { code, out, err } = await instance.run(["demo", "--courier", "uber", "--pause", "0", "--order", "shown"]);
    expect([code, err]).toEqual([0, ""]);
    expect(out).toMatch(/PICKING_IN_PROGRESS .*a courier of uber is requested\n/);
    expect(out.match(/the driver is at \d+\.\d+, \d+\.\d+/g)?.length).toBeGreaterThan(2);
    expect(out).toMatch(/DRIVER_ASSIGNED[\s\S]*DRIVER_PICKUP_COMPLETE[\s\S]*IN_TRANSIT[\s\S]*DELIVERED/);
    const account = { UBER_CUSTOMER_ID: "c", UBER_CLIENT_ID: "i", UBER_CLIENT_SECRET: "s", UBER_WEBHOOK_KEY: "k" };
    expect(await instance.run(["demo", "--courier", "uber"], account)).toMatchObject({
      code: 1,
      err: expect.stringContaining("sends no real couriers"),
    });
  });

  it("does without a Valkey where none can run, and says so once", async () => {
    await using instance = await anInstance();
    await mkdir(instance.dataDir);
    await writeFile(join(instance.dataDir, "valkey-server"), "in the way of its folder");
    const { said } = await instance.start();
    expect(said.out).toContain("Valkey         none: limits are kept in memory");
    expect(said.err.match(/there is no Valkey: limits are kept in memory/g)).toHaveLength(1);
    const status = await instance.status();
    expect([status.ready, status.redis]).toEqual([true, undefined]);
    expect(await instance.serverPids()).toHaveLength(2);
  });

  it("lives on when its servers die, and starts others", async () => {
    await using instance = await anInstance();
    const { said } = await instance.start();
    const { http } = await instance.status();
    const before = await instance.serverPids();
    for (const pid of before) process.kill(pid, "SIGKILL");
    await eventually(async () => {
      expect(await instance.serverPids()).toHaveLength(3);
      expect((await fetch(`${http}/readyz`)).status).toBe(200);
    }, 30_000);
    expect(await instance.serverPids()).not.toEqual(expect.arrayContaining(before));
    expect(said.err).toMatch(/"level":"warn".*"server":"mongod".*started again/);
    await instance.status();
  });

  it("names the variable to change when a port is taken, and leaves nothing behind", async () => {
    await using instance = await anInstance();
    const other = createServer().listen(0, "127.0.0.1");
    await once(other, "listening");
    const { port } = other.address() as { port: number };
    const { code, err } = await instance.run(["start"], { HTTP_PORT: String(port) });
    other.close();
    expect(code).toBe(1);
    expect(err).toBe(`error: port ${port} is taken by another program: set HTTP_PORT to a free one, or to 0 for any\n`);
    expect(await instance.serverPids()).toEqual([]);
  });

  it("in production makes nothing up: it says all that is missing, and leaves not a file behind", async () => {
    await using instance = await anInstance();
    const { code, out, err } = await instance.run(["start"], { NODE_ENV: "production", CORS_ORIGINS: "*" });
    expect([code, out]).toEqual([2, ""]);
    expect(
      err
        .split("\n  ")
        .slice(1)
        .map((line) => line.split(" must")[0]),
    ).toEqual([
      "MONGODB_URL",
      "NATS_URL",
      "MASTER_KEYS or MASTER_KEYS_FILE",
      "ERASURES_FILE",
      "AUDIT_ORIGIN",
      "AUDIT_KEYS or AUDIT_KEYS_FILE",
      "CORS_ORIGINS",
    ]);
    expect(await instance.files()).toEqual([]);
  });

  it("refuses what cannot be configured with exit code 2, before it starts anything", async () => {
    await using instance = await anInstance();
    const { code, err } = await instance.run(["start"], { GRPC_PORT: "x", HTTP_PORT: "-1" });
    expect(code).toBe(2);
    expect(err).toContain("GRPC_PORT");
    expect(err).toContain("HTTP_PORT");
  });
});

describe("ordertrail", () => {
  it.each([[["--help"]], [["start", "--help"]], [["status", "--help"]], [["token", "--help"]], [["demo", "--help"]]])(
    "explains itself: %j",
    async (args) => {
      await using instance = await anInstance();
      const { code, out } = await instance.run(args);
      expect(code).toBe(0);
      expect(out.split("Exit codes:")).toHaveLength(2);
    },
  );

  it.each([[["fly"]], [["status", "--xml"]], [[]]])("answers wrong usage with exit code 2: %j", async (args) => {
    await using instance = await anInstance();
    expect((await instance.run(args)).code).toBe(2);
  });
});
