import { generateKeyPairSync } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parseRetryAfter } from "../../src/channels/http-retry-after.ts";
import { createInApp } from "../../src/channels/in-app.ts";
import { createProviderCalls } from "../../src/channels/provider-calls.ts";
import { parseServiceAccount } from "../../src/channels/service-account.ts";
import { createOutbox } from "../../src/sandbox/outbox.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { aMessage, never } from "./messages.ts";

describe("a service account", () => {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const pem = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  const good = { type: "service_account", project_id: "shop", client_email: "a@shop.example", private_key: pem };
  const json = (more: object = {}) => JSON.stringify({ ...good, ...more });

  it("is read from its JSON, or from the file at a path", async () => {
    const expected = { projectId: "shop", clientEmail: "a@shop.example", privateKey: pem };
    expect(parseServiceAccount(` ${json()}\n`)).toEqual(expected);
    await using folder = await temporaryFolder();
    const path = join(folder.path, "account.json");
    await writeFile(path, json());
    expect(parseServiceAccount(path)).toEqual(expected);
  });

  it.each([
    ["", /empty/],
    [`AIza${"x".repeat(35)}`, /web API key/],
    [`AAAAabcdefg:APA91b${"x".repeat(134)}`, /legacy API/],
    ["/no/such/file", /neither JSON nor the path/],
    ["{ not json", /not a JSON object/],
    [json({ type: "authorized_user" }), /"type"/],
    [JSON.stringify({ project_info: {} }), /google-services/],
    [json({ project_id: undefined }), /"project_id"/],
    [json({ client_email: "" }), /"client_email"/],
    [json({ private_key: "s3cret" }), /"private_key" is no private key/],
  ])("says what is wrong with %j, and shows nothing of it", (given, expected) => {
    expect(() => parseServiceAccount(given)).toThrow(expected);
    try {
      parseServiceAccount(given);
    } catch (error) {
      expect(String((error as Error).stack)).not.toMatch(/xxxxx|s3cret|no\/such/);
    }
  });
});

describe("the in-app channel", () => {
  it("reaches everybody and takes all at once, under our own reference", async () => {
    expect(createInApp().reaches({})).toBe(true);
    expect(await createInApp().send(aMessage(), never())).toEqual({ providerMessageId: "812.customer.test" });
  });
});

describe("the ledger of calls", () => {
  it("counts by provider and outcome", () => {
    const calls = createProviderCalls();
    calls.record("meta", "accepted", 5);
    calls.record("meta", "accepted", 7);
    calls.record("meta", "190", 1);
    expect(calls.read()).toEqual([
      { provider: "meta", outcome: "accepted", calls: 2, totalMs: 12 },
      { provider: "meta", outcome: "190", calls: 1, totalMs: 1 },
    ]);
  });
});

describe("Retry-After", () => {
  it("is seconds or a date", () => {
    expect(parseRetryAfter("7")).toBe(7000);
    expect(parseRetryAfter("Thu, 01 Jan 1970 00:00:00 GMT")).toBe(0);
    for (const wrong of [null, undefined, "", "soon", "-1", "1.5", "99999999999"]) expect(parseRetryAfter(wrong)).toBeUndefined();
  });
});

describe("the outbox", () => {
  it("holds so many messages, and the oldest make room", () => {
    const outbox = createOutbox(2);
    for (const id of ["1", "2", "3"]) outbox.add({ channel: "push", id, to: "", text: "", at: new Date() });
    expect(outbox.all().map(({ id }) => id)).toEqual(["2", "3"]);
    outbox.clear();
    expect(outbox.all()).toEqual([]);
  });
});
