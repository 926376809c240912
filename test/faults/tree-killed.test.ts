import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { Db } from "mongodb";
import { describe, expect, it } from "vitest";
import { openCheckpoint, type TreeHead } from "../../src/audit/checkpoint.ts";
import { verifyConsistency } from "../../src/audit/merkle.ts";
import { storedLog } from "../../src/audit/stored-log.ts";
import { consistencyProof, resolveNodes } from "../../src/audit/tree-proofs.ts";
import { verifyTree } from "../../src/audit/verify-tree.ts";
import { appendEntries, auditParts, keepTree, SIGNER } from "../audit/kept-tree.ts";
import { type TestLog, testLog } from "../support/log.ts";
import { COUNTS } from "./counts.ts";
import { createRandom } from "./random.ts";

const SCRIPT = fileURLToPath(new URL("../audit/keeper-process.ts", import.meta.url));

describe(`the keeper of the log's tree, killed ${COUNTS.treeKills} times at random while another waits (seed ${COUNTS.seed})`, () => {
  it("never signs two roots for one size, and leaves what the next one completes", {
    timeout: 60_000 + COUNTS.treeKills * 20_000,
  }, async () => {
    await using log = await testLog();
    const parts = auditParts(log.db);
    const random = createRandom(COUNTS.seed);
    const signed = new Map<number, TreeHead>();
    const heed = (note: string) => {
      const head = openCheckpoint(note, [SIGNER.verifier]);
      expect(Buffer.from(signed.get(head.size)?.root ?? head.root).toString("hex"), `size ${head.size}`).toBe(
        Buffer.from(head.root).toString("hex"),
      );
      signed.set(head.size, head);
    };
    for (let kill = 0; kill < COUNTS.treeKills; kill++) {
      // One dies by its own hand in the middle of some command, the other from outside in the middle of anything.
      await using suicide = startKeeper(log, heed, 5 + random(40));
      await using victim = startKeeper(log, heed);
      let isOver = false;
      const over = suicide.ended.then(() => {
        isOver = true;
      });
      while (!isOver) await appendEntries(log, 1 + random(400));
      await over;
      await appendEntries(log, 1 + random(400));
      victim.kill();
      await victim.ended;
    }
    await using _keeper = keepTree(parts, { onSigned: (checkpoint) => heed(checkpoint.signed) });
    const head = await parts.covered(await log.reader.head());
    for await (const checkpoint of parts.checkpoints.all()) heed(checkpoint.signed);
    for (const older of signed.values()) {
      const proof = await resolveNodes(consistencyProof(older.size, head.size), parts.tiles.read);
      expect(verifyConsistency(older, head, proof)).toBe(true);
    }
    expect(await differenceIn(log.db, head)).toBeUndefined();
    expect(signed.size).toBeGreaterThan(COUNTS.treeKills / 2);
  });
});

async function differenceIn(db: Db, head: TreeHead) {
  const verifying = verifyTree(storedLog(db, auditParts(db).tiles), { head });
  for (;;) {
    const { done, value } = await verifying.next();
    if (done) return value;
  }
}

/** Starts a keeper in a process of its own, and passes on every checkpoint that it has signed. */
function startKeeper(log: TestLog, heed: (note: string) => void, killAt = 0) {
  const child = spawn(process.execPath, [SCRIPT, log.url, log.db.databaseName, String(killAt)], { stdio: ["ignore", "pipe", "inherit"] });
  let rest = "";
  const heard: string[] = [];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    heard.push(...lines.filter((line) => line !== ""));
  });
  const ended = once(child, "close").then(() => {
    for (const line of heard) heed(JSON.parse(line) as string);
  });
  return {
    ended,
    kill: () => child.kill("SIGKILL"),
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}
