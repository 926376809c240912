import { Long } from "mongodb";
import { describe, expect, it } from "vitest";
import { readTreeState } from "../../src/audit/tree-state.ts";
import { testLog } from "../support/log.ts";
import { appendEntries, auditParts, keepTree } from "./kept-tree.ts";

const now = () => new Date();

describe("the state of the log's tree", () => {
  it("is in order while entries are signed soon, and not when they wait, or nobody keeps the tree", async () => {
    await using log = await testLog();
    const parts = auditParts(log.db);
    expect(await readTreeState(log.db, parts.checkpoints, now)).toEqual({ head: 0, covered: 0, signed: 0, problem: undefined });
    await (async () => {
      await using _keeper = keepTree(parts);
      await parts.covered(await appendEntries(log, 20));
    })();
    expect(await readTreeState(log.db, parts.checkpoints, now)).toEqual({ head: 20, covered: 20, signed: 20, problem: undefined });
    await appendEntries(log, 5);
    expect(await readTreeState(log.db, parts.checkpoints, now)).toEqual({ head: 25, covered: 20, signed: 20, problem: undefined });
    const later = () => new Date(Date.now() + 60_000);
    expect(await readTreeState(log.db, parts.checkpoints, later)).toMatchObject({
      problem: expect.stringMatching(
        /^the entries at positions 21 to 25 are not signed; the first of them waits for 6\d s, and the tree has come to 20$/,
      ),
    });
  });

  it("is not in order when the log has a gap after what is signed, or ends before that", async () => {
    await using log = await testLog();
    const parts = auditParts(log.db);
    await (async () => {
      await using _keeper = keepTree(parts);
      await parts.covered(await appendEntries(log, 20));
    })();
    await appendEntries(log, 3);
    const events = log.db.collection<{ _id: Long }>("events");
    const problem = async () => (await readTreeState(log.db, parts.checkpoints, now)).problem;
    await log.db.collection<{ _id: Long }>("events").updateOne({ _id: Long.fromNumber(21) }, { $unset: { at: true } });
    expect(await problem()).toBe("the log is damaged at position 21: its entry has no time");
    await events.deleteOne({ _id: Long.fromNumber(22) });
    expect(await problem()).toBe("the log has a gap between positions 21 and 23");
    await events.deleteOne({ _id: Long.fromNumber(21) });
    expect(await problem()).toBe("the log is damaged at position 21: there is no entry");
    await events.deleteMany({ _id: { $gt: Long.fromNumber(18) } });
    expect(await problem()).toBe("the log ends at position 18, and is signed up to position 20");
  });
});
