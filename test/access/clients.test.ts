import { describe, expect, it } from "vitest";
import { createClients } from "../../src/access/clients.ts";
import { testDatabase } from "../support/mongo.ts";

const picking = { clientId: "picking", role: "service", subject: "picking", storeId: undefined };
const wrong = expect.objectContaining({ reason: "UNAUTHENTICATED" });
const locked = expect.objectContaining({ reason: "RATE_LIMITED", metadata: { retry_after_seconds: expect.stringMatching(/^\d+$/) } });

describe("a client", () => {
  it("is known by its secret, which is kept as a hash that two clients do not share", async () => {
    await using database = await testDatabase();
    const clients = createClients(database.db, () => new Date());
    const secret = await clients.create(picking);
    expect(secret).toMatch(/^otc_[\w-]{43}$/);
    await clients.create({ ...picking, clientId: "packing" });
    await expect(clients.authenticate("picking", secret, "here")).resolves.toMatchObject({ clientId: "picking", role: "service" });
    for (const other of ["", `${secret}x`, secret.slice(0, -1), secret.toUpperCase()]) {
      await expect(clients.authenticate("picking", other, "here")).rejects.toEqual(wrong);
    }
    await expect(clients.authenticate("packing", secret, "here")).rejects.toEqual(wrong);
    const stored = await database.db.collection("auth_clients").find().toArray();
    expect(new Set(stored.map((document) => document["secret"].salt.toString("hex"))).size).toBe(2);
    expect(stored[0]?.["secret"]).toMatchObject({ n: 16_384, r: 8, p: 1 });
    expect(JSON.stringify(stored)).not.toContain(secret.slice(4));
  });

  it("that does not exist takes as long to refuse as a wrong secret", async () => {
    await using database = await testDatabase();
    const clients = createClients(database.db, () => new Date());
    await clients.create(picking);
    const times: Record<"picking" | "nobody", number[]> = { picking: [], nobody: [] };
    for (let round = 0; round < 9; round++) {
      for (const clientId of ["picking", "nobody"] as const) {
        const began = performance.now();
        await expect(clients.authenticate(clientId, "wrong", `address-${round}`)).rejects.toEqual(wrong);
        times[clientId].push(performance.now() - began);
      }
    }
    const [known, unknown] = [times.picking, times.nobody].map((all) => all.toSorted((a, b) => a - b)[4] ?? 0) as [number, number];
    // Without the work of hashing it would take a tenth.
    expect(unknown / known).toBeGreaterThan(0.4);
    expect(unknown / known).toBeLessThan(2.5);
  });

  it("waits after ten wrong secrets from one address, however many are tried at once, and elsewhere does not", async () => {
    await using database = await testDatabase();
    let now = Date.now();
    const clients = createClients(database.db, () => new Date(now));
    const secret = await clients.create(picking);
    const attempts = await Promise.allSettled(Array.from({ length: 20 }, () => clients.authenticate("picking", "wrong", "there")));
    const reasons = attempts.map((attempt) => (attempt.status === "rejected" ? attempt.reason.reason : "ok"));
    expect(reasons.filter((reason) => reason === "UNAUTHENTICATED")).toHaveLength(10);
    expect(reasons.filter((reason) => reason === "RATE_LIMITED")).toHaveLength(10);
    await expect(clients.authenticate("picking", secret, "there")).rejects.toEqual(locked);
    await expect(clients.authenticate("picking", secret, "here")).resolves.toBeDefined();
    now += 6000;
    await expect(clients.authenticate("picking", secret, "there")).resolves.toBeDefined();
  });

  it("waits in all of an IPv6 network that one caller commonly has", async () => {
    await using database = await testDatabase();
    const clients = createClients(database.db, () => new Date(0));
    await clients.create(picking);
    const from = (address: string) => clients.authenticate("picking", "wrong", address);
    for (let host = 0; host < 10; host++) await expect(from(`2001:db8:1:2::${host}`)).rejects.toEqual(wrong);
    await expect(from("2001:db8:1:2:ffff::1")).rejects.toEqual(locked);
    await expect(from("2001:db8:1:3::1")).rejects.toEqual(wrong);
  });

  it("never waits for right ones, and waits everywhere after a hundred wrong ones from anywhere", async () => {
    await using database = await testDatabase();
    const now = Date.now();
    const clients = createClients(database.db, () => new Date(now));
    const secret = await clients.create(picking);
    for (let time = 0; time < 15; time++) await clients.authenticate("picking", secret, "here");
    for (let time = 0; time < 100; time++) {
      await expect(clients.authenticate("picking", "wrong", `address-${time}`)).rejects.toEqual(wrong);
    }
    await expect(clients.authenticate("picking", secret, "here")).rejects.toEqual(locked);
  });

  it("is asked to wait when too many ask at once, rather than that everything else does, and pays nothing for it", async () => {
    await using database = await testDatabase();
    const clients = createClients(database.db, () => new Date(0));
    const secret = await clients.create(picking);
    const sixty = <Outcome>(attempt: (index: number) => Promise<Outcome>) =>
      Promise.allSettled(Array.from({ length: 60 }, (_, index) => attempt(index)));
    const [attempts, honest] = await Promise.all([
      sixty((index) => clients.authenticate(`client-${index}`, "x", `address-${index}`)),
      sixty(() => clients.authenticate("picking", secret, "here")),
    ]);
    const reasons = attempts.map((attempt) => (attempt.status === "rejected" ? attempt.reason.reason : "ok"));
    expect(reasons).toContain("OVERLOADED");
    expect(reasons.filter((reason) => reason === "UNAUTHENTICATED").length).toBeGreaterThanOrEqual(24);
    expect(honest.some(({ status }) => status === "rejected")).toBe(true);
    await expect(clients.authenticate("picking", secret, "here")).resolves.toBeDefined();
  });

  it("that has shown its secret is let in from where others guess names and secrets; they wait after sixty", async () => {
    await using database = await testDatabase();
    const clients = createClients(database.db, () => new Date(0));
    const secret = await clients.create(picking);
    await clients.authenticate("picking", secret, "here");
    const guess = (index: number) => clients.authenticate(`client-${index}`, "x", "here");
    for (let index = 0; index < 60; index++) await expect(guess(index)).rejects.toEqual(wrong);
    const flood = Array.from({ length: 64 }, (_, index) => guess(60 + index));
    const came = Promise.all(Array.from({ length: 8 }, () => clients.authenticate("picking", secret, "here")));
    for (const attempt of await Promise.allSettled(flood)) expect(attempt).toEqual({ status: "rejected", reason: locked });
    await expect(came).resolves.toHaveLength(8);
    await expect(clients.authenticate("picking", secret, "elsewhere")).resolves.toBeDefined();
  });
});
