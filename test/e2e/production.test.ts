import { describe, expect, it } from "vitest";
import { startTestApp } from "../support/app.ts";

const PRODUCTION = {
  NODE_ENV: "production",
  MONGODB_URL: "mongodb://the.test.knows.better",
  NATS_URL: "nats://127.0.0.1:1",
  JWKS_URL: "https://issuer.test/keys",
  MASTER_KEYS: Buffer.alloc(32, 1).toString("base64"),
};

describe("the application in production", () => {
  it("publishes no keys of its own, and warns of a port that speaks to other machines in the clear", async () => {
    await using app = await startTestApp({ ...PRODUCTION, GRPC_HOST: "0.0.0.0" });
    expect((await fetch(`${app.http}/.well-known/jwks.json`)).status).toBe(404);
    const warnings = app.log.map((line) => JSON.parse(line)).filter(({ msg }) => msg.startsWith("no TLS"));
    expect(warnings).toEqual([
      expect.objectContaining({ level: "warn", host: "0.0.0.0", msg: expect.stringContaining("set GRPC_TLS_CERT_FILE") }),
    ]);
  });

  it("warns of nothing on this machine alone, nor in development", async () => {
    for (const environment of [PRODUCTION, { GRPC_HOST: "0.0.0.0" }]) {
      await using app = await startTestApp(environment);
      expect(app.log.join("")).not.toContain("no TLS");
    }
  });
});
