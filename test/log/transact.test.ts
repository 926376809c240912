import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { Refusal } from "../../src/domain/refusal.ts";
import { EventSchema } from "../../src/gen/ordertrail/events/v1/log_entry_pb.js";
import { Door, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import type { Appender } from "../../src/log/appender.ts";
import { type Category, type Command, createTransactor, type Transactor } from "../../src/log/transact.ts";
import { createUnchangedCommands } from "../../src/log/unchanged-commands.ts";
import { anEntry, testLog, wholeLog } from "../support/log.ts";
import type { LogAccess } from "../support/open-log.ts";

/** How often a tally has been raised. */
type Tally = number;

const TALLIES: Category<Tally> = { streamOf: (id) => `tally-${id}`, evolve: (tally) => (tally ?? 0) + 1 };
const RAISED = create(EventSchema, { kind: { case: "pickingStarted", value: {} } });

function tallies(access: LogAccess, options: { readonly appender?: Appender; readonly now?: () => Date } = {}): Transactor<Tally> {
  const { appender = access.appender, now = () => new Date() } = options;
  return createTransactor(TALLIES, appender, access.reader, createUnchangedCommands(access.db, now), { cachedStreams: 100, now });
}

function command(decide: Command<Tally>["decide"], requestId = "", method = "test.Tallies/Raise"): Command<Tally> {
  return { method, requestId, correlationId: "", actor: { role: Role.SERVICE, subject: "test" }, door: Door.GRPC, decide };
}

const raise = (requestId = "") => command(() => [RAISED], requestId);
const raiseTo = (most: number, requestId = "") => command((tally) => ((tally ?? 0) < most ? [RAISED] : []), requestId);
/** Raises unless the tally is just this one, which it leaves. */
const raiseBut = (tally: number, requestId: string) => command((found) => (found === tally ? [] : [RAISED]), requestId);
const raiseOnlyFrom = (tally: number | undefined) =>
  command((found) => {
    if (found !== tally) throw new Refusal("INVALID_STATUS_TRANSITION", `it is ${found}`);
    return [RAISED];
  });

describe("a command", () => {
  it("answers with what it led to and where it stands", async () => {
    await using log = await testLog();
    await log.appender.append(anEntry("order-1", 1));
    const transactor = tallies(log);
    expect(await transactor.transact("a", raise())).toEqual({ before: undefined, state: 1, version: 1, position: 2, appended: true });
    expect(await transactor.transact("a", raise())).toEqual({ before: 1, state: 2, version: 2, position: 3, appended: true });
  });

  it("records nothing when things are so already, and says how they are", async () => {
    await using log = await testLog();
    const transactor = tallies(log);
    await transactor.transact("a", raiseTo(1));
    expect(await transactor.transact("a", raiseTo(1))).toEqual({ before: 1, state: 1, version: 1, position: 1, appended: false });
    expect(await wholeLog(log.db)).toEqual(["tally-a:1"]);
  });

  it("records nothing when it is refused or fails", async () => {
    await using log = await testLog();
    const transactor = tallies(log);
    await expect(transactor.transact("a", raiseOnlyFrom(7))).rejects.toMatchObject({ reason: "INVALID_STATUS_TRANSITION" });
    const faulty = command(() => {
      throw new TypeError("a bug");
    });
    await expect(transactor.transact("a", faulty)).rejects.toThrow(TypeError);
    expect(await wholeLog(log.db)).toEqual([]);
  });

  it("sees what another process has recorded, whatever this one remembers", async () => {
    await using log = await testLog();
    const [one, other] = [tallies(log), tallies(log.join())];
    await one.transact("a", raise());
    await other.transact("a", raise());
    // `one` remembers 1, and would refuse the first of these and take the second for granted.
    expect(await one.transact("a", raiseOnlyFrom(2))).toMatchObject({ state: 3, appended: true });
    await other.transact("a", raise());
    await expect(one.transact("a", raiseOnlyFrom(3))).rejects.toThrow("it is 4");
    expect(await one.transact("a", raiseTo(3))).toMatchObject({ state: 4, appended: false });
    expect(await one.read("a")).toMatchObject({ state: 4, version: 4 });
  });

  it("never records a time before that of the entry before it", async () => {
    await using log = await testLog();
    await tallies(log, { now: () => new Date("2030-01-01T00:00:10Z") }).transact("a", raise());
    await tallies(log, { now: () => new Date("2030-01-01T00:00:00Z") }).transact("a", raise());
    const recorded = await log.reader.readStream("tally-a", 0);
    expect(recorded.map(({ entry }) => entry.recordedAt?.seconds)).toEqual([1893456010n, 1893456010n]);
  });

  it("is not begun when its caller gives up while it waits its turn", async () => {
    await using log = await testLog();
    const transactor = tallies(log);
    const caller = new AbortController();
    const first = transactor.transact("a", raise());
    const second = transactor.transact("a", raise(), caller.signal);
    caller.abort(new Error("the caller has gone"));
    await expect(second).rejects.toThrow("the caller has gone");
    expect(await first).toMatchObject({ version: 1 });
    expect(await wholeLog(log.db)).toEqual(["tally-a:1"]);
  });

  it("is refused as a conflict when it loses every race, and nothing is recorded of it", async () => {
    await using log = await testLog();
    const rival = log.join();
    const alwaysLate: Appender = {
      ...log.appender,
      async append(entry, signal) {
        await rival.appender.append(anEntry(entry.stream, entry.version));
        return log.appender.append(entry, signal);
      },
    };
    const transactor = tallies(log, { appender: alwaysLate });
    await expect(transactor.transact("a", raise("mine"))).rejects.toMatchObject({ name: "Refusal", reason: "CONFLICT" });
    const recorded = await log.reader.readStream("tally-a", 0);
    expect(recorded).toHaveLength(8);
    expect(recorded.filter(({ entry }) => entry.requestId === "mine")).toEqual([]);
  });

  it("is refused when more of them are under way than memory should hold", async () => {
    await using log = await testLog();
    const transactor = tallies(log);
    const caller = new AbortController();
    const outcomes = Array.from({ length: 20_001 }, () => transactor.transact("a", raise(), caller.signal));
    await expect(outcomes.at(-1)).rejects.toMatchObject({ reason: "OVERLOADED" });
    caller.abort(new Error("the caller has gone"));
    await Promise.allSettled(outcomes);
    expect(await transactor.transact("b", raise())).toMatchObject({ version: 1 });
  });
});

describe("a request_id seen before", () => {
  it("gives the first answer again and records nothing", async () => {
    await using log = await testLog();
    const transactor = tallies(log);
    await transactor.transact("a", raise());
    const first = await transactor.transact("a", raise("request-1"));
    await transactor.transact("a", raise());
    expect(await transactor.transact("a", raise("request-1"))).toEqual({ ...first, appended: false });
    expect(await wholeLog(log.db)).toEqual(["tally-a:1", "tally-a:2", "tally-a:3"]);
  });

  it("gives it in another process, too, whether that remembers the stream or not", async () => {
    await using log = await testLog();
    const [one, remembering] = [tallies(log), tallies(log.join())];
    await remembering.transact("a", raise());
    const first = await one.transact("a", raise("request-1"));
    await one.transact("a", raise());
    for (const other of [remembering, tallies(log.join())]) {
      expect(await other.transact("a", raise("request-1"))).toEqual({ ...first, appended: false });
    }
    expect(await wholeLog(log.db)).toHaveLength(3);
  });

  it("is answered even where the command would be refused by now", async () => {
    await using log = await testLog();
    const transactor = tallies(log);
    const once = { ...raiseOnlyFrom(undefined), requestId: "request-1" };
    const first = await transactor.transact("a", once);
    expect(await transactor.transact("a", once)).toEqual({ ...first, appended: false });
  });

  it("is refused for another method", async () => {
    await using log = await testLog();
    const transactor = tallies(log);
    await transactor.transact("a", raise("request-1"));
    await expect(
      transactor.transact(
        "a",
        command(() => [RAISED], "request-1", "test.Tallies/Lower"),
      ),
    ).rejects.toMatchObject({
      reason: "REQUEST_ID_REUSED",
      metadata: { method: "test.Tallies/Raise" },
    });
    expect(await wholeLog(log.db)).toHaveLength(1);
  });

  it("is refused for a command that leads to something else", async () => {
    await using log = await testLog();
    const transactor = tallies(log);
    await transactor.transact("a", raise("request-1"));
    const twice = command(() => [RAISED, RAISED], "request-1");
    await expect(transactor.transact("a", twice)).rejects.toMatchObject({ reason: "REQUEST_ID_REUSED" });
    await transactor.transact("a", raiseTo(1, "request-2"));
    await expect(transactor.transact("a", raise("request-2"))).rejects.toMatchObject({ reason: "REQUEST_ID_REUSED" });
    expect(await wholeLog(log.db)).toHaveLength(1);
  });

  it("changes nothing when it changed nothing the first time, whatever has come since, in any process", async () => {
    await using log = await testLog();
    const [one, remembering] = [tallies(log), tallies(log.join())];
    await one.transact("a", raise());
    await remembering.transact("a", raise());
    const first = await one.transact("a", raiseBut(2, "request-1"));
    expect(first).toMatchObject({ state: 2, version: 2, appended: false });
    await remembering.transact("a", raise());
    for (const transactor of [one, remembering, tallies(log.join())]) {
      expect(await transactor.transact("a", raiseBut(2, "request-1"))).toEqual(first);
    }
    expect(await wholeLog(log.db)).toHaveLength(3);
  });

  it("spares the look-up where things cannot have been so before", async () => {
    await using log = await testLog();
    const transactor = tallies(log);
    await transactor.transact("a", raise());
    await transactor.transact("a", raiseBut(1, "request-1"));
    await transactor.transact("a", raise());
    const asked: number[] = [];
    const mayHaveBeenSo = (tally: number) => asked.push(tally) > 0;
    expect(await tallies(log.join()).transact("a", { ...raiseBut(1, "request-1"), mayHaveBeenSo })).toMatchObject({ version: 1 });
    expect(asked).toEqual([2]);
    expect(await transactor.transact("a", { ...raiseBut(1, "request-2"), mayHaveBeenSo: () => false })).toMatchObject({ version: 3 });
  });

  it("counts in its own stream only", async () => {
    await using log = await testLog();
    const transactor = tallies(log);
    await transactor.transact("a", raise("request-1"));
    expect(await transactor.transact("b", raise("request-1"))).toMatchObject({ version: 1, appended: true });
  });

  it("is recorded once however many processes carry it out at the same time", async () => {
    await using log = await testLog();
    const transactors = [log, log.join(), log.join(), log.join()].map((access) => tallies(access));
    const outcomes = await Promise.all(Array.from({ length: 20 }, (_, index) => transactors[index % 4]?.transact("a", raise("request-1"))));
    expect(outcomes.filter((outcome) => outcome?.appended)).toHaveLength(1);
    expect(new Set(outcomes.map((outcome) => `${outcome?.state} ${outcome?.version} ${outcome?.position}`))).toEqual(new Set(["1 1 1"]));
    expect(await wholeLog(log.db)).toEqual(["tally-a:1"]);
  });
});

describe("a race of twenty commands on one stream", () => {
  it.each([1, 2])("from %i processes ends well for everyone", async (processes) => {
    await using log = await testLog();
    const transactors = Array.from({ length: processes }, () => tallies(log.join()));
    const outcomes = await Promise.all(Array.from({ length: 20 }, (_, index) => transactors[index % processes]?.transact("a", raise())));
    expect(outcomes.map((outcome) => outcome?.version).toSorted((a = 0, b = 0) => a - b)).toEqual(
      Array.from({ length: 20 }, (_, index) => index + 1),
    );
    for (const outcome of outcomes) expect(outcome?.state).toBe(outcome?.version);
    expect(await wholeLog(log.db)).toHaveLength(20);
  });

  it("shows nobody an error of the database", async () => {
    await using log = await testLog();
    const transactors = Array.from({ length: 20 }, () => tallies(log.join()));
    const outcomes = await Promise.allSettled(transactors.map((transactor) => transactor.transact("a", raise())));
    const recorded = outcomes.filter((outcome) => outcome.status === "fulfilled");
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") expect(outcome.reason).toMatchObject({ name: "Refusal", reason: "CONFLICT" });
    }
    expect(recorded.length).toBeGreaterThanOrEqual(8);
    expect(await wholeLog(log.db)).toHaveLength(recorded.length);
  });
});
