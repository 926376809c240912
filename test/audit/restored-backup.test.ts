import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createAnnouncer } from "../../src/audit/announcer.ts";
import { openCheckpoint } from "../../src/audit/checkpoint.ts";
import { createCheckpointFile } from "../../src/audit/checkpoint-file.ts";
import { goesOnFrom } from "../../src/audit/tree-proofs.ts";
import { parseWitnesses } from "../../src/audit/witness.ts";
import { createLogger } from "../../src/logger.ts";
import { dumpOf, restore } from "../support/dump.ts";
import { eventually } from "../support/eventually.ts";
import { type TestLog, testLog } from "../support/log.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { type AuditParts, appendEntries, auditParts, keepTree, SIGNER } from "./kept-tree.ts";
import { startWitness } from "./witness-server.ts";

const CHANGED = "THE LOG HAS BEEN CHANGED";

describe("a log that a backup has put back, with its tree and all its checkpoints", () => {
  it.each(["remembered", "published"] as const)("is signed no further than the %s checkpoint allows, and that one stays", async (which) => {
    await using log = await testLog();
    await using folder = await temporaryFolder();
    const files = filesIn(folder.path);
    const { kept, restarted, size, root } = await rolledBack(log, files);
    await rm(files[which === "remembered" ? "published" : "remembered"].path);
    const lines: string[] = [];
    await using _keeper = keep(kept, files, lines);
    // While it is shorter than what is remembered, and as soon as it is as long.
    await eventually(() => expect(lines.filter((line) => line.includes(CHANGED)).length).toBeGreaterThan(0), 10_000);
    expect(lines.join("")).toContain(files[which].path);
    await appendEntries(restarted, size - 3);
    await eventually(async () => expect(await lastError(kept)).toContain(`the checkpoint over ${size} entries in ${files[which].path}`));
    await appendEntries(restarted, 10);
    const seen = lines.filter((line) => line.includes(CHANGED)).length;
    await eventually(() => expect(lines.filter((line) => line.includes(CHANGED)).length).toBeGreaterThan(seen + 1), 10_000);
    expect(await kept.audit.checkpoint()).toMatchObject({ size: 3 });
    expect(await files[which].read()).toMatchObject({ size, root });
  });

  it("is signed on when whoever put it back has moved the remembered checkpoints away", async () => {
    await using log = await testLog();
    await using folder = await temporaryFolder();
    const files = filesIn(folder.path);
    const { kept, restarted, root } = await rolledBack(log, files);
    const lines: string[] = [];
    await using _keeper = keep(kept, files, lines);
    await eventually(() => expect(lines.join("")).toContain(CHANGED), 10_000);
    await appendEntries(restarted, 20);
    for (const { path } of Object.values(files)) await rename(path, `${path}.before`);
    await kept.covered(23);
    expect(lines.join("")).toContain("the log is believed as the database has it");
    await eventually(async () => expect((await files.published.read())?.size).toBe(23));
    expect((await files.remembered.read())?.root).not.toEqual(root);
  });

  it("is signed anew by no other process either, that only waited for its turn when it was signed first", async () => {
    await using log = await testLog();
    await using folder = await temporaryFolder();
    await using otherFolder = await temporaryFolder();
    const others = filesIn(otherFolder.path);
    const { kept, restarted, size } = await rolledBack(log, filesIn(folder.path), async (parts, head) => {
      await using _waiting = keepTree(parts, { remembered: others.remembered });
      await eventually(async () => expect((await others.remembered.read())?.size).toBe(head.size));
    });
    const lines: string[] = [];
    await using _keeper = keepTree(kept, { remembered: others.remembered, lines });
    await appendEntries(restarted, 30);
    await eventually(() => expect(lines.join("")).toContain(CHANGED), 10_000);
    expect(await kept.audit.checkpoint()).toMatchObject({ size: 3 });
    expect((await others.remembered.read())?.size).toBe(size);
  });
});

describe("a remembered checkpoint", () => {
  it("is no hindrance where another process has signed on, nor where the tree is made again", async () => {
    await using log = await testLog();
    await using folder = await temporaryFolder();
    const { remembered } = filesIn(folder.path);
    const parts = auditParts(log.db);
    const lines: string[] = [];
    for (const growth of [3, 300]) {
      await using _one = keepTree(parts, { remembered, lines });
      await parts.covered(await appendEntries(log, growth));
    }
    expect((await remembered.read())?.size).toBe(303);
    await (async () => {
      await using _other = keepTree(parts);
      await parts.covered(await appendEntries(log, 300));
    })();
    for (const collection of ["audit_tiles", "none"]) {
      await log.db.collection(collection).drop();
      await using _one = keepTree(parts, { remembered, lines });
      const { size } = await parts.covered(await appendEntries(log, 1));
      await eventually(async () => expect((await remembered.read())?.size).toBe(size));
    }
    expect(lines.join("")).not.toContain(CHANGED);
  });

  it("that cannot be read holds the signing up", async () => {
    await using log = await testLog();
    await using folder = await temporaryFolder();
    const { remembered } = filesIn(folder.path);
    await remembered.write("nonsense");
    const lines: string[] = [];
    const parts = auditParts(log.db);
    await using _keeper = keepTree(parts, { remembered, lines });
    await eventually(() => expect(lines.join("")).toContain(`${remembered.path} does not hold a checkpoint`));
    expect(await parts.audit.checkpoint()).toBeUndefined();
  });
});

