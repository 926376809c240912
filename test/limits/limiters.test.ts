import { setTimeout as pause } from "node:timers/promises";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createLimiters, type Limiter, type Limiters } from "../../src/limits/limiters.ts";
import { eventually } from "../support/eventually.ts";
import { startTestValkey, type TestValkey } from "../support/valkey.ts";

const A_MINUTE = { name: "test", points: 5, seconds: 60 };

let valkey: TestValkey;
beforeAll(async () => {
  valkey = await startTestValkey();
});
afterAll(() => valkey[Symbol.asyncDispose]());

type Logged = { readonly level: number; readonly msg: string };

/** Limiters as a process has them, once they are connected; those of one prefix share their limits. */
async function aProcess({ redisUrl = valkey.url, prefix }: { redisUrl?: string | undefined; prefix: string }) {
  const logged: Logged[] = [];
  const logger = pino({ level: "debug" }, { write: (line) => logged.push(JSON.parse(line)) });
  const limiters = createLimiters({ redisUrl, prefix, logger });
  await eventually(() => limiters.check());
  const levels = () => logged.map(({ level }) => pino.levels.labels[level]);
  return { ...limiters, levels, [Symbol.asyncDispose]: () => limiters.stop() };
}

async function inMemory(): Promise<Limiters> {
  return createLimiters({ redisUrl: undefined, prefix: "memory", logger: pino({ level: "silent" }) });
}

/** How many of so many calls at once are allowed. */
async function allowedOf(limiter: Limiter, calls: number, key: string): Promise<number> {
  const taken = await Promise.all(Array.from({ length: calls }, () => limiter.take(key)));
  return taken.filter(({ allowed }) => allowed).length;
}

/** How much each process allows a key of its own, when it is asked often. */
async function allowedByEach(processes: readonly Limiter[], key: string): Promise<number[]> {
  return Promise.all(processes.map((limiter) => allowedOf(limiter, 20, key)));
}

describe.each([["with Valkey"], ["in memory"]])("a limiter %s", (where) => {
  const make = (prefix: string): Promise<Limiters> => (where === "in memory" ? inMemory() : aProcess({ prefix }));

  it("allows each key so much, and says when there is more", async () => {
    const limiters = await make("each");
    const limiter = limiters.limiter(A_MINUTE);
    expect(await allowedOf(limiter, 20, "one")).toBe(5);
    const { allowed, retryAfterMs } = await limiter.take("one");
    expect(allowed).toBe(false);
    expect(retryAfterMs).toBeGreaterThan(50_000);
    expect(retryAfterMs).toBeLessThanOrEqual(60_000);
    expect(await limiter.take("two")).toEqual({ allowed: true, retryAfterMs: 0 });
    await limiters.stop();
  });

  it("takes several points at once, and refuses more than there are", async () => {
    const limiters = await make("several");
    const limiter = limiters.limiter(A_MINUTE);
    expect((await limiter.take("one", 3)).allowed).toBe(true);
    expect((await limiter.take("one", 3)).allowed).toBe(false);
    expect((await limiter.take("one", 1)).allowed).toBe(false);
    await limiters.stop();
  });

  it("begins anew when the time is over", async () => {
    const limiters = await make("anew");
    const limiter = limiters.limiter({ name: "second", points: 2, seconds: 1 });
    expect(await allowedOf(limiter, 4, "one")).toBe(2);
    await pause((await limiter.take("one")).retryAfterMs + 20);
    expect(await allowedOf(limiter, 4, "one")).toBe(2);
    await limiters.stop();
  });

  it("keeps limits of other names apart", async () => {
    const limiters = await make("names");
    expect(await allowedOf(limiters.limiter(A_MINUTE), 9, "one")).toBe(5);
    expect(await allowedOf(limiters.limiter({ ...A_MINUTE, name: "other" }), 9, "one")).toBe(5);
    await limiters.stop();
  });

  it.each([{ points: 0 }, { points: 1.5 }, { seconds: 0 }, { seconds: 0.5 }, { seconds: 3_000_000 }])("refuses to be %j", async (wrong) => {
    const limiters = await make("wrong");
    expect(() => limiters.limiter({ ...A_MINUTE, ...wrong })).toThrow(RangeError);
    await limiters.stop();
  });
});

