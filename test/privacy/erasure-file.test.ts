import { appendFile, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { openErasureFile } from "../../src/privacy/erasure-file.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const erasureOf = (person: string) => ({
  person,
  requestedAt: new Date("2026-01-02T03:04:05Z"),
  requestedBy: { role: 7, subject: "operator-1" },
});

describe("the file of erasures", () => {
  it("holds each person once, for its owner only, and is read again by the next process", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "deeper", "erasures.ndjson");
    const file = await openErasureFile(path);
    expect([...file.all()]).toEqual([]);
    await Promise.all(["customer-1", "customer-2", "customer-1"].map((person) => file.add(erasureOf(person))));
    const lines = (await readFile(path, "utf8")).split("\n").filter((line) => line !== "");
    expect(lines.map((line) => JSON.parse(line).person)).toEqual(["customer-1", "customer-2"]);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    const again = await openErasureFile(path);
    expect([...again.all()]).toEqual([erasureOf("customer-1"), erasureOf("customer-2")]);
    expect(again.unreadable).toEqual([]);
  });

  it("goes on after a line that a crash has broken off, and tells of it", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "erasures.ndjson");
    await (await openErasureFile(path)).add(erasureOf("customer-1"));
    await appendFile(path, '\n{"person":"custo');
    const file = await openErasureFile(path);
    await file.add(erasureOf("customer-2"));
    const again = await openErasureFile(path);
    expect([...again.all()].map(({ person }) => person)).toEqual(["customer-1", "customer-2"]);
    expect(again.unreadable).toHaveLength(1);
  });

  it.each([
    "[]",
    "null",
    '{"person":"customer-1"}',
    '{"person":"../x","requested_at":"2026-01-02","requested_by":{"role":7,"subject":""}}',
  ])("takes %j for unreadable", async (line) => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "erasures.ndjson");
    await writeFile(path, `${line}\n`);
    const file = await openErasureFile(path);
    expect([...file.all()]).toEqual([]);
    expect(file.unreadable).toEqual([1]);
  });
});
