import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { ConfigError, loadConfig, VARIABLES } from "../src/config.ts";
import { configurationTable } from "../tools/configuration-table.ts";

const KEY = Buffer.alloc(32, 1).toString("base64");

const PRODUCTION = {
  NODE_ENV: "production",
  MONGODB_URL: "mongodb://one,two/?replicaSet=rs0",
  JWKS_URL: "https://login.example.com/keys",
  MASTER_KEYS: KEY,
};

describe("loadConfig", () => {
  it("needs nothing to be set for development", () => {
    const config = loadConfig({});
    expect(config).toMatchObject({ production: false, databaseName: "grocery_delivery", grpcPort: 50051, httpPort: 8080, corsOrigins: [] });
    expect(config.mongodbUrl).toBeUndefined();
    expect(config.masterKeys).toBeUndefined();
    expect([...config.roles]).toEqual(["api", "projector"]);
  });

  it("takes what is empty as not set", () => {
    expect(loadConfig({ MONGODB_URL: "", HTTP_PORT: " " })).toEqual(loadConfig({}));
  });

  it("reads every value", () => {
    const config = loadConfig({
      ...PRODUCTION,
      ROLES: "projector",
      CORS_ORIGINS: "https://a.example, http://localhost:3000",
      HTTP_PORT: "0",
    });
    expect(config).toMatchObject({
      production: true,
      mongodbUrl: PRODUCTION.MONGODB_URL,
      corsOrigins: ["https://a.example", "http://localhost:3000"],
      httpPort: 0,
    });
    expect([...config.roles]).toEqual(["projector"]);
    expect(config.jwksUrl?.href).toBe(PRODUCTION.JWKS_URL);
    expect(config.masterKeys?.byId.size).toBe(1);
    expect([config.erasuresFile, config.retentionDays]).toEqual([undefined, undefined]);
    expect(loadConfig({ RETENTION_DAYS: "90", ERASURES_FILE: "/kept/erasures" })).toMatchObject({
      retentionDays: 90,
      erasuresFile: "/kept/erasures",
    });
    expect(problemsOf({ RETENTION_DAYS: "0" })).toEqual([
      expect.stringMatching(/^RETENTION_DAYS is "0", but must be a whole number from 1/),
    ]);
  });

  it("names all that is wrong at once, and how it would be right", () => {
    expect(
      problemsOf({ GRPC_PORT: "high", HTTP_PORT: "65536", ROLES: "api,cook", CORS_ORIGINS: "https://a.example/path", LOG_LEVEL: "loud" }),
    ).toEqual([
      'ROLES is "cook", but must be api or projector; for example api,projector',
      'GRPC_PORT is "high", but must be a whole number from 0 to 65535; for example 50051',
      'HTTP_PORT is "65536", but must be a whole number from 0 to 65535; for example 8080',
      'CORS_ORIGINS has "https://a.example/path", which is not an origin: scheme, host and port only; for example https://orders.example.com',
      'LOG_LEVEL is "loud", but must be debug or info or warn or error or silent; for example debug',
    ]);
  });

  it("demands in production what is made up in development", () => {
    expect(problemsOf({ NODE_ENV: "production" }).map((problem) => problem.split(" must")[0])).toEqual([
      "MONGODB_URL",
      "JWKS_URL",
      "MASTER_KEYS or MASTER_KEYS_FILE",
    ]);
    expect(loadConfig(PRODUCTION).production).toBe(true);
  });

  it("shows no secret in what it says is wrong", () => {
    const secret = "s3cr3t";
    const problems = problemsOf({ MONGODB_URL: `http://me:${secret}@host`, MASTER_KEYS: secret, NATS_URL: `${secret}@host` });
    expect(problems).toHaveLength(3);
    expect(problems.join()).not.toContain(secret);
  });

  it("refuses values that contradict each other", () => {
    expect(problemsOf({ MASTER_KEYS: KEY, MASTER_KEYS_FILE: "/nowhere" }).join()).toContain("both set");
    expect(problemsOf({ DEFAULT_DEADLINE_MS: "2000", MAX_DEADLINE_MS: "1000" }).join()).toContain("must not be more than");
  });

  it("has an example for every variable that it accepts itself", () => {
    const checkable = VARIABLES.filter(({ name }) => !name.startsWith("MASTER_KEYS"));
    const examples = Object.fromEntries(checkable.map(({ name, example }) => [name, example]));
    expect(() => loadConfig({ ...examples, MASTER_KEYS: KEY })).not.toThrow();
  });
});

describe("README.md", () => {
  it("has the table of configuration as `node tools/configuration-table.ts` writes it", () => {
    expect(readFileSync(new URL("../README.md", import.meta.url), "utf8")).toContain(configurationTable());
  });
});

function problemsOf(environment: NodeJS.ProcessEnv): string[] {
  try {
    loadConfig(environment);
  } catch (error) {
    if (error instanceof ConfigError) return error.message.split("\n  ").slice(1);
  }
  throw new Error("the configuration was not refused");
}
