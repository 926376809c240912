import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { fileURLToPath } from "node:url";
import type { Db } from "mongodb";
import { describe, expect, it } from "vitest";
import { createRevocations } from "../../src/access/revocations.ts";
import { createTrackingLinks } from "../../src/access/tracking-links.ts";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { ensureLogIndexes } from "../../src/log/indexes.ts";
import { createLogger } from "../../src/logger.ts";
import { ensureErasureIndexes } from "../../src/privacy/erasures.ts";
import { rotateKeys } from "../../src/privacy/key-rotation.ts";
import { parseMasterKeys } from "../../src/privacy/master-key.ts";
import { ORDER_TRACKING } from "../../src/projections/order-tracking.ts";
import { openPrivacy, type PrivacyParts } from "../privacy/privacy-parts.ts";
import { createOrderWriter, projectorOf, soon } from "../projections/orders.ts";
import { type TestDatabase, testDatabase } from "../support/mongo.ts";
import { openLog } from "../support/open-log.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { COUNTS } from "./counts.ts";
import { createRandom } from "./random.ts";

const SCRIPT = fileURLToPath(new URL("../privacy/privacy-process.ts", import.meta.url));
const DAYS = 5;
const DAY_MS = 86_400_000;
/** The link that each planted customer has made. */
const linkIds = new Map<string, string>();

describe(`an erasure killed at random, ${COUNTS.privacyKills} times (seed ${COUNTS.seed})`, () => {
  it("is finished by whoever comes next, with the receipt that it would have given", {
    timeout: 60_000 + COUNTS.privacyKills * 20_000,
  }, async () => {
    await using database = await testDatabase();
    await using folder = await temporaryFolder();
    const masterKeys = randomBytes(32).toString("base64");
    await using log = openLog(database.url, database.name);
    await ensureLogIndexes(log.db);
    await ensureErasureIndexes(log.db);
    const orders = createOrderWriter(log.appender);
    await using projector = projectorOf(log);
    projector.start();
    const run = (person: string, killAt: number) => runProcess(database, folder.path, masterKeys, person, killAt);

    /** A customer with an order under way, its driver's place, a tracking link, and a key for each of some days. */
    async function plant(customerId: string): Promise<void> {
      const position = await orders.submit({ orderId: `order-of-${customerId}`, customerId });
      await projector.waitFor(ORDER_TRACKING, position, soon());
      await log.db.collection<{ _id: string }>("driver_locations").insertOne({ _id: `order-of-${customerId}` });
      await log.db.collection(ORDER_TRACKING).updateOne({ customer_id: customerId }, { $set: { driver_location: { latitude: 1 } } });
      const links = createTrackingLinks(
        log.db,
        createRevocations(log.db, () => new Date(), createLogger("silent")),
        () => new Date(),
      );
      const linkId = await links.create(`order-of-${customerId}`, new Date(Date.now() + DAY_MS), {
        role: Role.CUSTOMER,
        subject: customerId,
      });
      linkIds.set(customerId, linkId);
      for (let day = 0; day < DAYS; day++) {
        const now = () => new Date(Date.now() - day * DAY_MS);
        await using privacy = await openPrivacy(log.client, log.db, { folder: folder.path, masterKeys, now });
        expect(await privacy.keys.seal(`customer-${customerId}`, Buffer.from("Ada"), "order-1/note")).toBeDefined();
      }
    }

    await plant("whole");
    const whole = await run("customer-whole", 0);
    expect(whole.signal).toBeNull();
    await expectErased(log.db, "whole", masterKeys, folder.path);
    const random = createRandom(COUNTS.seed);
    for (let kill = 0; kill < COUNTS.privacyKills; kill++) {
      const customerId = `c-${kill}`;
      await plant(customerId);
      const killAt = 1 + random(whole.commands);
      expect((await run(`customer-${customerId}`, killAt)).signal ?? "done", `killed at ${killAt}`).toBeOneOf(["SIGKILL", "done"]);
      await using next = await openPrivacy(log.client, log.db, { folder: folder.path, masterKeys });
      expect(await next.erasures.applyAgain()).toBe(0);
      const begun = await log.db.collection<{ _id: string }>("erasures").findOne({ _id: `customer-${customerId}` });
      await next.erasures.finish(soon());
      // Killed before anything was recorded, nothing was promised: the caller, who heard nothing, asks again.
      if (!begun) expect((await run(`customer-${customerId}`, 0)).signal).toBeNull();
      await expectErased(log.db, customerId, masterKeys, folder.path);
    }
  });

  async function expectErased(db: Db, customerId: string, masterKeys: string, folder: string): Promise<void> {
    await using log = await openPrivacyOn(db, folder, masterKeys);
    const receipt = await log.erasures.receiptOf(`customer-${customerId}`);
    expect(receipt).toMatchObject({
      keysDestroyed: DAYS,
      orders: 1,
      places: [
        { place: "contact_index", documents: 0 },
        { place: "driver_locations", documents: 1 },
        { place: "order_tracking", documents: 1 },
        { place: "tracking_links", documents: 1 },
      ],
    });
    const said = await db
      .collection("events")
      .find({ stream: `customer-${customerId}` })
      .toArray();
    expect(said).toMatchObject([{ _id: receipt?.position, version: 1, types: ["CustomerErased"] }]);
    expect(await db.collection("personal_keys").countDocuments({ person: `customer-${customerId}` })).toBe(0);
    expect(await db.collection<{ _id: string }>("driver_locations").countDocuments({ _id: `order-of-${customerId}` })).toBe(0);
    expect(await db.collection(ORDER_TRACKING).findOne({ customer_id: customerId })).toMatchObject({ driver_location: null });
    expect(await db.collection("tracking_links").countDocuments({ order_id: `order-of-${customerId}` })).toBe(0);
    const revoked = db.collection<{ _id: string }>("auth_revocations");
    expect(await revoked.countDocuments({ _id: `token:${linkIds.get(customerId)}` })).toBe(1);
    expect(await log.keys.seal(`customer-${customerId}`, Buffer.from("Ada"), "order-1/note")).toBeUndefined();
    expect(await db.collection("personal_keys").countDocuments({ person: `customer-${customerId}` })).toBe(0);
  }
});

