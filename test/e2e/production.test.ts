import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { createDevelopmentKeys } from "../../src/access/keys.ts";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { startTestApp } from "../support/app.ts";

const PRODUCTION = {
  NODE_ENV: "production",
  MONGODB_URL: "mongodb://the.test.knows.better",
  NATS_URL: "nats://127.0.0.1:1",
  MASTER_KEYS: randomBytes(32).toString("base64"),
  ERASURES_FILE: "/nowhere/yet/erasures.ndjson",
  AUDIT_ORIGIN: "orders.test/audit",
  AUDIT_KEYS: randomBytes(32).toString("base64"),
};

describe("the application in production", () => {
  it("publishes and believes no keys of development, and warns of a port that speaks to other machines in the clear", async () => {
    await using app = await startTestApp({ ...PRODUCTION, GRPC_HOST: "0.0.0.0" });
    const { keys } = (await (await fetch(`${app.http}/.well-known/jwks.json`)).json()) as { keys: { kid: string }[] };
    const kids = (await createDevelopmentKeys(app.dataDir)).jwks.keys.map(({ kid }) => kid);
    expect(kids).not.toEqual([]);
    expect(keys.map(({ kid }) => kid)).not.toEqual(expect.arrayContaining(kids));
    expect((await app.rest({ role: Role.OPERATOR, subject: "me" }, "GET", "/orders/tracking/order-1")).status).toBe(401);
    const warnings = app.log.map((line) => JSON.parse(line)).filter(({ msg }) => msg.startsWith("no TLS"));
    expect(warnings).toEqual([
      expect.objectContaining({ level: "warn", host: "0.0.0.0", msg: expect.stringContaining("set GRPC_TLS_CERT_FILE") }),
    ]);
  });

  it("warns when NATS cannot tell it from others", async () => {
    const warning = async (NATS_URL: string) => {
      await using app = await startTestApp({ ...PRODUCTION, NATS_URL });
      return app.log.join("").includes("nobody is named to NATS");
    };
    expect(await warning("nats://127.0.0.1:1")).toBe(true);
    expect(await warning("nats://ordertrail:secret@127.0.0.1:1,127.0.0.1:2")).toBe(false);
    expect(await warning("nats://token@127.0.0.1:1")).toBe(false);
  });

  it("warns when nothing is there by which limits are shared", async () => {
    for (const [REDIS_URL, isWarned] of [["", true] as const, ["redis://127.0.0.1:1", false] as const]) {
      await using app = await startTestApp({ ...PRODUCTION, REDIS_URL });
      expect(app.log.join("").includes("limits hold for each process by itself")).toBe(isWarned);
    }
  });

  it("warns of nothing on this machine alone, nor in development", async () => {
    for (const environment of [PRODUCTION, { GRPC_HOST: "0.0.0.0" }]) {
      await using app = await startTestApp(environment);
      expect(app.log.join("")).not.toContain("no TLS");
    }
  });
});
