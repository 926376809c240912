import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it, onTestFinished } from "vitest";
import { ConfigError, loadConfig, VARIABLES } from "../src/config.ts";
import { configurationTable } from "../tools/configuration-table.ts";

const KEY = Buffer.from(Array.from({ length: 32 }, (_, n) => n)).toString("base64");
const OTHER_KEY = Buffer.from(Array.from({ length: 32 }, (_, n) => 100 + n)).toString("base64");
const ZERO_KEY = Buffer.alloc(32).toString("base64");

const PRODUCTION = {
  NODE_ENV: "production",
  MONGODB_URL: "mongodb://one,two/?replicaSet=rs0",
  NATS_URL: "nats://one",
  MASTER_KEYS: KEY,
  AUDIT_ORIGIN: "orders.example.com/audit",
  AUDIT_KEYS: OTHER_KEY,
  ERASURES_FILE: "/kept/erasures",
};

/** Every convenience of development: what brings it about, and what production says. docs/channels.md has the same list. */
const CONVENIENCES: readonly (readonly [string, NodeJS.ProcessEnv, RegExp])[] = [
  ["a mongod of its own", { MONGODB_URL: "" }, /^MONGODB_URL must be set in production; for example mongodb:/],
  ["a nats-server of its own", { NATS_URL: "" }, /^NATS_URL must be set in production; for example nats:/],
  [
    "an issuer reached in the clear",
    { TOKEN_ISSUERS: '[{"issuer":"a","jwks_url":"http://b/keys","audience":"c","roles":["customer"]}]' },
    /^TOKEN_ISSUERS must have a jwks_url with https:\/\/ for a in production, unless it is on this machine/,
  ],
  ["Uber played in the clear", { UBER_BASE_URL: "http://127.0.0.1:1" }, /^UBER_BASE_URL must be an address with https:\/\/ in production/],
  [
    "Uber's tokens in the clear",
    { UBER_AUTH_URL: "http://127.0.0.1:1" },
    /^UBER_AUTH_URL must be an address with https:\/\/ in production/,
  ],
  [
    "DoorDash played in the clear",
    { DOORDASH_BASE_URL: "http://127.0.0.1:2" },
    /^DOORDASH_BASE_URL must be an address with https:\/\/ in prod/,
  ],
  ["a master key of its own", { MASTER_KEYS: "" }, /^MASTER_KEYS or MASTER_KEYS_FILE must be set in production; for example/],
  ["a file of erasures of its own", { ERASURES_FILE: "" }, /^ERASURES_FILE must be set in production; for example/],
  ["an origin of its own for checkpoints", { AUDIT_ORIGIN: "" }, /^AUDIT_ORIGIN must be set in production; for example/],
  ["a key of its own for checkpoints", { AUDIT_KEYS: "" }, /^AUDIT_KEYS or AUDIT_KEYS_FILE must be set in production; for example/],
  ["pages of any origin", { CORS_ORIGINS: "https://a.example, *" }, /^CORS_ORIGINS must not be \* in production: list the origins/],
];

