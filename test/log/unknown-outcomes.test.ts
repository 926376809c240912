import { MongoClient } from "mongodb";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { AppenderOptions } from "../../src/log/appender.ts";
import { ensureLogIndexes } from "../../src/log/indexes.ts";
import { eventually } from "../support/eventually.ts";
import { anEntry, wholeLog } from "../support/log.ts";
import { type ReplicaSet, startReplicaSet } from "../support/mongo.ts";
import { type LogAccess, openLog } from "../support/open-log.ts";

const OUT_OF_DISK_SPACE = 14031;
const WRITE_CONCERN_FAILED = { code: 64, errmsg: "waiting for replication timed out", errInfo: { wtimeout: true } };

let server: ReplicaSet;
let database = 0;
let log: LogAccess;

beforeAll(async () => {
  server = await startReplicaSet({ members: 1, electionTimeoutMillis: 1000 });
});
afterAll(() => server[Symbol.asyncDispose]());

/** A log on a server whose commands fail as told; the client hears nothing for half a second and takes it for dead. */
async function openFragileLog(options: Partial<AppenderOptions> = {}): Promise<LogAccess> {
  const client = new MongoClient(server.url, { appName: "writer", socketTimeoutMS: 500, monitorCommands: true });
  const opened = openLog(server.url, `log_${++database}`, options, client);
  await ensureLogIndexes(opened.db);
  return opened;
}

beforeEach(async () => {
  log = await openFragileLog();
});
afterEach(async () => {
  await failCommands("off", {});
  await log[Symbol.asyncDispose]();
});

async function failCommands(mode: "off" | "alwaysOn" | { readonly times: number }, data: Record<string, unknown>): Promise<void> {
  const [member] = server.members;
  if (member) await server.command(member, { configureFailPoint: "failCommand", mode, data: { ...data, appName: "writer" } });
}

function countCommands({ client }: LogAccess, name: string): () => number {
  let count = 0;
  client.on("commandStarted", ({ commandName }) => {
    if (commandName === name) count++;
  });
  return () => count;
}

const three = (log: LogAccess, signal?: AbortSignal) => [1, 2, 3].map((order) => log.appender.append(anEntry(`order-${order}`, 1), signal));

describe("a batch whose outcome is unknown", () => {
  it("is sent again when it was not recorded", async () => {
    await failCommands({ times: 2 }, { failCommands: ["insert"], closeConnection: true });
    expect(await Promise.all(three(log))).toEqual([1, 2, 3]);
    expect(await wholeLog(log.db)).toEqual(["order-1:1", "order-2:1", "order-3:1"]);
  });

  it("is acknowledged where it stands when it was recorded", async () => {
    const inserts = countCommands(log, "insert");
    await failCommands({ times: 1 }, { failCommands: ["insert"], writeConcernError: WRITE_CONCERN_FAILED });
    expect(await Promise.all(three(log))).toEqual([1, 2, 3]);
    expect(inserts()).toBe(1);
    expect(await wholeLog(log.db)).toEqual(["order-1:1", "order-2:1", "order-3:1"]);
  });

  it("is settled entry by entry when only its beginning was recorded", async () => {
    await log.appender.append(anEntry("order-2", 1));
    await failCommands({ times: 1 }, { failCommands: ["insert"], writeConcernError: WRITE_CONCERN_FAILED });
    const outcomes = await Promise.allSettled(three(log));
    expect(outcomes.map((outcome) => (outcome.status === "fulfilled" ? outcome.value : outcome.reason.name))).toEqual([
      2,
      "StreamConflict",
      3,
    ]);
    expect(await wholeLog(log.db)).toEqual(["order-2:1", "order-1:1", "order-3:1"]);
  });

  it("is not believed recorded before the write that proves it is durable", async () => {
    const barriers = countCommands(log, "update");
    await failCommands({ times: 3 }, { failCommands: ["insert", "update"], writeConcernError: WRITE_CONCERN_FAILED });
    expect(await Promise.all(three(log))).toEqual([1, 2, 3]);
    expect(barriers()).toBe(3);
    expect(await wholeLog(log.db)).toEqual(["order-1:1", "order-2:1", "order-3:1"]);
  });

  it("leaves no late copy of itself behind when its callers have given up", async () => {
    await log.appender.append(anEntry("order-0", 1));
    await failCommands({ times: 2 }, { failCommands: ["insert"], blockConnection: true, blockTimeMS: 2500 });
    const callers = new AbortController();
    const given = Promise.allSettled(three(log, callers.signal));
    const inserts = countCommands(log, "insert");
    await eventually(() => expect(inserts()).toBe(2));
    callers.abort(new Error("the callers have gone"));
    expect((await given).map((outcome) => outcome.status)).toEqual(["rejected", "rejected", "rejected"]);
    expect(await wholeLog(log.db)).toEqual(["order-0:1"]);
    await eventually(async () => expect(await insertsUnderWay()).toBe(0));
    expect(await wholeLog(log.db)).toEqual(["order-0:1"]);
    expect(await log.appender.append(anEntry("order-4", 1))).toBe(2);
  });

  it("is recorded once when its late copy comes after it was sent again", async () => {
    await failCommands({ times: 2 }, { failCommands: ["insert"], blockConnection: true, blockTimeMS: 1500 });
    expect(await Promise.all(three(log))).toEqual([1, 2, 3]);
    await eventually(async () => expect(await insertsUnderWay()).toBe(0));
    expect(await wholeLog(log.db)).toEqual(["order-1:1", "order-2:1", "order-3:1"]);
  });
});

