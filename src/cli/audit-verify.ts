import { readFile, writeFile } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import type { Command } from "commander";
import { createAuditKeySource } from "../audit/audit-keys.ts";
import { type Checkpoint, openCheckpoint } from "../audit/checkpoint.ts";
import { rememberedCheckpointFile } from "../audit/checkpoint-file.ts";
import { sameHash } from "../audit/merkle.ts";
import { parseNote, type VerifierKey, verifiedBy } from "../audit/signed-note.ts";
import type { PublishedLog } from "../audit/tile-source.ts";
import { type Difference, verifyTree } from "../audit/verify-tree.ts";
import { loadConfig } from "../config.ts";
import { withAuditService } from "./audit-client.ts";
import { addSourceOptions, openSource, type SourceOptions } from "./audit-source.ts";
import { EXIT } from "./exit-codes.ts";

type VerifyOptions = SourceOptions & { readonly remember?: string; readonly inDatabase?: true; readonly json?: true };

const PUBLISHED_WITHIN_MS = 3000;
const LOOK_EVERY_MS = 100;

/** Registers `audit verify`: holds every entry of a log against what its key has signed. */
export function registerAuditVerify(audit: Command): void {
  const command = addSourceOptions(
    audit
      .command("verify")
      .description(
        `hold every entry of the log against its hash tiles and both against what its key has signed; names the first wrong position, with exit code ${EXIT.failed}`,
      ),
  )
    .option("--remember <file>", "a file for the newest checkpoint: the log must go on from the one in it, which is then replaced")
    .option("--in-database", "have the running instance verify its database: also fields beside the bodies, and earlier checkpoints")
    .option("--json", "for programs: the result as one JSON object");
  command.action(async (options: VerifyOptions) => {
    if (options.inDatabase) await verifyInDatabase(command, options);
    else await verifyPublished(command, options);
  });
}

async function verifyPublished(command: Command, options: VerifyOptions): Promise<void> {
  const { log, keys } = await openSource(command, options);
  // What the running instance remembers apart from its database; whoever asks at an address has nothing but that.
  const known = options.url || options.dir !== undefined ? undefined : await rememberedCheckpointFile(loadConfig()).read();
  const { signed, checkpoint } = await newestCheckpoint(log, keys, known?.size ?? 0);
  const remembered = options.remember === undefined ? undefined : await readRemembered(command, options.remember, options, keys);
  const before = [remembered, known].filter((one) => one !== undefined).toSorted((a, b) => a.size - b.size);
  const broken = before.map((one) => brokenPromise(one, checkpoint)).find((one) => one !== undefined);
  const difference = broken ?? (await verifyEntries());
  const isOwn = options.url === undefined && options.dir === undefined;
  const treeProblem = difference || !isOwn ? "" : await askForTreeProblem();
  report(command, options, { size: checkpoint.size, signed: Math.max(checkpoint.size, before.at(-1)?.size ?? 0), difference, treeProblem });
  if (!difference && !isOwn && !options.json) command.configureOutput().writeOut?.(REACH);
  if (!difference && options.remember !== undefined) await writeFile(options.remember, signed);

  /** What was signed may be right and old: only the instance can tell that more has come. */
  async function askForTreeProblem(): Promise<string> {
    let problem = "";
    await withAuditService(command, options.token, async (audit) => {
      problem = (await audit.getCheckpoint({})).treeProblem;
    });
    return problem;
  }

  async function verifyEntries(): Promise<Difference | undefined> {
    const verifying = verifyTree(log, { head: checkpoint, earlier: before });
    const progress = createProgress();
    try {
      for (;;) {
        const { done, value } = await verifying.next();
        if (done) return value;
        progress.show(value.checked, value.total);
      }
    } finally {
      progress.clear();
    }
  }
}

/** The newest checkpoint, once it covers so many entries, or after a while in any case: it is remembered before it is published. */
async function newestCheckpoint(log: PublishedLog, keys: readonly VerifierKey[], size: number) {
  const until = performance.now() + PUBLISHED_WITHIN_MS;
  for (;;) {
    const signed = await log.checkpoint();
    const checkpoint = openCheckpoint(signed, keys);
    if (checkpoint.size >= size || performance.now() > until) return { signed, checkpoint };
    await pause(LOOK_EVERY_MS);
  }
}

