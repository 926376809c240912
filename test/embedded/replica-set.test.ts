import { MongoClient } from "mongodb";
import { describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { startReplicaSet, testDatabase } from "../support/mongo.ts";

describe("startReplicaSet", () => {
  it("gets a new primary when the old one steps down, is killed, or freezes", async () => {
    await using set = await startReplicaSet({ members: 3, electionTimeoutMillis: 500 });
    await using client = new MongoClient(set.url);
    const insert = () =>
      client
        .db("test")
        .collection("kept")
        .insertOne({}, { writeConcern: { w: "majority", journal: true } });
    await insert();

    const deposed = await set.stepDown();
    expect(await set.primary()).not.toBe(deposed);
    await eventually(insert);

    const killed = await set.primary();
    await set.kill(killed);
    expect(await set.primary()).not.toBe(killed);
    await eventually(insert);
    await set.restart(killed);

    const frozen = await set.primary();
    await set.pause(frozen);
    await eventually(async () => expect(await set.primary()).not.toBe(frozen));
    set.resume(frozen);
    await eventually(insert);
  });
});

describe("testDatabase", () => {
  it("is empty and gone afterwards", async () => {
    await using outer = await testDatabase();
    let name: string;
    {
      await using inner = await testDatabase();
      await inner.db.collection("some").insertOne({});
      name = inner.name;
    }
    const { databases } = await outer.client.db("admin").admin().listDatabases();
    expect(databases.map((database) => database.name)).not.toContain(name);
  });
});
