import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createAnnouncer } from "../../src/audit/announcer.ts";
import { openCheckpoint } from "../../src/audit/checkpoint.ts";
import { createCheckpointFile } from "../../src/audit/checkpoint-file.ts";
import { parseNote, verifiedBy } from "../../src/audit/signed-note.ts";
import { parseWitnesses } from "../../src/audit/witness.ts";
import { createLogger } from "../../src/logger.ts";
import { eventually } from "../support/eventually.ts";
import { testLog } from "../support/log.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { appendEntries, auditParts, keepTree, SIGNER } from "./kept-tree.ts";
import { startWitness } from "./witness-server.ts";

describe("a witness", () => {
  it("cosigns every checkpoint that goes on from what it has seen, also when another process asks", async () => {
    await using log = await testLog();
    await using witness = await startWitness(SIGNER.verifier);
    const parts = auditParts(log.db);
    const announcerOf = () => {
      const witnesses = parseWitnesses(`${witness.key.text} ${witness.url}`);
      return createAnnouncer({ ...parts, witnesses, file: undefined, url: undefined, logger: createLogger("silent") });
    };
    const cosigned = async (size: number) =>
      await eventually(async () => {
        const { note, size: covered } = openCheckpoint((await parts.audit.checkpoint())?.signed ?? "", [SIGNER.verifier]);
        expect(covered).toBe(size);
        expect(verifiedBy(note, [SIGNER.verifier, witness.key])).toHaveLength(2);
      });
    await (async () => {
      await using _keeper = keepTree(parts, { onSigned: announcerOf().announce });
      for (const growth of [3, 300, 1]) await cosigned(await appendEntries(log, growth));
    })();
    expect(witness.seen().size).toBe(304);
    await using _keeper = keepTree(parts, { onSigned: announcerOf().announce });
    await cosigned(await appendEntries(log, 5));
    expect(witness.answers).toContain(409);
    expect(witness.answers).not.toContain(422);
  });

  it("that fails, forges or hangs holds nothing up, and is asked again", async () => {
    await using log = await testLog();
    await using witness = await startWitness(SIGNER.verifier);
    const parts = auditParts(log.db);
    const lines: string[] = [];
    const logger = createLogger("warn", { write: (line) => lines.push(line) });
    const announcer = createAnnouncer({
      ...parts,
      witnesses: [{ key: witness.key, url: new URL(witness.url) }],
      file: undefined,
      url: undefined,
      logger,
    });
    await using _keeper = keepTree(parts, { onSigned: announcer.announce });
    for (const how of ["fails", "forges", "hangs"] as const) {
      witness.behave(how);
      const { size } = await parts.covered(await appendEntries(log, 3));
      if (how !== "hangs") await eventually(() => expect(lines.some((line) => line.includes(`"size":${size}`))).toBe(true));
      expect(parseNote((await parts.audit.checkpoint())?.signed ?? "").signatures).toHaveLength(1);
    }
    witness.behave("well");
    await parts.covered(await appendEntries(log, 3));
    await eventually(async () => expect(parseNote((await parts.audit.checkpoint())?.signed ?? "").signatures).toHaveLength(2), 20_000);
  });

  it.each([
    "nonsense",
    "a b",
    "witness.example+12b39042+BJxuetQWuYQ3yxTvhluIN3IJ9uY9qSwGezg8OO2RzXJm",
    "witness.example+12b39042+BJxuetQWuYQ3yxTvhluIN3IJ9uY9qSwGezg8OO2RzXJm ftp://x",
  ])("is not configured by %j", (text) => {
    expect(() => parseWitnesses(text)).toThrow(/^must be /);
  });
});

describe("checkpoints published elsewhere", () => {
  it("are in a file, always the newest, and PUT to an address", async () => {
    await using log = await testLog();
    await using folder = await temporaryFolder();
    const received: string[] = [];
    const server = createServer((request, response) => {
      request.setEncoding("utf8").on("data", (text: string) => received.push(`${request.method} ${request.url} ${text}`));
      request.on("end", () => response.writeHead(204).end());
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    await using _server = { [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())) };
    const parts = auditParts(log.db);
    const file = join(folder.path, "checkpoint");
    const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/log`);
    const announcer = createAnnouncer({ ...parts, witnesses: [], file: createCheckpointFile(file), url, logger: createLogger("silent") });
    await using _keeper = keepTree(parts, { onSigned: announcer.announce });
    for (const growth of [2, 7]) {
      const { size } = await parts.covered(await appendEntries(log, growth));
      const signed = (await parts.audit.checkpoint())?.signed;
      await eventually(async () => expect(await readFile(file, "utf8")).toBe(signed));
      await eventually(() => expect(received.at(-1)).toBe(`PUT /log ${signed}`));
      expect(openCheckpoint(await readFile(file, "utf8"), [SIGNER.verifier]).size).toBe(size);
    }
  });
});
