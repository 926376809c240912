import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { parseMasterKeys } from "./privacy/master-key.ts";

/** What a process may do; every one may run any number of times. */
export type ProcessRole = "api" | "projector";

/** One environment variable, for those who set it. */
export type Variable = {
  readonly name: string;
  readonly description: string;
  /** What holds when it is not set. */
  readonly default?: string;
  readonly example: string;
  /** Its value is never shown, nor any part of it. */
  readonly secret?: true;
  /** The variables of which one must be set in production: this one, or another that says the same. */
  readonly requiredInProduction?: readonly string[];
};

type Parsed<T> = Variable & { readonly parse: (text: string) => T };
type Defaulted<T> = Parsed<T> & { readonly default: string };

const defaulted = <T>(variable: Defaulted<T>): Defaulted<T> => variable;
const optional = <T>(variable: Omit<Parsed<T>, "default">): Parsed<T> => variable;

const SETTINGS = {
  production: defaulted({
    name: "NODE_ENV",
    description: "`production`: nothing is made up for development, what is marked as required must be set.",
    default: "development",
    example: "production",
    parse: (text) => oneOf(["development", "test", "production"], text) === "production",
  }),
  mongodbUrl: optional({
    name: "MONGODB_URL",
    description: "MongoDB, a replica set. Not set: `npm start` runs a mongod of its own.",
    example: "mongodb://db1,db2,db3/?replicaSet=rs0",
    secret: true,
    requiredInProduction: ["MONGODB_URL"],
    parse: (text) => urlText(text, ["mongodb:", "mongodb+srv:"]),
  }),
  databaseName: defaulted({
    name: "DATABASE_NAME",
    description: "The database that holds the log and the read models.",
    default: "grocery_delivery",
    example: "grocery_delivery",
    parse: (text) => matching(/^[A-Za-z0-9_-]{1,63}$/, text, "must be 1 to 63 letters, digits, _ and -"),
  }),
  natsUrl: optional({
    name: "NATS_URL",
    description: "NATS with JetStream. Not set: `npm start` runs a nats-server of its own.",
    example: "nats://127.0.0.1:4222",
    secret: true,
    parse: (text) => urlText(text, ["nats:", "tls:"]),
  }),
  roles: defaulted({
    name: "ROLES",
    description: "What this process does: `api` answers calls, `projector` keeps the read models.",
    default: "api,projector",
    example: "api,projector",
    parse: (text): ReadonlySet<ProcessRole> => new Set(list(text).map((role) => oneOf(["api", "projector"], role))),
  }),
  grpcHost: defaulted({
    name: "GRPC_HOST",
    description: "The address on which gRPC listens; `0.0.0.0` for all.",
    default: "127.0.0.1",
    example: "0.0.0.0",
    parse: (text) => text,
  }),
  grpcPort: defaulted({
    name: "GRPC_PORT",
    description: "The port of gRPC; 0 for any that is free.",
    default: "50051",
    example: "50051",
    parse: wholeNumber(0, 65_535),
  }),
  httpHost: defaulted({
    name: "HTTP_HOST",
    description: "The address on which Connect and REST listen; `0.0.0.0` for all.",
    default: "127.0.0.1",
    example: "0.0.0.0",
    parse: (text) => text,
  }),
  httpPort: defaulted({
    name: "HTTP_PORT",
    description: "The port of Connect and REST; 0 for any that is free.",
    default: "8080",
    example: "8080",
    parse: wholeNumber(0, 65_535),
  }),
  corsOrigins: defaulted({
    name: "CORS_ORIGINS",
    description: "Origins of web pages that may call, with commas between; `*` for any. Not set: none.",
    default: "",
    example: "https://orders.example.com",
    parse: (text): readonly string[] => list(text).map(origin),
  }),
  jwksUrl: optional({
    name: "JWKS_URL",
    description: "Where the issuer of tokens publishes its keys. Not set: a key pair of this instance's own, in DATA_DIR.",
    example: "https://login.example.com/.well-known/jwks.json",
    requiredInProduction: ["JWKS_URL"],
    parse: (text) => new URL(urlText(text, ["https:", "http:"])),
  }),
  jwtIssuer: defaulted({
    name: "JWT_ISSUER",
    description: "What a token's `iss` must be.",
    default: "ordertrail",
    example: "https://login.example.com/",
    parse: (text) => text,
  }),
  jwtAudience: defaulted({
    name: "JWT_AUDIENCE",
    description: "What a token's `aud` must be or contain.",
    default: "ordertrail",
    example: "ordertrail",
    parse: (text) => text,
  }),
  jwtClockSkewSeconds: defaulted({
    name: "JWT_CLOCK_SKEW_SECONDS",
    description: "By how much the issuer's clock may differ from this one, in seconds.",
    default: "30",
    example: "30",
    parse: wholeNumber(0, 300),
  }),
  masterKeys: optional({
    name: "MASTER_KEYS",
    description:
      "Keys that seal personal data: 32 bytes in base64 each, the newest first, with commas between. Not set: one made in DATA_DIR.",
    example: "the output of `openssl rand -base64 32`",
    secret: true,
    requiredInProduction: ["MASTER_KEYS", "MASTER_KEYS_FILE"],
    parse: parseMasterKeys,
  }),
  masterKeysFile: optional({
    name: "MASTER_KEYS_FILE",
    description: "A file that holds the master keys, instead of MASTER_KEYS. It is read again every minute.",
    example: "/run/secrets/master_keys",
    parse: (path) => {
      parseMasterKeys(readFileSync(path, "utf8"));
      return resolve(path);
    },
  }),
  erasuresFile: optional({
    name: "ERASURES_FILE",
    description: "Where it is kept, apart from the database, who has been erased. Not set: erasures.ndjson in DATA_DIR.",
    example: "/var/lib/ordertrail/erasures.ndjson",
    parse: (text) => resolve(text),
  }),
  retentionDays: optional({
    name: "RETENTION_DAYS",
    description: "For how many days after an order has ended its personal data is kept. Not set: until the person is erased.",
    example: "90",
    parse: wholeNumber(1, 36_500),
  }),
  dataDir: defaulted({
    name: "DATA_DIR",
    description: "The folder of the instance: its lock, its development keys, the data of the servers that it runs.",
    default: ".data",
    example: "/var/lib/ordertrail",
    parse: (text) => resolve(text),
  }),
  logLevel: defaulted({
    name: "LOG_LEVEL",
    description: "The least important of what is logged.",
    default: "info",
    example: "debug",
    parse: (text) => oneOf(["debug", "info", "warn", "error", "silent"], text),
  }),
  maxRequestBytes: defaulted({
    name: "MAX_REQUEST_BYTES",
    description: "The largest request that is read, in bytes.",
    default: "1048576",
    example: "1048576",
    parse: wholeNumber(1024, 64 * 1024 * 1024),
  }),
  defaultDeadlineMs: defaulted({
    name: "DEFAULT_DEADLINE_MS",
    description: "How long a call may take whose caller sets no deadline, in milliseconds.",
    default: "10000",
    example: "10000",
    parse: wholeNumber(1, 600_000),
  }),
  maxDeadlineMs: defaulted({
    name: "MAX_DEADLINE_MS",
    description: "How long a call may take at most, whatever deadline its caller sets, in milliseconds.",
    default: "60000",
    example: "60000",
    parse: wholeNumber(1, 600_000),
  }),
  appendQueueEntries: defaulted({
    name: "APPEND_QUEUE_ENTRIES",
    description: "How many entries may wait to be written; further commands are refused with RESOURCE_EXHAUSTED.",
    default: "4096",
    example: "4096",
    parse: wholeNumber(1, 1_000_000),
  }),
  appendQueueBytes: defaulted({
    name: "APPEND_QUEUE_BYTES",
    description: "How many bytes of entries may wait to be written.",
    default: "33554432",
    example: "33554432",
    parse: wholeNumber(65_536, 1024 * 1024 * 1024),
  }),
  drainTimeoutMs: defaulted({
    name: "DRAIN_TIMEOUT_MS",
    description: "How long running calls may go on when the process is asked to end, in milliseconds.",
    default: "10000",
    example: "10000",
    parse: wholeNumber(0, 600_000),
  }),
} satisfies Record<string, Parsed<unknown>>;