describe("what has been announced of another history", () => {
  it("is not replaced in the file, and is an error", async () => {
    await using log = await testLog();
    await using folder = await temporaryFolder();
    const { published } = filesIn(folder.path);
    const { kept, restarted, size, root } = await rolledBack(log, filesIn(folder.path));
    const lines: string[] = [];
    const logger = createLogger("warn", { write: (line) => lines.push(line) });
    const announcer = createAnnouncer({ ...kept, witnesses: [], file: published, url: undefined, logger });
    await using _keeper = keepTree(kept, { onSigned: announcer.announce });
    const head = await kept.covered(await appendEntries(restarted, 30));
    await eventually(() => expect(lines.map((line) => JSON.parse(line))).toMatchObject([{ level: "error", size: head.size }]));
    expect(lines.join("")).toContain(CHANGED);
    expect(await published.read()).toMatchObject({ size, root });
  });

  it("is an error where a witness has seen it", async () => {
    await using log = await testLog();
    await using folder = await temporaryFolder();
    await using witness = await startWitness(SIGNER.verifier);
    const witnesses = parseWitnesses(`${witness.key.text} ${witness.url}`);
    const { kept, restarted, size } = await rolledBack(log, filesIn(folder.path), async (parts) => {
      const announcer = createAnnouncer({ ...parts, witnesses, file: undefined, url: undefined, logger: createLogger("silent") });
      const newest = await parts.audit.checkpoint();
      if (newest) announcer.announce(newest);
      await announcer.settled();
    });
    expect(witness.seen().size).toBe(size);
    const lines: string[] = [];
    const logger = createLogger("warn", { write: (line) => lines.push(line) });
    const announcer = createAnnouncer({ ...kept, witnesses, file: undefined, url: undefined, logger });
    await using _keeper = keepTree(kept, { onSigned: announcer.announce });
    for (const [count, what] of [
      [1, "more than there are"],
      [30, "others than there are"],
    ] as const) {
      await kept.covered(await appendEntries(restarted, count));
      await eventually(() => expect(lines.at(-1)).toContain(what));
      expect(JSON.parse(lines.at(-1) ?? "")).toMatchObject({ level: "error", msg: expect.stringContaining(CHANGED) });
    }
    expect(witness.seen().size).toBe(size);
  });
});

function filesIn(folder: string) {
  return {
    remembered: createCheckpointFile(join(folder, "remembered.checkpoint")),
    published: createCheckpointFile(join(folder, "published.checkpoint")),
  };
}

/** A log of 20 entries, signed and published, after which all of the database was put back as it was with 3 of them. */
async function rolledBack(
  log: TestLog,
  files: ReturnType<typeof filesIn>,
  beforehand: (parts: AuditParts, head: { readonly size: number }) => Promise<void> = async () => undefined,
) {
  const parts = auditParts(log.db);
  const { dump, head } = await (async () => {
    await using _keeper = keep(parts, files);
    await parts.covered(await appendEntries(log, 3));
    const dump = await dumpOf(log.db);
    const head = await parts.covered(await appendEntries(log, 17));
    await eventually(async () => expect((await files.published.read())?.size).toBe(head.size));
    const newest = openCheckpoint((await parts.audit.checkpoint())?.signed ?? "", [SIGNER.verifier]);
    expect(await goesOnFrom({ size: 3, root: (await headAt(parts, 3)).root }, newest, parts.tiles.read)).toBe(true);
    await beforehand(parts, head);
    return { dump, head };
  })();
  await restore(log.db, dump);
  // Ordertrail was stopped for it: what appends now knows nothing of the entries that are gone.
  return { kept: auditParts(log.db), restarted: { ...log, appender: log.join().appender }, size: head.size, root: head.root };
}

async function headAt(parts: AuditParts, size: number) {
  for await (const one of parts.checkpoints.all()) if (one.size === size) return one;
  throw new Error(`nothing was signed at ${size}`);
}

function keep(parts: AuditParts, files: ReturnType<typeof filesIn>, lines: string[] = []): AsyncDisposable {
  const logger = createLogger("warn", { write: (line) => lines.push(line) });
  const announcer = createAnnouncer({ ...parts, witnesses: [], file: files.published, url: undefined, logger });
  return keepTree(parts, { ...files, lines, onSigned: announcer.announce });
}

async function lastError({ db }: AuditParts): Promise<string> {
  const state = await db.collection<{ _id: string; last_error?: string | null }>("checkpoints").findOne({ _id: "audit_tree" });
  return state?.last_error ?? "";
}