describe(`a rotation killed at random, ${COUNTS.privacyKills} times (seed ${COUNTS.seed})`, () => {
  it("leaves every key readable, and is finished by the next", { timeout: 60_000 + COUNTS.privacyKills * 20_000 }, async () => {
    await using database = await testDatabase();
    await using folder = await temporaryFolder();
    const { client, db } = database;
    let masterKeys = randomBytes(32).toString("base64");
    const people = Array.from({ length: 700 }, (_, n) => `customer-${n}`);
    await using first = await openPrivacy(client, db, { folder: folder.path, masterKeys });
    const sealed = await Promise.all(
      people.map(async (person) => {
        const one = await first.keys.seal(person, Buffer.from(person), "order-1/note");
        if (!one) throw new Error(`${person} is erased`);
        return { sealed: one, context: "order-1/note" };
      }),
    );
    const random = createRandom(COUNTS.seed);
    let commands = 20;
    for (let kill = 0; kill < COUNTS.privacyKills; kill++) {
      masterKeys = `${randomBytes(32).toString("base64")},${masterKeys}`;
      const killAt = 1 + random(commands);
      const killed = await runProcess(database, folder.path, masterKeys, "rotate", killAt);
      expect(killed.signal ?? "done", `killed at ${killAt}`).toBeOneOf(["SIGKILL", "done"]);
      await using between = await openPrivacy(client, db, { folder: folder.path, masterKeys });
      await expectAllOpen(between);
      ({ commands } = await runProcess(database, folder.path, masterKeys, "rotate", 0));
      // The older master keys are needed no more.
      masterKeys = masterKeys.split(",")[0] as string;
      await using after = await openPrivacy(client, db, { folder: folder.path, masterKeys });
      await expectAllOpen(after);
      const { newest } = parseMasterKeys(masterKeys);
      expect(await db.collection("personal_keys").distinct("master_key_id")).toEqual([newest.id]);
      let last: unknown;
      for await (const progress of rotateKeys(db, after.wrapper, soon())) last = progress;
      expect(last).toEqual({ masterKeyId: newest.id, rewrapped: 0, left: [], done: true });
    }

    async function expectAllOpen({ keys }: PrivacyParts): Promise<void> {
      const opened = await keys.openMany(sealed);
      expect(opened.map((bytes) => bytes && Buffer.from(bytes).toString())).toEqual(people);
    }
  });
});

async function openPrivacyOn(db: Db, folder: string, masterKeys: string): Promise<PrivacyParts> {
  return openPrivacy(db.client, db, { folder, masterKeys });
}

/** Runs test/privacy/privacy-process.ts until it ends or kills itself. */
async function runProcess(
  database: TestDatabase,
  folder: string,
  masterKeys: string,
  task: string,
  killAt: number,
): Promise<{ readonly signal: string | null; readonly commands: number }> {
  return new Promise((resolve, reject) => {
    const args = [SCRIPT, database.url, database.name, folder, masterKeys, task, String(killAt)];
    execFile(process.execPath, args, (error, out, err) => {
      if (error && error.signal !== "SIGKILL") reject(new Error(`${task} failed: ${err}`));
      else resolve({ signal: error?.signal ?? null, commands: Number(out) });
    });
  });
}
