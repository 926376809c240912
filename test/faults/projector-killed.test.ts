import { describe, expect, it } from "vitest";
import { ensureLogIndexes } from "../../src/log/indexes.ts";
import { checkpointsOf } from "../../src/projections/checkpoint.ts";
import { ORDER_TRACKING } from "../../src/projections/order-tracking.ts";
import { startProjectorProcess } from "../projections/crashes.ts";
import { heldRebuild } from "../projections/held-rebuild.ts";
import { createOrderWriter, folded, LIFE, leftOvers, orderIds, projected, projectorOf, soon } from "../projections/orders.ts";
import { eventually } from "../support/eventually.ts";
import { type TestDatabase, testDatabase } from "../support/mongo.ts";
import { type LogAccess, openLog } from "../support/open-log.ts";
import { COUNTS } from "./counts.ts";
import { createRandom } from "./random.ts";

const LEASE_MS = 300;
const ENTRIES_A_LIFE = LIFE.length + 1;
const ENTRIES_A_KILL = 20 * ENTRIES_A_LIFE;

describe(`projectors killed at random, ${COUNTS.projectorKills} times (seed ${COUNTS.seed})`, () => {
  it("leave what the next one completes: nothing missing, nothing behind", {
    timeout: 60_000 + COUNTS.projectorKills * 10_000,
  }, async () => {
    await using database = await testDatabase();
    await using log = await openTestLog(database);
    const orders = createOrderWriter(log.appender);
    const random = createRandom(COUNTS.seed);
    for (let kill = 0; kill < COUNTS.projectorKills; kill++) {
      await using victim = await startProjectorProcess(database, { leaseMs: LEASE_MS });
      // Killed while orders are written, so that it dies with batches of all sizes on their way.
      let left = random(ENTRIES_A_KILL);
      const heeded = log.appender.onAppended(() => {
        if (left-- === 0) victim.kill("SIGKILL");
      });
      for (const orderId of orderIds(`kill-${kill}`, ENTRIES_A_KILL / ENTRIES_A_LIFE)) await orders.append(orderId, ...LIFE);
      await victim.ended;
      heeded();
      const position = (await checkpointsOf(log.db).findOne({ _id: ORDER_TRACKING }))?.position ?? 0;
      await expectNothingMissing(log, Number(position));
    }
    await completeAndCompare(log);
  });

  it("finish a swap that was under way, wherever it was broken off", { timeout: 60_000 + COUNTS.projectorKills * 20_000 }, async () => {
    await using database = await testDatabase();
    await using log = await openTestLog(database);
    const orders = createOrderWriter(log.appender);
    await orders.appendLives(orderIds("before", 60));
    await completeAndCompare(log);
    const commands = await commandsOfRebuild(log, database);
    const random = createRandom(COUNTS.seed);
    const points = [
      "before renameCollection",
      "after renameCollection",
      ...Array.from({ length: COUNTS.projectorKills }, () => 1 + random(commands)),
    ];
    for (const [round, killAt] of points.entries()) {
      await requestRebuild(log);
      await orders.appendLives(orderIds(`round-${round}`, 5));
      await using victim = await startProjectorProcess(database, { leaseMs: LEASE_MS, until: "rebuild", killAt });
      const { signal, code } = await victim.ended;
      expect(signal ?? code, `killed at ${killAt}`).toBeOneOf(["SIGKILL", 0]);
      await orders.append(`after-${round}`);
      await completeAndCompare(log);
    }
  });
});