async function verifyInDatabase(command: Command, options: VerifyOptions): Promise<void> {
  if (options.url || options.dir !== undefined || options.remember !== undefined)
    command.error("error: --in-database is of the running instance: it goes with none of --url, --dir and --remember", {
      exitCode: EXIT.usage,
    });
  const progress = createProgress();
  await withAuditService(command, options.token, async (audit) => {
    for await (const { checked, total, difference, treeProblem, done } of audit.verifyLog({})) {
      if (!done) {
        progress.show(Number(checked), Number(total));
        continue;
      }
      progress.clear();
      const found = difference && { position: Number(difference.position), to: Number(difference.toPosition), what: difference.problem };
      report(command, options, { size: Number(total), signed: Number(total), difference: found, treeProblem });
    }
  });
}

type Verified = {
  /** How many entries the checkpoint covers. */
  readonly size: number;
  /** How many entries are known to have been signed. */
  readonly signed: number;
  readonly difference: Difference | undefined;
  /** Why what came after them is not signed; empty if it is, or nobody could be asked. */
  readonly treeProblem: string;
};

const REACH = "that is how far the newest checkpoint reaches; whether the log has gone on since, only its instance can tell\n";

function report(command: Command, { json }: VerifyOptions, { size, signed, difference, treeProblem }: Verified): void {
  const write = (text: string) => command.configureOutput().writeOut?.(text);
  if (difference || treeProblem) process.exitCode = EXIT.failed;
  if (json) {
    write(`${JSON.stringify({ size, ...(difference && { difference }), ...(treeProblem && { treeProblem }) })}\n`);
    return;
  }
  if (difference) {
    const { position, to, what } = difference;
    const where =
      position === 0 ? "" : position === to ? `first wrong position ${position}: ` : `first wrong position in ${position} to ${to}: `;
    write(`${position > signed ? "THE LOG IS DAMAGED AFTER WHAT WAS SIGNED" : "THE LOG IS NOT WHAT WAS SIGNED"}. ${where}${what}\n`);
  } else {
    write(`verified: ${size} entries are what was signed\n`);
  }
  if (treeProblem) write(`WHAT CAME AFTER THEM IS NOT SIGNED: ${treeProblem}\n`);
}

/** The checkpoint in the file; undefined when there is none yet. It may be signed with a key that has been retired since. */
async function readRemembered(
  command: Command,
  path: string,
  { url, dir, key }: VerifyOptions,
  keys: readonly VerifierKey[],
): Promise<Checkpoint | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  const note = parseNote(text);
  if (verifiedBy(note, keys).length > 0) return openCheckpoint(text, keys);
  if (!url && dir === undefined && !key) {
    const config = loadConfig();
    const all = await createAuditKeySource(config).verifiers(config.auditOrigin);
    if (verifiedBy(note, all).length > 0) return openCheckpoint(text, all);
  }
  const signers = note.signatures.map(({ name, id }) => `${name}+${id.toString(16).padStart(8, "0")}`).join(" or ");
  return command.error(
    `error: the checkpoint in ${path} is signed with another key: give the one that begins with ${signers}, too, as --key (ordertrail audit key --all lists those that the log has had)`,
    { exitCode: EXIT.failed },
  );
}

/** What shows without reading any entry: a log that has shrunk, or has another root than before. */
function brokenPromise(before: Checkpoint, now: Checkpoint): Difference | undefined {
  if (before.size > now.size)
    return {
      position: now.size + 1,
      to: now.size + 1,
      what: `the log had ${before.size} entries when it was last looked at, and has ${now.size}`,
    };
  if (before.size === now.size && !sameHash(before.root, now.root))
    return { position: 1, to: now.size, what: "the log has been signed twice, with different entries" };
  return undefined;
}

const SHOW_EVERY_MS = 100;
const LINE_EVERY_MS = 5000;

/** Progress on the standard error: a line that the next one replaces where somebody watches, otherwise a line now and then. */
function createProgress() {
  const { isTTY } = process.stderr;
  const began = performance.now();
  let shownAt = began;
  return {
    show(checked: number, total: number) {
      const now = performance.now();
      if (now - shownAt < (isTTY ? SHOW_EVERY_MS : LINE_EVERY_MS)) return;
      shownAt = now;
      const line = `${checked} of ${total} entries, ${Math.round((checked * 1000) / (now - began))}/s`;
      process.stderr.write(isTTY ? `\r\x1b[K${line}` : `${line}\n`);
    },
    clear() {
      if (isTTY) process.stderr.write("\r\x1b[K");
    },
  };
}