describe("a database that does not take entries", () => {
  it("lets callers wait so long and no longer, and is not besieged", async () => {
    await using impatient = await openFragileLog({ patienceMs: 500 });
    await failCommands("alwaysOn", { failCommands: ["insert"], errorCode: OUT_OF_DISK_SPACE });
    const inserts = countCommands(impatient, "insert");
    const outcomes = await Promise.allSettled(three(impatient));
    for (const outcome of outcomes) expect(outcome).toMatchObject({ status: "rejected", reason: { name: "Unavailable" } });
    expect(inserts()).toBeLessThan(30);
    await failCommands("off", {});
    expect(await impatient.appender.append(anEntry("order-4", 1))).toBe(1);
  });

  it("answers callers also while it says nothing at all", async () => {
    await using impatient = await openFragileLog({ patienceMs: 500 });
    const [member] = server.members;
    if (!member) throw new Error("there is no member");
    await impatient.appender.append(anEntry("order-0", 1));
    await server.pause(member);
    const started = performance.now();
    const outcomes = await Promise.allSettled(three(impatient));
    const tookMs = performance.now() - started;
    server.resume(member);
    for (const outcome of outcomes) expect(outcome).toMatchObject({ status: "rejected", reason: { name: "Unavailable" } });
    expect(tookMs).toBeLessThan(1500);
    await eventually(() => impatient.appender.append(anEntry("order-4", 1)));
    expect(await wholeLog(impatient.db)).toContain("order-4:1");
    expect((await wholeLog(impatient.db)).filter((entry) => entry.startsWith("gap"))).toEqual([]);
  });

  it("does not keep a process from stopping", async () => {
    const impatient = await openFragileLog({ patienceMs: 500 });
    await failCommands("alwaysOn", { failCommands: ["insert", "update"], errorCode: OUT_OF_DISK_SPACE });
    const outcomes = Promise.allSettled(three(impatient));
    await impatient[Symbol.asyncDispose]();
    for (const outcome of await outcomes) expect(outcome).toMatchObject({ status: "rejected", reason: { name: "Unavailable" } });
  });
});

/** How many inserts into the log the server is still busy with. */
async function insertsUnderWay(): Promise<number> {
  const [member] = server.members;
  if (!member) return 0;
  const { inprog } = await server.command(member, { currentOp: 1, "command.insert": "events" });
  return (inprog as unknown[]).length;
}