describe("a swap that was broken off", () => {
  it("is finished by whoever comes next, before anything else is written: a rename that comes late hits nothing", async () => {
    await using database = await testDatabase();
    await using log = await openTestLog(database);
    const orders = createOrderWriter(log.appender);
    await orders.appendLives(orderIds("o", 10));
    await requestRebuild(log);
    await using victim = await startProjectorProcess(database, { leaseMs: LEASE_MS, until: "rebuild", killAt: "before renameCollection" });
    expect((await victim.ended).signal).toBe("SIGKILL");
    const { rebuild } = (await checkpointsOf(log.db).findOne({ _id: ORDER_TRACKING })) ?? {};
    expect(rebuild?.phase).toBe("swapping");

    await using projector = projectorOf({ db: log.db, reader: heldRebuild(log.reader).reader }, { leaseMs: LEASE_MS });
    projector.start();
    await projector.waitFor(ORDER_TRACKING, await orders.append("next"), soon());
    const late = log.db.collection(rebuild?.copy ?? "").rename(ORDER_TRACKING, { dropTarget: true });
    await expect(late).rejects.toMatchObject({ codeName: "NamespaceNotFound" });
    expect(await projected(log.db)).toEqual(await folded(log.reader));
  });
});

describe("a projector that was frozen while another took over", () => {
  it("does no harm when it wakes", async () => {
    await using database = await testDatabase();
    await using log = await openTestLog(database);
    const orders = createOrderWriter(log.appender);
    await using frozen = await startProjectorProcess(database, { leaseMs: LEASE_MS });
    const lives = orders.appendLives(orderIds("o", 50));
    await eventually(async () => expect((await projected(log.db)).length).toBeGreaterThan(0));
    frozen.kill("SIGSTOP");
    const position = await lives;
    await using projector = projectorOf(log, { leaseMs: LEASE_MS });
    projector.start();
    await projector.waitFor(ORDER_TRACKING, position, soon());
    const before = await projected(log.db);
    expect(before).toEqual(await folded(log.reader));
    const { lease } = (await checkpointsOf(log.db).findOne({ _id: ORDER_TRACKING })) ?? {};
    frozen.kill("SIGCONT");
    await projector.waitFor(ORDER_TRACKING, await orders.append("next"), soon());
    const after = await checkpointsOf(log.db).findOne({ _id: ORDER_TRACKING });
    expect(after?.lease).toMatchObject({ owner: lease?.owner, fence: lease?.fence });
    expect(await projected(log.db)).toEqual(await folded(log.reader));
  });
});

async function openTestLog(database: TestDatabase): Promise<LogAccess> {
  const log = openLog(database.url, database.name);
  await ensureLogIndexes(log.db);
  return log;
}

async function requestRebuild(log: LogAccess): Promise<void> {
  await using projector = projectorOf(log);
  for await (const { done } of projector.rebuild(ORDER_TRACKING, soon())) {
    expect(done).toBe(false);
    break;
  }
}

/** How many commands a process sends that starts, rebuilds and stops. */
async function commandsOfRebuild(log: LogAccess, database: TestDatabase): Promise<number> {
  await requestRebuild(log);
  await using child = await startProjectorProcess(database, { leaseMs: LEASE_MS, until: "rebuild" });
  const { said, code } = await child.ended;
  expect(code).toBe(0);
  return Number(said.at(-1));
}

/** Every entry up to the checkpoint must be in the collection already: a checkpoint is never ahead of its work. */
async function expectNothingMissing(log: LogAccess, position: number): Promise<void> {
  const there = new Map((await projected(log.db)).map((document) => [`order-${document.order_id}`, document.version]));
  for await (const entries of log.reader.readForward({ after: 0, to: position })) {
    for (const { entry } of entries) expect(there.get(entry.stream)).toBeGreaterThanOrEqual(entry.version);
  }
}

/** Lets a projector finish what there is, and holds the collection against the log. */
async function completeAndCompare(log: LogAccess): Promise<void> {
  await using projector = projectorOf(log, { leaseMs: LEASE_MS });
  projector.start();
  await projector.waitFor(ORDER_TRACKING, await log.reader.head(), soon());
  await eventually(async () => {
    expect((await projector.states())[0]).toMatchObject({ rebuilding: false, lastError: "" });
    expect(await leftOvers(log.db)).toEqual([]);
  });
  expect(await projected(log.db)).toEqual(await folded(log.reader));
}