describe("loadConfig", () => {
  it("needs nothing to be set for development", () => {
    const config = loadConfig({});
    expect(config).toMatchObject({ production: false, databaseName: "grocery_delivery", grpcPort: 50051, httpPort: 8080, corsOrigins: [] });
    expect(config.mongodbUrl).toBeUndefined();
    expect(config.masterKeys).toBeUndefined();
    expect([...config.roles]).toEqual(["api", "projector", "relay", "timers", "couriers", "notifier"]);
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
      redisUrl: undefined,
      corsOrigins: ["https://a.example", "http://localhost:3000"],
      httpPort: 0,
    });
    expect([...config.roles]).toEqual(["projector"]);
    expect(config.masterKeys?.byId.size).toBe(1);
    expect([config.erasuresFile, config.retentionDays]).toEqual(["/kept/erasures", undefined]);
    expect(loadConfig({}).erasuresFile).toBeUndefined();
    expect(loadConfig({ RETENTION_DAYS: "90" }).retentionDays).toBe(90);
    expect(problemsOf({ RETENTION_DAYS: "0" })).toEqual([
      expect.stringMatching(/^RETENTION_DAYS is "0", but must be a whole number from 1/),
    ]);
  });

  it("names all that is wrong at once, and how it would be right", () => {
    expect(
      problemsOf({ GRPC_PORT: "high", HTTP_PORT: "65536", ROLES: "api,cook", CORS_ORIGINS: "https://a.example/path", LOG_LEVEL: "loud" }),
    ).toEqual([
      'ROLES is "cook", but must be api or projector or relay or timers or couriers or notifier; for example api,projector',
      'GRPC_PORT is "high", but must be a whole number from 0 to 65535; for example 50051',
      'HTTP_PORT is "65536", but must be a whole number from 0 to 65535; for example 8080',
      'CORS_ORIGINS has "https://a.example/path", which is not an origin: scheme, host and port only; for example https://orders.example.com',
      'LOG_LEVEL is "loud", but must be debug or info or warn or error or silent; for example debug',
    ]);
  });

  it("takes in production what is set for it", () => {
    expect(loadConfig(PRODUCTION).production).toBe(true);
    const masterKeysFile = keyFile();
    expect(loadConfig({ ...PRODUCTION, MASTER_KEYS: "", MASTER_KEYS_FILE: masterKeysFile })).toMatchObject({ masterKeysFile });
    const onThisMachine = '[{"issuer":"a","jwks_url":"http://127.0.0.1:9000/keys","audience":"c","roles":["customer"]}]';
    expect(loadConfig({ ...PRODUCTION, TOKEN_ISSUERS: onThisMachine }).tokenIssuers[0]?.jwksUrl.hostname).toBe("127.0.0.1");
  });

  it.each(CONVENIENCES)("refuses in production, and allows otherwise: %s", (_convenience, environment, problem) => {
    expect(problemsOf({ ...PRODUCTION, ...environment })).toEqual([expect.stringMatching(problem)]);
    expect(() => loadConfig({ ...PRODUCTION, ...environment, NODE_ENV: "development" })).not.toThrow();
  });

  it("takes an account with a delivery provider as a whole, and shows nothing of its secrets", () => {
    const account = { UBER_CUSTOMER_ID: "c", UBER_CLIENT_ID: "i", UBER_CLIENT_SECRET: "s3cret", UBER_WEBHOOK_KEY: "k3y" };
    expect(loadConfig({}).couriers).toEqual({});
    expect(loadConfig({ ...account, IN_HOUSE_FEE_MINOR: "250" }).couriers).toMatchObject({
      uber: { baseUrl: "https://api.uber.com", customerId: "c", clientSecret: "s3cret" },
      inHouse: { feeMinor: 250, currency: "EUR" },
    });
    expect(problemsOf({ UBER_CLIENT_SECRET: "s3cret", UBER_WEBHOOK_KEY: "k3y" })).toEqual([
      "UBER_CLIENT_SECRET and UBER_WEBHOOK_KEY are set, but UBER_CUSTOMER_ID and UBER_CLIENT_ID not: set all of them, or none",
    ]);
    const wrong = problemsOf({ DOORDASH_SIGNING_SECRET: "not base64!", DOORDASH_WEBHOOK_AUTHORIZATION: "short" }).join();
    expect(wrong).toContain("DOORDASH_SIGNING_SECRET must be base64");
    expect(wrong).toContain("DOORDASH_WEBHOOK_AUTHORIZATION must have 24 characters or more");
    expect(wrong).not.toMatch(/not base64!|"short"/);
  });

  it("refuses in production all of them at once", () => {
    const environment = Object.assign({}, ...CONVENIENCES.map(([, set]) => set));
    expect(problemsOf({ ...PRODUCTION, ...environment })).toHaveLength(CONVENIENCES.length);
  });

  it("refuses in production keys that are nobody's secret, or that stand in two places, and shows nothing of them", () => {
    const repeated = (name: string) =>
      `${name} must not have a key that is the same byte over and over: make it by openssl rand -base64 32`;
    expect(problemsOf({ ...PRODUCTION, MASTER_KEYS: `${KEY},${ZERO_KEY}` })).toEqual([repeated("MASTER_KEYS")]);
    expect(problemsOf({ ...PRODUCTION, AUDIT_KEYS: ZERO_KEY })).toEqual([repeated("AUDIT_KEYS")]);
    expect(problemsOf({ ...PRODUCTION, MASTER_KEYS: `${KEY},${KEY}` })).toEqual(["MASTER_KEYS must not have the same key twice"]);
    const both = { ...PRODUCTION, MASTER_KEYS: "", MASTER_KEYS_FILE: keyFile(), AUDIT_KEYS: `${OTHER_KEY},${KEY}` };
    expect(problemsOf(both)).toEqual(["MASTER_KEYS_FILE and AUDIT_KEYS must not have a key in common: what seals is not to sign"]);
    expect(() => loadConfig({ MASTER_KEYS: ZERO_KEY, AUDIT_KEYS: ZERO_KEY })).not.toThrow();
  });

  it("leaves out no variable without which something is made up", () => {
    const madeUp = VARIABLES.filter(({ description }) => /Not set: .*(of its own|of this instance's own|one made)/.test(description));
    expect(madeUp.map(({ name }) => name)).toEqual(["MONGODB_URL", "NATS_URL", "MASTER_KEYS", "AUDIT_KEYS"]);
    for (const { requiredInProduction, name } of madeUp) expect(requiredInProduction).toContain(name);
  });

  it("shows no secret in what it says is wrong", () => {
    const secret = "s3cr3t";
    const problems = problemsOf({
      MONGODB_URL: `http://me:${secret}@host`,
      MASTER_KEYS: secret,
      NATS_URL: `${secret}@host`,
      REDIS_URL: `http://${secret}@host`,
    });
    expect(problems).toHaveLength(4);
    expect(problems.join()).not.toContain(secret);
  });

  it("refuses values that contradict each other", () => {
    expect(problemsOf({ MASTER_KEYS: KEY, MASTER_KEYS_FILE: "/nowhere" }).join()).toContain("both set");
    expect(problemsOf({ DEFAULT_DEADLINE_MS: "2000", MAX_DEADLINE_MS: "1000" }).join()).toContain("must not be more than");
  });

  it.each([
    ["not json", "must be JSON"],
    ["{}", "must be a JSON array"],
    ["[1]", "an object for each issuer"],
    ['[{"issuer":"a"}]', "must say the jwks_url"],
    ['[{"issuer":"a","jwks_url":"ftp://b","audience":"c","roles":["customer"]}]', "begins with https://"],
    ['[{"issuer":"a","jwks_url":"https://b","audience":"c"}]', "must say in roles which of service, customer"],
    ['[{"issuer":"a","jwks_url":"https://b","audience":"c","roles":["admin"]}]', "must say in roles"],
    ['[{"issuer":"a","jwks_url":"https://b","audience":"c","roles":["link"]}]', "must say in roles"],
    ['[{"issuer":"a","jwks_url":"https://b","audience":"c","roles":["customer"],"secret":"d"}]', "must not have the member secret"],
    ['[{"issuer":"ordertrail","jwks_url":"https://b","audience":"c","roles":["customer"]}]', "which is JWT_ISSUER"],
  ])("refuses %j as TOKEN_ISSUERS", (text, message) => {
    expect(problemsOf({ TOKEN_ISSUERS: text }).join()).toContain(message);
  });

  it("demands https of other issuers in production", () => {
    const issuers = '[{"issuer":"a","jwks_url":"http://b/keys","audience":"c","roles":["customer"]}]';
    expect(problemsOf({ ...PRODUCTION, TOKEN_ISSUERS: issuers }).join()).toContain("https:// for a in production");
    expect(loadConfig({ TOKEN_ISSUERS: issuers }).tokenIssuers).toHaveLength(1);
  });

  it("has an example for every variable that it accepts itself", () => {
    const checkable = VARIABLES.filter(({ name }) => !/^(MASTER|AUDIT)_KEYS|^FIREBASE_API_KEY/.test(name));
    // Files must be there.
    const here = fileURLToPath(import.meta.url);
    const examples = Object.fromEntries(checkable.map(({ name, example }) => [name, name.endsWith("_FILE") ? here : example]));
    expect(() => loadConfig({ ...examples, MASTER_KEYS: KEY, AUDIT_KEYS: OTHER_KEY })).not.toThrow();
  });
});

