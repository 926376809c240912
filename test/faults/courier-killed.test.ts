import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { describe, expect, inject, it } from "vitest";
import { CLERK, type Delivering, startDelivering } from "../support/delivering.ts";
import { eventually } from "../support/eventually.ts";
import { COUNTS } from "./counts.ts";
import { createRandom } from "./random.ts";

const SCRIPT = fileURLToPath(new URL("delivery-process.ts", import.meta.url));

/** Requests a courier by a process of its own, which is killed when told so. */
async function requestAndDie(test: Delivering, orderId: string, untilDeath: () => Promise<unknown>): Promise<void> {
  const { app, uber } = test;
  const args = [SCRIPT, inject("mongodbUrl"), app.databaseName, app.dataDir, uber.url];
  const victim = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(victim, "close");
  try {
    const [address] = (await once(victim.stdout, "data")) as [Buffer];
    const answer = fetch(`${String(address).trim()}/orders/tracking/${orderId}/delivery`, {
      method: "POST",
      headers: { authorization: `Bearer ${await app.token(CLERK)}`, "content-type": "application/json" },
      body: JSON.stringify({ delivery_provider: "UBER", request_id: "r-1" }),
    }).catch(() => undefined);
    await untilDeath();
    victim.kill("SIGKILL");
    await answer;
  } finally {
    victim.kill("SIGKILL");
    await ended;
  }
}

const deliveryEvents = async (test: Delivering, orderId: string) =>
  (await test.history(orderId)).filter((type) => type.startsWith("Delivery"));

describe(`a process killed while it requests a courier (seed ${COUNTS.seed})`, () => {
  it.each([
    ["when the provider has made the delivery, and not answered", "lose"],
    ["when the provider has not made it yet", "hang"],
  ] as const)("%s: another finishes it, and there is one delivery", async (_, how) => {
    await using test = await startDelivering();
    await test.order("o-1");
    test.uber.fail("create", how, 1);
    await requestAndDie(test, "o-1", () => eventually(() => expect(test.uber.calls["create"]).toBe(1)));
    expect(await deliveryEvents(test, "o-1")).toEqual(["DeliveryRequested"]);
    await eventually(async () => expect(await deliveryEvents(test, "o-1")).toEqual(["DeliveryRequested", "DeliveryAccepted"]));
    expect([...test.uber.deliveries.keys()]).toEqual(["o-1/1"]);
    const { body } = await test.app.rest(CLERK, "POST", "/orders/tracking/o-1/delivery", { delivery_provider: "UBER", request_id: "r-1" });
    expect(body.order.delivery).toMatchObject({ provider_delivery_id: "uber-1", attempt: 1, state: "ACCEPTED" });
    expect(test.uber.deliveries.size).toBe(1);
  });

  it(`at random, ${COUNTS.courierKills} times: what was recorded is finished, what was not was never asked for`, {
    timeout: 30_000 + COUNTS.courierKills * 15_000,
  }, async () => {
    await using test = await startDelivering();
    const random = createRandom(COUNTS.seed);
    for (let kill = 0; kill < COUNTS.courierKills; kill++) {
      const orderId = `o-${kill}`;
      await test.order(orderId);
      await requestAndDie(test, orderId, () => pause(random(120)));
      const recorded = await deliveryEvents(test, orderId);
      if (recorded.length > 0)
        await eventually(async () => expect(await deliveryEvents(test, orderId)).toEqual(["DeliveryRequested", "DeliveryAccepted"]));
      const made = [...test.uber.deliveries.keys()].filter((key) => key.startsWith(`${orderId}/`));
      expect(made, orderId).toEqual(recorded.length > 0 ? [`${orderId}/1`] : []);
    }
  });
});
