import { MongoClient } from "mongodb";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startNatsServer } from "../../src/embedded/nats-server.ts";
import { holdReplication } from "../support/hold-replication.ts";
import { type ReplicaSet, startReplicaSet } from "../support/mongo.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { type Campaign, startCampaign } from "./campaign.ts";
import { COUNTS } from "./counts.ts";
import { createRandom } from "./random.ts";

/** How long the writers may be without an answer around a fault. */
const LONGEST_SILENCE_MS = 20_000;

const random = createRandom(COUNTS.seed);
let set: ReplicaSet;

beforeAll(async () => {
  set = await startReplicaSet({ members: 3, electionTimeoutMillis: 1000 });
});
afterAll(() => set[Symbol.asyncDispose]());

async function stepDown(): Promise<void> {
  await set.stepDown();
}

/** Every other time the primary dies with entries that nobody else has: otherwise copies are too quick for that. */
async function killPrimary(campaign: Campaign): Promise<void> {
  const primary = await set.primary();
  // A checkpoint: from an old one, mongod 6.0 takes minutes to roll back a document that changes as often as a writer's session.
  await set.command(primary, { fsync: 1 });
  const letGo = random(2) === 0 ? await holdReplication(set, primary) : undefined;
  if (letGo) await campaign.entriesOfPrimaryAlone();
  await set.kill(primary);
  await letGo?.();
  try {
    await campaign.progress(1 + random(50));
  } finally {
    await set.restart(primary);
  }
}

async function freezePrimary(campaign: Campaign): Promise<void> {
  const primary = await set.primary();
  await set.pause(primary);
  try {
    await campaign.progress(1 + random(50));
  } finally {
    set.resume(primary);
  }
}

const FAULTS = [
  ["steps down", COUNTS.stepDowns, stepDown],
  ["is killed", COUNTS.primaryKills, killPrimary],
  ["freezes", COUNTS.freezes, freezePrimary],
] as const;

const CASES = [
  ...FAULTS.map(([what, count, strike]) => ({ who: "two writers", what, count, strike, shared: false })),
  ...FAULTS.map(([what, count, strike]) => ({
    ...{ who: "two that share a writer", what, count: Math.floor(count / 3), strike, shared: true },
  })),
].filter(({ count }) => count > 0);

describe.each(CASES)("$who, while the primary $what", ({ what, count, strike, shared }) => {
  it(`${count} times (seed ${COUNTS.seed}), lose nothing acknowledged, leave no gap, record no request twice, and soon go on`, {
    timeout: 60_000 + count * 40_000,
  }, async () => {
    await using nats = shared ? await ownNats() : undefined;
    const database = `${what.replace(" ", "_")}${shared ? "_shared" : ""}`;
    await using campaign = await startCampaign(set.url, database, 2, COUNTS.seed, nats?.url);
    await campaign.progress(1);
    for (let time = 0; time < count; time++) {
      await wholeSet();
      await campaign.progress(1 + random(500));
      await strike(campaign);
      await campaign.progress(1);
    }
    await wholeSet();
    const { acknowledged, longestSilenceMs } = await campaign.verify();
    expect(acknowledged).toBeGreaterThan(10 * count);
    expect(longestSilenceMs).toBeLessThan(LONGEST_SILENCE_MS);
  });
});

/** A nats-server for one test. */
async function ownNats() {
  const folder = await temporaryFolder();
  const nats = await startNatsServer({ dataDir: folder.path });
  return {
    url: nats.url,
    async [Symbol.asyncDispose]() {
      await nats.kill();
      await folder[Symbol.asyncDispose]();
    },
  };
}

/**
 * Waits until every member copies again, so that the set can bear the next loss. That a member calls itself a secondary is
 * not enough: one that is yet to roll back cannot vote, and with the primary gone as well there would be no majority.
 */
async function wholeSet(): Promise<void> {
  await using client = new MongoClient(set.url);
  const writeConcern = { w: set.members.length, wtimeoutMS: 120_000 };
  await client.db("whole_set").collection("probes").insertOne({}, { writeConcern });
}
