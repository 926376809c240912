import { describe, expect, it } from "vitest";
import { testDatabase } from "../support/mongo.ts";
import { startCampaign } from "./campaign.ts";
import { COUNTS } from "./counts.ts";
import { createRandom } from "./random.ts";

describe(`two writers, one of them killed ${COUNTS.writerKills} times in the middle of its work (seed ${COUNTS.seed})`, () => {
  it("lose nothing acknowledged, leave no gap, and record no request twice", {
    timeout: 60_000 + COUNTS.writerKills * 10_000,
  }, async () => {
    await using database = await testDatabase();
    const random = createRandom(COUNTS.seed);
    await using campaign = await startCampaign(database.url, database.name, 2, COUNTS.seed);
    await campaign.progress(1);
    for (let kill = 0; kill < COUNTS.writerKills; kill++) {
      await campaign.progress(1 + random(500));
      await campaign.killWriter();
      await campaign.progress(1);
    }
    const { acknowledged } = await campaign.verify();
    expect(acknowledged).toBeGreaterThan(100 * COUNTS.writerKills);
  });
});
