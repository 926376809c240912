import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { Sealed } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { type RotationProgress, rotateKeys } from "../../src/privacy/key-rotation.ts";
import type { KeyWrapper } from "../../src/privacy/key-wrapper.ts";
import { createKeyWrapper } from "../../src/privacy/key-wrapper.ts";
import { parseMasterKeys } from "../../src/privacy/master-key.ts";
import { createPersonalKeys } from "../../src/privacy/personal-keys.ts";
import { type TestDatabase, testDatabase } from "../support/mongo.ts";

const clock = () => new Date();
const [older, newer] = [randomBytes(32).toString("base64"), randomBytes(32).toString("base64")];
const idOf = (text: string) => parseMasterKeys(text).newest.id;
const wrapperOf = (text: string) => createKeyWrapper(() => parseMasterKeys(text), clock);

describe("rotating the master key", () => {
  it("wraps every personal key under the newest, in batches, and tells how far it is", async () => {
    await using database = await testDatabase();
    const sealed = await sealFor(database, 450, older);
    const steps = await rotate(database, await wrapperOf(`${newer},${older}`));
    expect(steps.map(({ rewrapped, done }) => [rewrapped, done])).toEqual([
      [200, false],
      [400, false],
      [450, false],
      [450, true],
    ]);
    expect(steps[0]?.left).toEqual([{ masterKeyId: idOf(older), keys: 250 }]);
    expect(steps.at(-1)).toEqual({ masterKeyId: idOf(newer), rewrapped: 450, left: [], done: true });
    await expectOpen(database, sealed, newer);
    expect(await rotate(database, await wrapperOf(newer))).toEqual([{ masterKeyId: idOf(newer), rewrapped: 0, left: [], done: true }]);
  });

  it("passes over keys whose master key is not given, and tells of them", async () => {
    await using database = await testDatabase();
    const lost = await sealFor(database, 3, older);
    const third = randomBytes(32).toString("base64");
    const kept = await sealFor(database, 2, third, "driver");
    const steps = await rotate(database, await wrapperOf(`${newer},${third}`));
    expect(steps.at(-1)).toEqual({
      masterKeyId: idOf(newer),
      rewrapped: 2,
      left: [{ masterKeyId: idOf(older), keys: 3 }],
      done: true,
    });
    await expectOpen(database, kept, newer);
    await expectOpen(database, lost, older);
  });

  it("does not bring back a key that is destroyed meanwhile", async () => {
    await using database = await testDatabase();
    await sealFor(database, 10, older);
    const wrapper = await wrapperOf(`${newer},${older}`);
    let left = 5;
    const meddling: KeyWrapper = {
      ...wrapper,
      async unwrap(wrapped, binding) {
        if (left-- === 0) await database.db.collection("personal_keys").deleteMany({ person: { $in: ["customer-1", "customer-7"] } });
        return wrapper.unwrap(wrapped, binding);
      },
    };
    expect((await rotate(database, meddling)).at(-1)).toMatchObject({ rewrapped: 8, left: [], done: true });
    expect(await database.db.collection("personal_keys").countDocuments()).toBe(8);
  });

  it("is done by two at a time without harm", async () => {
    await using database = await testDatabase();
    const sealed = await sealFor(database, 450, older);
    const ends = await Promise.all([1, 2].map(async () => (await rotate(database, await wrapperOf(`${newer},${older}`))).at(-1)));
    expect(ends.reduce((sum, end) => sum + (end?.rewrapped ?? 0), 0)).toBe(450);
    await expectOpen(database, sealed, newer);
  });
});

async function sealFor({ db }: TestDatabase, count: number, masterKeys: string, kind = "customer"): Promise<Sealed[]> {
  const keys = createPersonalKeys(db, await wrapperOf(masterKeys), clock);
  const people = Array.from({ length: count }, (_, n) => `${kind}-${n}`);
  return (await Promise.all(people.map((person) => keys.seal(person, Buffer.from("Ada"), "order-1/note")))) as Sealed[];
}

async function rotate({ db }: TestDatabase, wrapper: KeyWrapper): Promise<RotationProgress[]> {
  const steps: RotationProgress[] = [];
  for await (const step of rotateKeys(db, wrapper, AbortSignal.timeout(20_000))) steps.push(step);
  return steps;
}

async function expectOpen({ db }: TestDatabase, sealed: readonly Sealed[], masterKeys: string): Promise<void> {
  const keys = createPersonalKeys(db, await wrapperOf(masterKeys), clock);
  const opened = await keys.openMany(sealed.map((one) => ({ sealed: one, context: "order-1/note" })));
  expect(opened.map((bytes) => Buffer.from(bytes ?? []).toString())).toEqual(sealed.map(() => "Ada"));
}
