import { Binary, Long } from "mongodb";
import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/audit/checkpoint.ts";
import { CHECKPOINTS_COLLECTION, HistoryChanged } from "../../src/audit/checkpoint-store.ts";
import { createFrontier } from "../../src/audit/frontier.ts";
import { EMPTY_ROOT, hashLeaf, verifyConsistency } from "../../src/audit/merkle.ts";
import { createSignerKey, parseNote, verifiedBy } from "../../src/audit/signed-note.ts";
import { TILES_COLLECTION } from "../../src/audit/tile-store.ts";
import { AUDIT_TREE } from "../../src/audit/tree-keeper.ts";
import { consistencyProof, resolveNodes } from "../../src/audit/tree-proofs.ts";
import { checkpointsOf } from "../../src/projections/checkpoint.ts";
import { eventually } from "../support/eventually.ts";
import { collect, type TestLog, testLog } from "../support/log.ts";
import { appendEntries, auditParts, keepTree, ORIGIN, SIGNER } from "./kept-tree.ts";

type EventDocument = { readonly _id: Long; readonly body: Binary };

describe("the log's tree", () => {
  it("is signed when it is empty, and whenever it has grown", async () => {
    await using log = await testLog();
    const parts = auditParts(log.db);
    await using _keeper = keepTree(parts);
    expect(await parts.covered(0)).toMatchObject({ origin: ORIGIN, size: 0, root: EMPTY_ROOT });
    for (const growth of [1, 254, 1, 1, 300]) {
      const head = await parts.covered(await appendEntries(log, growth));
      expect(head.root).toEqual(await rootOfEntries(log, head.size));
    }
  });

  it("is signed at least each second while it grows", async () => {
    await using log = await testLog();
    const parts = auditParts(log.db);
    const signedAt: number[] = [];
    await using _keeper = keepTree(parts, { onSigned: () => signedAt.push(performance.now()) });
    await parts.covered(0);
    const until = performance.now() + 3000;
    while (performance.now() < until) await appendEntries(log, 5);
    const gaps = signedAt.slice(1).map((at, index) => at - (signedAt[index] ?? 0));
    expect(signedAt.length).toBeGreaterThanOrEqual(4);
    // A machine that is held up for a second may hold up one of them.
    expect(gaps.filter((gap) => gap >= 1000).length).toBeLessThanOrEqual(1);
  });

  it("has proofs of consistency between all that was signed", async () => {
    await using log = await testLog();
    const parts = auditParts(log.db);
    await using _keeper = keepTree(parts);
    for (const growth of [3, 290, 40]) await parts.covered(await appendEntries(log, growth));
    const heads = [];
    for await (const { signed } of parts.checkpoints.all()) heads.push(openCheckpoint(signed, [SIGNER.verifier]));
    expect(heads.length).toBeGreaterThanOrEqual(3);
    for (const [index, newer] of heads.entries()) {
      for (const older of heads.slice(0, index)) {
        const proof = await resolveNodes(consistencyProof(older.size, newer.size), parts.tiles.read);
        expect(verifyConsistency(older, newer, proof)).toBe(true);
      }
    }
  });

  it("has the same roots when it is built again, all of it deleted or only tiles", async () => {
    await using log = await testLog();
    const parts = auditParts(log.db);
    const size = await appendEntries(log, 700);
    const { root, tiles } = await (async () => {
      await using _keeper = keepTree(parts);
      return { ...(await parts.covered(size)), tiles: await allTiles(log) };
    })();

    await log.db.collection(TILES_COLLECTION).drop();
    await (async () => {
      await using _keeper = keepTree(parts);
      await eventually(async () => expect(await allTiles(log)).toEqual(tiles));
    })();

    await log.db
      .collection<{ _id: string }>(TILES_COLLECTION)
      .updateOne({ _id: "0/2" }, { $set: { hashes: new Binary(Buffer.alloc(8192)) } });
    await (async () => {
      await using _keeper = keepTree(parts);
      await eventually(async () => expect(await allTiles(log)).toEqual(tiles));
    })();

    await log.db.collection(TILES_COLLECTION).drop();
    await log.db.collection(CHECKPOINTS_COLLECTION).drop();
    await log.db.collection<{ _id: string }>("checkpoints").deleteOne({ _id: AUDIT_TREE });
    await using _keeper = keepTree(parts);
    expect((await parts.covered(size)).root).toEqual(root);
    expect(await allTiles(log)).toEqual(tiles);
  });

  it("is the same whether entries are heard from this process's appender or read, also when others append between them", async () => {
    await using log = await testLog();
    const parts = auditParts(log.db);
    const other = log.join();
    await using _keeper = keepTree(parts, { onAppended: log.appender.onAppended });
    for (const [own, others] of [
      [700, 0],
      [0, 300],
      [400, 400],
      [2500, 1],
      [1, 50],
      [3, 0],
    ] as const) {
      const positions = await Promise.all([appendEntries(log, own), appendEntries({ ...log, appender: other.appender }, others)]);
      const head = await parts.covered(Math.max(...positions));
      expect(head.root).toEqual(await rootOfEntries(log, head.size));
    }
    expect(await log.reader.head()).toBe(4355);
    await parts.covered(4355);
  });

  it("is kept by one process, and by the next when that is gone", async () => {
    await using log = await testLog();
    const parts = auditParts(log.db);
    const signed: string[] = [];
    const one = keepTree(parts, { onSigned: () => signed.push("one") });
    await parts.covered(await appendEntries(log, 10));
    await using _two = keepTree(auditParts(log.db), { onSigned: () => signed.push("two") });
    await parts.covered(await appendEntries(log, 10));
    expect(new Set(signed)).toEqual(new Set(["one"]));
    await one[Symbol.asyncDispose]();
    const head = await parts.covered(await appendEntries(log, 10));
    await eventually(() => expect(signed.at(-1)).toBe("two"));
    expect(head.root).toEqual(await rootOfEntries(log, head.size));
  });

  it("is signed by every key there is, and by a new one as soon as there is one", async () => {
    await using log = await testLog();
    const parts = auditParts(log.db);
    const next = createSignerKey(ORIGIN, Buffer.alloc(32, 8));
    let signers = [SIGNER];
    await using _keeper = keepTree(parts, { keys: { signers: async () => signers } });
    await parts.covered(await appendEntries(log, 3));
    signers = [next, SIGNER];
    await eventually(async () => {
      const note = parseNote((await parts.audit.checkpoint())?.signed ?? "");
      expect(verifiedBy(note, [next.verifier, SIGNER.verifier])).toHaveLength(2);
    });
    signers = [next];
    await appendEntries(log, 1);
    await eventually(async () => {
      const { size, note } = openCheckpoint((await parts.audit.checkpoint())?.signed ?? "", [next.verifier]);
      expect([size, note.signatures.length]).toEqual([4, 1]);
    });
  });
});

