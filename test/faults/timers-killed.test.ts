import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { OrderStatus } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { ensureLogIndexes } from "../../src/log/indexes.ts";
import { createLogger } from "../../src/logger.ts";
import { createDeadlinesProjection, DEADLINES } from "../../src/projections/deadlines.ts";
import { createProjector } from "../../src/projections/projector.ts";
import { go, LIMITS } from "../domain/order-fixtures.ts";
import { createOrderWriter, soon } from "../projections/orders.ts";
import { testDatabase } from "../support/mongo.ts";
import { openLog } from "../support/open-log.ts";
import { COUNTS } from "./counts.ts";
import { createRandom } from "./random.ts";

const SCRIPT = fileURLToPath(new URL("../workers/timers-process.ts", import.meta.url));
const ORDERS = 40;

describe(`a timer killed at random, before or after one of its commands, ${COUNTS.timerKills} times (seed ${COUNTS.seed})`, () => {
  it("has acted once on each deadline, together with those that come after it", {
    timeout: 60_000 + COUNTS.timerKills * 10_000,
  }, async () => {
    await using database = await testDatabase();
    await using log = openLog(database.url, database.name);
    await ensureLogIndexes(log.db);
    const writer = createOrderWriter(log.appender);
    const projector = createProjector({ db: log.db, reader: log.reader, logger: createLogger("silent"), leaseMs: 2000 }, [
      createDeadlinesProjection(log.db, log.reader),
    ]);
    projector.start();
    const random = createRandom(COUNTS.seed);
    const begun = Date.now();
    let position = 0;
    const orderIds = Array.from({ length: ORDERS }, (_, index) => `o-${index}`);
    for (const orderId of orderIds) position = await writer.append(orderId, go(OrderStatus.STORE_NOTIFIED));

    let kills = 0;
    for (let round = 0; kills < COUNTS.timerKills; round++) {
      // First what is to be reminded of, then what is to be told of; then all orders have been acted on, and new ones come.
      const seconds = round % 2 === 0 ? LIMITS.acknowledgmentSeconds + 60 : 1_000_000;
      const at = new Date(begun + seconds * 1000).toISOString();
      await projector.waitFor(DEADLINES, position, soon());
      for (let ended = false; !ended; ) {
        const result = await act(database, at, kills < COUNTS.timerKills ? 1 + random(12) : 0, random(2) === 0 ? "before" : "after");
        ended = result === "ended";
        if (!ended) kills++;
        position = await log.reader.head();
        await projector.waitFor(DEADLINES, position, soon());
      }
      if (round % 2 === 1)
        for (const index of orderIds.keys()) position = await writer.append(`o-${round}-${index}`, go(OrderStatus.STORE_NOTIFIED));
    }
    await projector.stop();

    const acts = new Map<string, string[]>();
    for await (const entries of log.reader.readForward({ after: 0 }))
      for (const { entry } of entries)
        for (const { kind } of entry.events)
          if (kind.case?.startsWith("deadline")) acts.set(entry.stream, [...(acts.get(entry.stream) ?? []), kind.case]);
    expect(acts.size).toBeGreaterThanOrEqual(ORDERS);
    for (const [stream, kinds] of acts)
      expect([["deadlineReminded"], ["deadlineReminded", "deadlineEscalated"]], stream).toContainEqual(kinds);
  });
});

/** Runs a process that acts on what is due; "killed" when it was killed on the way. */
async function act(
  database: { readonly url: string; readonly name: string },
  at: string,
  killAt: number,
  when: string,
): Promise<"ended" | "killed"> {
  const { promise, resolve, reject } = Promise.withResolvers<"ended" | "killed">();
  execFile(process.execPath, [SCRIPT, database.url, database.name, at, String(killAt), when], (error) => {
    if (!error) resolve("ended");
    else if (error.signal === "SIGKILL") resolve("killed");
    else reject(error);
  });
  return await promise;
}
