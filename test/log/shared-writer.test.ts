import { fromBinary } from "@bufbuild/protobuf";
import { connect } from "nats";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type NatsServer, startNatsServer } from "../../src/embedded/nats-server.ts";
import { AppendRequestSchema } from "../../src/gen/ordertrail/internal/v1/append_pb.js";
import { answerAppendRequest } from "../../src/log/append-request.ts";
import { StreamConflict } from "../../src/log/appender.ts";
import { ensureLogIndexes } from "../../src/log/indexes.ts";
import { WRITERS_COLLECTION } from "../../src/log/log-entry.ts";
import { eventually } from "../support/eventually.ts";
import { anEntry, wholeLog } from "../support/log.ts";
import { testDatabase } from "../support/mongo.ts";
import { openLog, openSharedLog } from "../support/open-log.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

type Lease = { _id: string; holder: string; until: Date };

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let nats: NatsServer;

beforeAll(async () => {
  folder = await temporaryFolder();
  nats = await startNatsServer({ dataDir: folder.path });
});
afterAll(async () => {
  await nats.kill();
  await folder[Symbol.asyncDispose]();
});

/** A log that two processes share, the first of which appends for both. */
async function sharedLog() {
  const database = await testDatabase();
  await ensureLogIndexes(database.db);
  const open = () => openSharedLog(database.url, database.name, nats.url);
  const writer = open();
  const leases = database.db.collection<Lease>(WRITERS_COLLECTION);
  let count = 0;
  const other = open();
  await eventually(async () => {
    await writer.appender.append(anEntry(`first-${++count}`, 1));
    expect(await leases.findOne({ holder: { $exists: true }, $expr: { $gt: ["$until", "$$NOW"] } })).not.toBeNull();
  });
  return {
    database,
    leases,
    writer,
    other,
    async [Symbol.asyncDispose]() {
      await other[Symbol.asyncDispose]();
      await writer[Symbol.asyncDispose]();
      await database[Symbol.asyncDispose]();
    },
  };
}

/** Somebody who holds the lease for good, by a name; what they do with requests is the test's to say. */
async function holdLease(log: Awaited<ReturnType<typeof sharedLog>>, name: string): Promise<void> {
  await log.leases.updateOne({ holder: { $exists: true } }, { $set: { holder: name, until: new Date(Date.now() + 600_000) } });
}

describe("processes that let one append for all", () => {
  it("record each entry once, in one order, each in the order of its caller", async () => {
    await using log = await sharedLog();
    const before = (await wholeLog(log.database.db)).length;
    let version = 0;
    const appendBoth = async () => {
      version++;
      return await Promise.all(
        [log.writer, log.other].flatMap(({ appender }, process) =>
          Array.from({ length: 50 }, (_, lane) => appender.append(anEntry(`order-${process}-${lane}`, version))),
        ),
      );
    };
    const positions: number[] = [];
    for (let round = 0; round < 20; round++) positions.push(...(await appendBoth()));
    const whole = await wholeLog(log.database.db);
    expect(positions.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 2000 }, (_, index) => whole.length - 2000 + index + 1));
    expect(whole.length).toBeGreaterThanOrEqual(before + 2000);
  });

  it("tell the loser of a race on a stream, and only that one", async () => {
    await using log = await sharedLog();
    await log.writer.appender.append(anEntry("order-1", 1));
    const outcomes = await Promise.allSettled([
      log.other.appender.append(anEntry("order-1", 1)),
      log.other.appender.append(anEntry("order-2", 1)),
    ]);
    expect(outcomes[0]).toMatchObject({ status: "rejected", reason: expect.any(StreamConflict) });
    expect(outcomes[1]).toMatchObject({ status: "fulfilled" });
  });

  it("append themselves when the one is gone without a word", async () => {
    await using log = await sharedLog();
    await holdLease(log, "gone");
    const started = performance.now();
    await Promise.all(Array.from({ length: 20 }, (_, index) => log.other.appender.append(anEntry(`order-${index}`, 1))));
    expect(performance.now() - started).toBeLessThan(5000);
  });

  it("record an entry once whose writer has recorded it and does not answer, and know where it stands", async () => {
    await using log = await sharedLog();
    await using liar = openLog(log.database.url, log.database.name);
    const connection = await connect({ servers: `127.0.0.1:${nats.port}` });
    const asked: string[] = [];
    connection.subscribe(`${log.database.name}.append.liar`, {
      callback: (_error, message) => {
        asked.push(String(fromBinary(AppendRequestSchema, message.data).bodies.length));
        void answerAppendRequest(liar.appender, message.data);
      },
    });
    await connection.flush();
    await holdLease(log, "liar");
    const entry = anEntry("order-1", 1);
    await eventually(async () => {
      await log.other.appender.append(anEntry(`warm-${Math.random().toString(36).slice(2)}`, 1));
      expect(asked.length).toBeGreaterThan(0);
    });
    // The liar was suspected for a while; it is asked again after that.
    const before = asked.length;
    await eventually(async () => {
      await log.other.appender.append(anEntry(`again-${Math.random().toString(36).slice(2)}`, 1));
      expect(asked.length).toBeGreaterThan(before);
    }, 10_000);
    const position = await log.other.appender.append(entry);
    const whole = await wholeLog(log.database.db);
    expect(whole[position - 1]).toBe("order-1:1");
    expect(new Set(whole).size).toBe(whole.length);
    await connection.close();
  });

  it("do not heed bytes that are no request", async () => {
    await using log = await sharedLog();
    const holder = (await log.leases.findOne({ holder: { $exists: true } }))?.holder;
    const connection = await connect({ servers: `127.0.0.1:${nats.port}` });
    for (const bytes of [new Uint8Array([255, 1, 2]), new Uint8Array([10, 3, 1, 2, 3])])
      await expect(connection.request(`${log.database.name}.append.${holder}`, bytes, { timeout: 200 })).rejects.toThrow();
    await connection.close();
    await log.writer.appender.append(anEntry("order-1", 1));
  });
});
