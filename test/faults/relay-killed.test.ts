import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { startNatsServer } from "../../src/embedded/nats-server.ts";
import { expectMirrorEqualsLog } from "../live/mirror.ts";
import { testDatabase } from "../support/mongo.ts";
import { openLog } from "../support/open-log.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { startCampaign } from "./campaign.ts";
import { COUNTS } from "./counts.ts";
import { createRandom } from "./random.ts";

const RELAY = fileURLToPath(new URL("./relay.ts", import.meta.url));
const PREFIX = "test";

describe(`two relays, while one of them or NATS is killed, or NATS loses its data, ${COUNTS.relayFaults} times (seed ${COUNTS.seed})`, () => {
  it("mirror every entry of two busy writers once, in order, and as it is", {
    timeout: 120_000 + COUNTS.relayFaults * 20_000,
  }, async () => {
    await using database = await testDatabase();
    await using folder = await temporaryFolder();
    let nats = await startNatsServer({ dataDir: folder.path });
    const random = createRandom(COUNTS.seed);
    const start = () =>
      spawn(process.execPath, [RELAY, database.url, database.name, nats.url, PREFIX], { stdio: ["pipe", "ignore", "inherit"] });
    const relays: ChildProcess[] = [start(), start()];
    const end = async (relay: ChildProcess | undefined) => {
      if (!relay) return;
      relay.kill("SIGKILL");
      if (relay.exitCode === null && relay.signalCode === null) await once(relay, "exit");
    };
    try {
      await using campaign = await startCampaign(database.url, database.name, 2, COUNTS.seed);
      const faults = [
        async () => {
          const index = random(2);
          await end(relays[index]);
          relays[index] = start();
        },
        async () => {
          await nats.kill();
          await pause(random(1000));
          nats = await startNatsServer({ dataDir: folder.path, port: nats.port });
        },
        async () => {
          await nats.kill();
          await rm(folder.path, { recursive: true });
          nats = await startNatsServer({ dataDir: folder.path, port: nats.port });
        },
      ];
      for (let fault = 0; fault < COUNTS.relayFaults; fault++) {
        await campaign.progress(1 + random(500));
        await pause(random(1500));
        await faults[fault % faults.length]?.();
      }
      const { entries } = await campaign.verify();
      await using log = openLog(database.url, database.name);
      expect(await expectMirrorEqualsLog(nats.port, PREFIX, log, 90_000)).toBe(entries);
    } finally {
      await Promise.all(relays.map(end));
      await nats.kill();
    }
  });
});