type Values = {
  readonly [K in keyof typeof SETTINGS]:
    | ReturnType<(typeof SETTINGS)[K]["parse"]>
    | ((typeof SETTINGS)[K] extends { readonly default: string } ? never : undefined);
};

/** What the environment says, checked and typed. Nothing else reads the environment. */
export type Config = Values;

/** The configuration of an application whose database is known, by setting or because one was started for it. */
export type AppConfig = Config & { readonly mongodbUrl: string };

/** Every variable that is read, in the order in which people should meet them. */
export const VARIABLES: readonly Variable[] = Object.values(SETTINGS);

/** Thrown when the environment cannot be used; the message has one line for each thing to correct. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";

  constructor(problems: readonly string[]) {
    super(
      `the configuration needs ${problems.length === 1 ? "a correction" : `${problems.length} corrections`}:\n  ${problems.join("\n  ")}`,
    );
  }
}

/** Reads the configuration from the environment. Throws a ConfigError that names all that is wrong; no secret is in it. */
export function loadConfig(environment: NodeJS.ProcessEnv = process.env): Config {
  const problems: string[] = [];
  const entries = Object.entries<Parsed<unknown>>(SETTINGS).map(([key, setting]) => {
    try {
      return [key, readSetting(setting, environment)];
    } catch (error) {
      problems.push(`${setting.name} ${(error as Error).message}; for example ${setting.example}`);
      return [key, undefined];
    }
  });
  const values = Object.fromEntries(entries) as Values;
  problems.push(...contradictions(environment, values));
  if (problems.length > 0) throw new ConfigError(problems);
  return values;
}