describe("files for TLS", () => {
  const file = fileURLToPath(import.meta.url);

  it("are none, and the ports speak in the clear, unless they are set", () => {
    expect(loadConfig({})).toMatchObject({
      grpcTls: undefined,
      httpTls: undefined,
      mongodbTls: { caFile: undefined },
      cliTls: { caFile: undefined },
    });
  });

  it.each(["GRPC", "HTTP"])("are those of one port: %s", (door) => {
    const set = { [`${door}_TLS_CERT_FILE`]: file, [`${door}_TLS_KEY_FILE`]: file, [`${door}_TLS_CLIENT_CA_FILE`]: file };
    const tls = { certFile: file, keyFile: file, clientCaFile: file, clientCert: "required" };
    const [grpcTls, httpTls] = door === "GRPC" ? [tls, undefined] : [undefined, tls];
    expect(loadConfig(set)).toMatchObject({ grpcTls, httpTls });
    expect(loadConfig({ ...set, [`${door}_TLS_CLIENT_CERT`]: "optional" })).toMatchObject(
      door === "GRPC" ? { grpcTls: { clientCert: "optional" } } : { httpTls: { clientCert: "optional" } },
    );
  });

  it("are refused one without the other, or where they cannot be read", () => {
    expect(
      problemsOf({ GRPC_TLS_CERT_FILE: file, HTTP_TLS_KEY_FILE: file, HTTP_TLS_CLIENT_CERT: "optional", CLI_CERT_FILE: file }),
    ).toEqual([
      "GRPC_TLS_CERT_FILE is set, but GRPC_TLS_KEY_FILE is not: set both",
      "HTTP_TLS_KEY_FILE is set, but HTTP_TLS_CERT_FILE is not: set both",
      "HTTP_TLS_CLIENT_CERT is set, but HTTP_TLS_CLIENT_CA_FILE is not: set both",
      "CLI_CERT_FILE is set, but CLI_KEY_FILE is not: set both",
    ]);
    expect(problemsOf({ MONGODB_TLS_CA_FILE: "/nowhere/ca.pem" })).toEqual([
      "MONGODB_TLS_CA_FILE names a file that cannot be read (ENOENT); for example /etc/ordertrail/mongodb-ca.pem",
    ]);
  });
});

describe("docs/channels.md", () => {
  it("lists what production refuses", () => {
    const page = readFileSync(new URL("../docs/channels.md", import.meta.url), "utf8");
    const section = page.slice(page.indexOf("## What production refuses"));
    for (const [, environment] of CONVENIENCES) for (const name of Object.keys(environment)) expect(section).toContain(`\`${name}\``);
  });
});

describe("README.md", () => {
  it("has the table of configuration as `node tools/configuration-table.ts` writes it", () => {
    expect(readFileSync(new URL("../README.md", import.meta.url), "utf8")).toContain(configurationTable());
  });
});

/** A file with a master key, as a secret store would mount it. */
function keyFile(): string {
  const path = join(mkdtempSync(join(tmpdir(), "ordertrail-config-")), "master_keys");
  writeFileSync(path, KEY);
  onTestFinished(() => rmSync(dirname(path), { recursive: true }));
  return path;
}

function problemsOf(environment: NodeJS.ProcessEnv): string[] {
  try {
    loadConfig(environment);
  } catch (error) {
    if (error instanceof ConfigError) return error.message.split("\n  ").slice(1);
  }
  throw new Error("the configuration was not refused");
}
