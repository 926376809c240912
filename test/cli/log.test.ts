import { execFile, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { claimInstance } from "../../src/cli/instance.ts";
import { eventually } from "../support/eventually.ts";
import { anEntry, testLog } from "../support/log.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

/** A log with six entries of two orders, and the command, which takes this process for the instance that has it. */
async function commandWithLog() {
  await using parts = new AsyncDisposableStack();
  const folder = parts.use(await temporaryFolder());
  const log = parts.use(await testLog());
  const instance = await claimInstance(folder.path);
  await instance.publish({ grpc: "", http: "", mongodb: log.url, nats: "" });
  for (const version of [1, 2, 3]) {
    await log.appender.append(anEntry("order-a", version, { requestId: `request-${version}` }));
    await log.appender.append(anEntry("order-b", version, { kinds: ["pickingResumed", "orderDelivered"] }));
  }
  const env = { DATA_DIR: folder.path, DATABASE_NAME: log.db.databaseName };
  const run = (...args: string[]) =>
    new Promise<{ code: number; out: string; err: string }>((resolve) => {
      execFile(process.execPath, [MAIN, "log", ...args], { env }, (error, out, err) =>
        resolve({ code: error ? Number(error.code) : 0, out, err }),
      );
    });
  const running = parts.move();
  return { log, env, run, stopInstance: () => instance.release(), [Symbol.asyncDispose]: () => running.disposeAsync() };
}

const linesOf = (out: string) => out.trimEnd().split("\n");
const positionsIn = (out: string) => linesOf(out).map((line) => JSON.parse(line).position);

describe("log tail", () => {
  it("shows the newest entries as a table, oldest first", async () => {
    await using command = await commandWithLog();
    const { code, out } = await command.run("tail", "-n", "2");
    expect(code).toBe(0);
    const [head, first, second, ...more] = linesOf(out).map((line) => line.split(/ {2,}/));
    expect(head).toEqual(["position", "recorded at", "stream", "version", "events", "actor", "door"]);
    expect(first).toEqual(["5", expect.stringMatching(/^\d{4}-.*Z$/), "order-a", "3", "PickingStarted", "service test", "GRPC"]);
    expect(second?.slice(2, 5)).toEqual(["order-b", "3", "PickingResumed, OrderDelivered"]);
    expect(more).toEqual([]);
  });

  it("prints one JSON object a line for programs, named as in the proto", async () => {
    await using command = await commandWithLog();
    const { out } = await command.run("tail", "--json");
    expect(positionsIn(out)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(JSON.parse(linesOf(out)[0] ?? "")).toMatchObject({
      position: 1,
      stream: "order-a",
      version: 1,
      recorded_at: expect.any(String),
      request_id: "request-1",
      actor: { role: "ROLE_SERVICE", subject: "test" },
      events: [{ picking_started: {} }],
    });
  });

  it("goes on with what comes until it is interrupted", async () => {
    await using command = await commandWithLog();
    const child = spawn(process.execPath, [MAIN, "log", "tail", "-n", "1", "--follow", "--json"], { env: command.env });
    const ended = new Promise((resolve) => child.once("close", resolve));
    let out = "";
    child.stdout.on("data", (chunk) => {
      out += chunk;
    });
    await eventually(() => expect(positionsIn(out)).toEqual([6]));
    await command.log.appender.append(anEntry("order-a", 4));
    await eventually(() => expect(positionsIn(out)).toEqual([6, 7]));
    child.kill("SIGINT");
    expect(await ended).toBe(0);
  });

  it("ends quietly when its reader has seen enough", async () => {
    await using command = await commandWithLog();
    const child = spawn(process.execPath, [MAIN, "log", "tail", "--follow"], { env: command.env });
    const ended = new Promise((resolve) => child.once("close", resolve));
    let err = "";
    child.stderr.on("data", (chunk) => {
      err += chunk;
    });
    child.stdout.once("data", () => child.stdout.destroy());
    await eventually(() => expect(child.stdout.destroyed).toBe(true));
    await command.log.appender.append(anEntry("order-a", 4));
    expect(await ended).toBe(0);
    expect(err).toBe("");
  });
});

describe("log show", () => {
  it("shows every entry of an order", async () => {
    await using command = await commandWithLog();
    const { code, out } = await command.run("show", "b", "--json");
    expect(code).toBe(0);
    expect(positionsIn(out)).toEqual([2, 4, 6]);
    expect(linesOf((await command.run("show", "b")).out)).toHaveLength(4);
  });

  it("says that there is no such order with exit code 1", async () => {
    await using command = await commandWithLog();
    expect(await command.run("show", "c")).toEqual({ code: 1, out: "", err: "error: there is no order c\n" });
  });
});

describe("log", () => {
  it.each([["tail", "-n", "many"], ["tail", "-n", "-1"], ["tail", "more"], ["show"], ["show", "no such id"], ["seek"]])(
    "takes %s %s %s for wrong usage",
    async (...args) => {
      await using command = await commandWithLog();
      expect(await command.run(...args)).toMatchObject({ code: 2, out: "" });
    },
  );

  it("says how to name an order that looks like an option", async () => {
    await using command = await commandWithLog();
    expect(await command.run("show", "-c")).toMatchObject({ code: 2, err: expect.stringContaining("comes after --") });
    expect(await command.run("show", "--", "-c")).toEqual({ code: 1, out: "", err: "error: there is no order -c\n" });
  });

  it("says that no instance is running with exit code 3", async () => {
    await using command = await commandWithLog();
    await command.stopInstance();
    expect(await command.run("tail")).toMatchObject({ code: 3, out: "", err: expect.stringContaining("npm start") });
    expect(await command.run("show", "a")).toMatchObject({ code: 3, out: "" });
  });

  it("tells its verbs and exit codes", async () => {
    await using command = await commandWithLog();
    for (const args of [["--help"], ["tail", "--help"], ["show", "--help"]]) {
      const { code, out } = await command.run(...args);
      expect([code, out.split("Exit codes: ").length]).toEqual([0, 2]);
    }
  });
});