function readSetting<T>({ name, default: byDefault, parse }: Parsed<T>, environment: NodeJS.ProcessEnv): T | undefined {
  const text = textOf(environment, name) ?? byDefault;
  return text === undefined ? undefined : parse(text);
}

/** Compose files pass on what is not set as an empty string: it counts as not set. */
function textOf(environment: NodeJS.ProcessEnv, name: string): string | undefined {
  return environment[name]?.trim() || undefined;
}

function contradictions(environment: NodeJS.ProcessEnv, values: Partial<Values>): string[] {
  const isSet = (name: string) => textOf(environment, name) !== undefined;
  const problems = VARIABLES.flatMap(({ requiredInProduction, example }) =>
    values.production && requiredInProduction && !requiredInProduction.some(isSet)
      ? [`${requiredInProduction.join(" or ")} must be set in production; for example ${example}`]
      : [],
  );
  if (isSet("MASTER_KEYS") && isSet("MASTER_KEYS_FILE")) problems.push("MASTER_KEYS and MASTER_KEYS_FILE are both set: set one");
  const { defaultDeadlineMs, maxDeadlineMs } = values;
  if (defaultDeadlineMs !== undefined && maxDeadlineMs !== undefined && defaultDeadlineMs > maxDeadlineMs) {
    problems.push("DEFAULT_DEADLINE_MS must not be more than MAX_DEADLINE_MS");
  }
  return problems;
}

function oneOf<const T extends string>(choices: readonly T[], text: string): T {
  const found = choices.find((choice) => choice === text);
  if (found === undefined) throw new Error(`is "${text}", but must be ${choices.join(" or ")}`);
  return found;
}

function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^[0-9]+$/.test(text) || value < least || value > most) {
      throw new Error(`is "${text}", but must be a whole number from ${least} to ${most}`);
    }
    return value;
  };
}

function matching(pattern: RegExp, text: string, rule: string): string {
  if (!pattern.test(text)) throw new Error(`is "${text}", but ${rule}`);
  return text;
}

/** Shows nothing of the text, as it may hold a password. MongoDB's own addresses list several hosts, which URL does not read. */
function urlText(text: string, schemes: readonly string[]): string {
  const [scheme, rest] = text.split("//", 2);
  if (!schemes.includes(scheme ?? "") || !rest) throw new Error(`must begin with ${schemes.map((known) => `${known}//`).join(" or ")}`);
  return text;
}

function origin(text: string): string {
  if (text === "*" || (URL.canParse(text) && new URL(text).origin === text)) return text;
  throw new Error(`has "${text}", which is not an origin: scheme, host and port only`);
}

function list(text: string): string[] {
  return text
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
}