describe("a log that has been changed", () => {
  it("is signed no more when its newest entries are gone, also when others are written in their place", async () => {
    await using log = await testLog();
    const parts = auditParts(log.db);
    const lines: string[] = [];
    await using _keeper = keepTree(parts, { lines });
    const { root } = await parts.covered(await appendEntries(log, 20));
    await log.db.collection<EventDocument>("events").deleteMany({ _id: { $gt: Long.fromNumber(15) } });
    await eventually(async () => expect((await stateOf(log))?.last_error).toContain("position 20"));
    await using other = log.join();
    await appendEntries({ ...log, appender: other.appender }, 10);
    await eventually(() => expect(lines.filter((line) => line.includes("THE LOG HAS BEEN CHANGED")).length).toBeGreaterThan(2));
    expect(await parts.audit.checkpoint()).toMatchObject({ size: 20 });
    expect((await parts.covered(20)).root).toEqual(root);
  });

  it("is not made the tree of, when that must be built again: what was signed stays to be compared with", async () => {
    await using log = await testLog();
    const parts = auditParts(log.db);
    await (async () => {
      await using _keeper = keepTree(parts);
      await parts.covered(await appendEntries(log, 300));
    })();
    const tiles = await allTiles(log);
    await log.db
      .collection<EventDocument>("events")
      .updateOne({ _id: Long.fromNumber(7) }, { $set: { body: new Binary(Buffer.from("other")) } });
    await log.db.collection<{ _id: string }>(TILES_COLLECTION).deleteOne({ _id: "0/1" });
    await using _keeper = keepTree(parts);
    await eventually(async () => expect((await stateOf(log))?.last_error).toContain("HistoryChanged"));
    expect(await allTiles(log)).toEqual(tiles.filter(([name]) => name !== "0/1"));
    expect(await parts.audit.checkpoint()).toMatchObject({ size: 300 });
  });

  it("has no second root signed for a size that has one", async () => {
    await using log = await testLog();
    const { checkpoints } = auditParts(log.db);
    await checkpoints.reserve({ size: 5, root: Buffer.alloc(32, 1) });
    await checkpoints.reserve({ size: 5, root: Buffer.alloc(32, 1) });
    await expect(checkpoints.reserve({ size: 5, root: Buffer.alloc(32, 2) })).rejects.toThrow(HistoryChanged);
  });
});

describe("the checkpoints that are kept", () => {
  it("are the newest, and of those before it the first of each hour for good", async () => {
    await using log = await testLog();
    const { checkpoints } = auditParts(log.db);
    const times = ["10:00:00", "10:00:01", "10:59:59", "11:00:00", "11:30:00", "12:10:00"];
    for (const [index, time] of times.entries()) {
      await checkpoints.reserve({ size: index + 1, root: Buffer.alloc(32, index) });
      await checkpoints.publish(index + 1, `note ${index}`, new Date(`2030-01-01T${time}Z`));
    }
    const stored = await log.db.collection(CHECKPOINTS_COLLECTION).find({}).sort({ _id: 1 }).toArray();
    expect(stored.map(({ expires_at }) => expires_at !== undefined)).toEqual([false, true, true, false, true, false]);
    expect(await checkpoints.newest()).toMatchObject({ size: 6, signed: "note 5" });
  });
});

async function rootOfEntries(log: TestLog, size: number): Promise<Uint8Array> {
  const frontier = createFrontier();
  for (const { body } of await collect(log.reader.readForward({ after: 0, to: size }))) frontier.append(hashLeaf(body));
  return frontier.root();
}

async function allTiles(log: TestLog): Promise<(readonly [string, string])[]> {
  const tiles = await log.db.collection<{ _id: string; hashes: Binary }>(TILES_COLLECTION).find().sort({ _id: 1 }).toArray();
  return tiles.map(({ _id, hashes }) => [_id, hashes.toString("hex")] as const);
}

const stateOf = (log: TestLog) => checkpointsOf(log.db).findOne({ _id: AUDIT_TREE });
