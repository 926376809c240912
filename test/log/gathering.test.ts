import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { createGathering } from "../../src/log/gathering.ts";

const FOREVER_MS = 3_600_000;

describe("a gathering", () => {
  it("never keeps a caller waiting who is alone", async () => {
    const gathering = createGathering();
    for (let call = 0; call < 50; call++) await gathering.untilUsual(() => 1, FOREVER_MS);
  });

  it("waits for as many as came before", async () => {
    const gathering = createGathering();
    let waiting = 0;
    for (let batch = 0; batch < 20; batch++) await gathering.untilUsual(() => 30, FOREVER_MS);
    let gathered = false;
    const end = gathering
      .untilUsual(() => waiting, FOREVER_MS)
      .then(() => {
        gathered = true;
      });
    for (waiting = 1; waiting < 29; waiting++) gathering.arrived(waiting);
    await pause(0);
    expect(gathered).toBe(false);
    gathering.arrived(30);
    await end;
  });

  it("is content with fewer when no more come", async () => {
    const gathering = createGathering();
    for (let batch = 0; batch < 20; batch++) await gathering.untilUsual(() => 30, FOREVER_MS);
    for (let batch = 0; batch < 20; batch++) await gathering.untilUsual(() => 1, 1);
    await gathering.untilUsual(() => 1, FOREVER_MS);
  });
});
