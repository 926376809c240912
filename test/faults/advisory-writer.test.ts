import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { startNatsServer } from "../../src/embedded/nats-server.ts";
import { testDatabase } from "../support/mongo.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { startCampaign } from "./campaign.ts";
import { COUNTS } from "./counts.ts";
import { createRandom } from "./random.ts";

/** How long nothing may be acknowledged after a fault: a second or two, on a machine that does other things besides. */
const LONGEST_SILENCE_MS = 5000;

describe(`three writers that let one append for all; it is killed or held, or NATS is killed, ${COUNTS.advisoryFaults} times (seed ${COUNTS.seed})`, () => {
  it("lose nothing acknowledged, leave no gap, record nothing twice, and go on soon", {
    timeout: 60_000 + COUNTS.advisoryFaults * 20_000,
  }, async () => {
    await using database = await testDatabase();
    await using folder = await temporaryFolder();
    let nats = await startNatsServer({ dataDir: folder.path });
    const random = createRandom(COUNTS.seed);
    try {
      await using campaign = await startCampaign(database.url, database.name, 3, COUNTS.seed, nats.url);
      const faults = [
        () => campaign.killAdvisoryWriter(),
        () => campaign.pauseAdvisoryWriter(500 + random(2500)),
        async () => {
          await nats.kill();
          await pause(random(1000));
          nats = await startNatsServer({ dataDir: folder.path, port: nats.port });
        },
      ];
      await campaign.progress(1);
      for (let fault = 0; fault < COUNTS.advisoryFaults; fault++) {
        await campaign.progress(1 + random(500));
        await faults[fault % faults.length]?.();
        await campaign.progress(1);
      }
      const { acknowledged, longestSilenceMs } = await campaign.verify();
      expect(acknowledged).toBeGreaterThan(100 * COUNTS.advisoryFaults);
      expect(longestSilenceMs).toBeLessThan(LONGEST_SILENCE_MS);
    } finally {
      await nats.kill();
    }
  });
});