describe("limiters with one Valkey", () => {
  it("share what a key may take, unless they have another prefix", async () => {
    await using one = await aProcess({ prefix: "shared" });
    await using two = await aProcess({ prefix: "shared" });
    await using apart = await aProcess({ prefix: "apart" });
    const limit = { ...A_MINUTE, points: 10 };
    const [a = 0, b = 0] = await allowedByEach([one.limiter(limit), two.limiter(limit)], "key");
    expect(a + b).toBe(10);
    expect(await allowedOf(apart.limiter(limit), 20, "key")).toBe(10);
  });

  it("leave nothing in it that names anybody, nor anything that stays", async () => {
    await using process = await aProcess({ prefix: "named" });
    await process.limiter(A_MINUTE).take("customer-of-that-name");
    const keys = (await valkey.command("KEYS", "ordertrail:named:*")) as string[];
    expect(keys).toEqual([expect.stringMatching(/^ordertrail:named:limit:test:[A-Za-z0-9_-]{43}$/)]);
    const ttl = Number(await valkey.command("PTTL", keys[0] as string));
    expect(ttl).toBeGreaterThan(0);
    expect(ttl).toBeLessThanOrEqual(60_000);
  });

  it("keep limits by themselves while it is dead, and share them again when it is back", async () => {
    await using mortal = await startTestValkey();
    await using one = await aProcess({ redisUrl: mortal.url, prefix: "killed" });
    await using two = await aProcess({ redisUrl: mortal.url, prefix: "killed" });
    const limiters = [one, two].map((process) => process.limiter({ ...A_MINUTE, points: 10 }));
    for (let death = 0; death < 3; death++) {
      const load = underLoad(limiters);
      await pause(100);
      await mortal.kill();
      await pause(100);
      expect(await allowedByEach(limiters, `dead-${death}`)).toEqual([10, 10]);
      await mortal.restart();
      await eventually(() => Promise.all([one.check(), two.check()]));
      const { calls, slowestMs } = await load.stop();
      expect(calls).toBeGreaterThan(100);
      expect(slowestMs).toBeLessThan(1000);
      const [a = 0, b = 0] = await allowedByEach(limiters, `back-${death}`);
      expect(a + b).toBe(10);
    }
    for (const { levels } of [one, two]) expect(levels()).toEqual(["warn", "info", "warn", "info", "warn", "info"]);
  });

  it("go on refusing whom they refused, when it dies", async () => {
    await using mortal = await startTestValkey();
    await using process = await aProcess({ redisUrl: mortal.url, prefix: "refused" });
    const limiter = process.limiter(A_MINUTE);
    expect(await allowedOf(limiter, 9, "one")).toBe(5);
    await mortal.kill();
    expect(await allowedOf(limiter, 9, "one")).toBe(0);
    expect(await allowedOf(limiter, 9, "two")).toBe(5);
  });

  it("wait for no answer of one that is frozen", async () => {
    await using frozen = await startTestValkey();
    await using process = await aProcess({ redisUrl: frozen.url, prefix: "frozen" });
    const limiter = process.limiter({ ...A_MINUTE, points: 1000 });
    expect((await limiter.take("one")).allowed).toBe(true);
    frozen.pause();
    const load = underLoad([limiter]);
    await pause(1500);
    const startedAt = performance.now();
    for (let call = 0; call < 100; call++) expect((await limiter.take("one")).allowed).toBe(true);
    expect(performance.now() - startedAt).toBeLessThan(100);
    await expect(process.check()).rejects.toThrow("cannot be reached");
    frozen.resume();
    await eventually(() => process.check());
    expect((await load.stop()).slowestMs).toBeLessThan(1000);
    expect(process.levels()).toEqual(["warn", "info"]);
  });

  it("work when it is not there from the beginning", async () => {
    const logged: string[] = [];
    const logger = pino({ level: "debug" }, { write: (line) => logged.push(line) });
    const limiters = createLimiters({ redisUrl: "redis://user:secret@127.0.0.1:1", prefix: "absent", logger });
    const limiter = limiters.limiter(A_MINUTE);
    expect(await allowedOf(limiter, 9, "one")).toBe(5);
    await eventually(() => expect(logged).toHaveLength(1));
    await expect(limiters.check()).rejects.toThrow("cannot be reached");
    await pause(300);
    await limiters.stop();
    expect(await allowedOf(limiter, 9, "two")).toBe(5);
    expect(logged).toEqual([expect.stringContaining("each process keeps limits by itself")]);
    expect(logged.join("")).not.toContain("secret");
  });

  it("tell of one that answers, but takes nothing, and keep limits by themselves", async () => {
    await using full = await startTestValkey();
    await using process = await aProcess({ redisUrl: full.url, prefix: "full" });
    await full.command("CONFIG", "SET", "maxmemory", "1");
    await expect(process.check()).rejects.toThrow("OOM");
    expect(await allowedOf(process.limiter(A_MINUTE), 9, "one")).toBe(5);
  });
});

/** Calls without a pause, by many keys, until it is stopped; a call that rejects makes `stop` reject. */
function underLoad(limiters: readonly Limiter[]): { stop(): Promise<{ calls: number; slowestMs: number }> } {
  let isOver = false;
  let calls = 0;
  let slowestMs = 0;
  const running = Promise.all(
    Array.from({ length: 20 }, async (_, worker) => {
      while (!isOver) {
        const startedAt = performance.now();
        await Promise.all(limiters.map((limiter) => limiter.take(`load-${worker}-${calls++ % 50}`)));
        slowestMs = Math.max(slowestMs, performance.now() - startedAt);
        // What is refused from memory takes no time at all.
        await pause(1);
      }
    }),
  );
  return {
    async stop() {
      isOver = true;
      await running;
      return { calls, slowestMs };
    },
  };
}
