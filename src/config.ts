import { accessSync, constants, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { parseCallsPerMinute } from "./access/call-limits.ts";
import { parseIssuers } from "./access/issuers.ts";
import { parseAuditKeys } from "./audit/audit-keys.ts";
import { parseWitnesses } from "./audit/witness.ts";
import type { ChannelAccounts } from "./channels/channels.ts";
import { parseServiceAccount } from "./channels/service-account.ts";
import type { CourierAccounts } from "./couriers/couriers.ts";
import { isTimeZone } from "./domain/quiet-hours.ts";
import { parseProxies } from "./doors/proxies.ts";
import { parseMasterKeys } from "./privacy/master-key.ts";
import type { DefaultLimits } from "./services/order-limits.ts";
import type { ClientTlsFiles, ServerTlsFiles } from "./tls-files.ts";

/** What a process may do; every one may run any number of times. */
export type ProcessRole = "api" | "projector" | "relay" | "timers" | "couriers" | "notifier";

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
  mongodbTlsCaFile: optional({
    name: "MONGODB_TLS_CA_FILE",
    description: "PEM file of the CAs that MongoDB's certificate must come from. Set, connections to MongoDB use TLS.",
    example: "/etc/ordertrail/mongodb-ca.pem",
    parse: readablePath,
  }),
  mongodbTlsCertFile: optional({
    name: "MONGODB_TLS_CERT_FILE",
    description: "PEM file of the certificate that Ordertrail shows to MongoDB. Set, connections to MongoDB use TLS.",
    example: "/etc/ordertrail/mongodb-client.pem",
    parse: readablePath,
  }),
  mongodbTlsKeyFile: optional({
    name: "MONGODB_TLS_KEY_FILE",
    description: "PEM file of the private key of MONGODB_TLS_CERT_FILE.",
    example: "/etc/ordertrail/mongodb-client.key",
    parse: readablePath,
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
    description: "NATS with JetStream; several servers of a cluster with commas. Not set: `npm start` runs a nats-server of its own.",
    example: "nats://user:password@nats1:4222,nats2:4222,nats3:4222",
    secret: true,
    requiredInProduction: ["NATS_URL"],
    parse: (text) => urlText(text, ["nats:", "tls:"]),
  }),
  natsTlsCaFile: optional({
    name: "NATS_TLS_CA_FILE",
    description: "PEM file of the CAs that NATS's certificate must come from. Set, connections to NATS use TLS.",
    example: "/etc/ordertrail/nats-ca.pem",
    parse: readablePath,
  }),
  natsTlsCertFile: optional({
    name: "NATS_TLS_CERT_FILE",
    description: "PEM file of the certificate that Ordertrail shows to NATS. Set, connections to NATS use TLS.",
    example: "/etc/ordertrail/nats-client.pem",
    parse: readablePath,
  }),
  natsTlsKeyFile: optional({
    name: "NATS_TLS_KEY_FILE",
    description: "PEM file of the private key of NATS_TLS_CERT_FILE.",
    example: "/etc/ordertrail/nats-client.key",
    parse: readablePath,
  }),
  natsCredsFile: optional({
    name: "NATS_CREDS_FILE",
    description: "Credentials file (a user's JWT and seed) by which Ordertrail is known to NATS.",
    example: "/etc/ordertrail/nats.creds",
    parse: readablePath,
  }),
  natsPrefix: defaulted({
    name: "NATS_PREFIX",
    description: "What all subjects and the stream in NATS begin with; of its own for each database that shares a NATS.",
    default: "ordertrail",
    example: "ordertrail-eu",
    parse: (text) => matching(/^[A-Za-z0-9_-]{1,32}$/, text, "must be 1 to 32 letters, digits, _ and -"),
  }),
  eventStreamDays: defaulted({
    name: "EVENT_STREAM_DAYS",
    description: "For how many days NATS keeps the mirror of the log; 0 for ever. The log itself keeps all.",
    default: "7",
    example: "30",
    parse: wholeNumber(0, 36_500),
  }),
  eventStreamMib: defaulted({
    name: "EVENT_STREAM_MIB",
    description: "How many MiB of it NATS keeps at most; 0 for any number.",
    default: "0",
    example: "10240",
    parse: wholeNumber(0, 1_000_000_000),
  }),
  eventStreamReplicas: defaulted({
    name: "EVENT_STREAM_REPLICAS",
    description: "On how many servers of a NATS cluster the mirror is kept: 1, 3 or 5.",
    default: "1",
    example: "3",
    parse: (text) => Number(oneOf(["1", "3", "5"], text)),
  }),
  redisUrl: optional({
    name: "REDIS_URL",
    description:
      "Valkey or Redis, where limits are counted for all processes. Not set: in development `npm start` runs a valkey-server; else each process counts for itself.",
    example: "rediss://user:password@valkey:6379",
    secret: true,
    parse: (text) => urlText(text, ["redis:", "rediss:"]),
  }),
  roles: defaulted({
    name: "ROLES",
    description:
      "What this process does: `api` answers calls, `projector` keeps the read models, `relay` mirrors the log into NATS, `timers` acts on deadlines, `couriers` follows up deliveries, `notifier` sends messages.",
    default: "api,projector,relay,timers,couriers,notifier",
    example: "api,projector",
    parse: (text): ReadonlySet<ProcessRole> =>
      new Set(list(text).map((role) => oneOf(["api", "projector", "relay", "timers", "couriers", "notifier"], role))),
  }),
  acknowledgmentSeconds: defaulted({
    name: "DEADLINE_ACKNOWLEDGMENT_SECONDS",
    description: "How long a store may take to acknowledge an order before it is reminded, unless PutStore says otherwise for it.",
    default: "300",
    example: "600",
    parse: wholeNumber(1, 604_800),
  }),
  substitutionsSeconds: defaulted({
    name: "DEADLINE_SUBSTITUTIONS_SECONDS",
    description: "How long a customer may take to answer about substitutions before they are reminded.",
    default: "300",
    example: "600",
    parse: wholeNumber(1, 604_800),
  }),
  driverAssignmentSeconds: defaulted({
    name: "DEADLINE_DRIVER_SECONDS",
    description: "How long an order may be ready without a driver.",
    default: "600",
    example: "1200",
    parse: wholeNumber(1, 604_800),
  }),
  pickupSeconds: defaulted({
    name: "DEADLINE_PICKUP_SECONDS",
    description: "How long a driver may take to the store.",
    default: "1800",
    example: "3600",
    parse: wholeNumber(1, 604_800),
  }),
  escalationSeconds: defaulted({
    name: "DEADLINE_ESCALATION_SECONDS",
    description: "How long after the reminder people are told; open substitutions are then answered by the order's policy.",
    default: "300",
    example: "600",
    parse: wholeNumber(1, 604_800),
  }),
  cancelUnacknowledged: defaulted({
    name: "CANCEL_UNACKNOWLEDGED",
    description: "Whether an order is called off that its store has not acknowledged when people are told.",
    default: "false",
    example: "true",
    parse: (text) => oneOf(["true", "false"], text) === "true",
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
  grpcTlsCertFile: optional({
    name: "GRPC_TLS_CERT_FILE",
    description: "PEM file of the certificate, with its chain, that gRPC shows. Set, this port speaks TLS only.",
    example: "/etc/ordertrail/tls.crt",
    parse: readablePath,
  }),
  grpcTlsKeyFile: optional({
    name: "GRPC_TLS_KEY_FILE",
    description: "PEM file of the private key of GRPC_TLS_CERT_FILE, without a passphrase.",
    example: "/etc/ordertrail/tls.key",
    parse: readablePath,
  }),
  grpcTlsClientCaFile: optional({
    name: "GRPC_TLS_CLIENT_CA_FILE",
    description: "PEM file of the CAs whose client certificates are accepted. Not set: none is asked for.",
    example: "/etc/ordertrail/client-ca.crt",
    parse: readablePath,
  }),
  grpcTlsClientCert: defaulted({
    name: "GRPC_TLS_CLIENT_CERT",
    description: "With GRPC_TLS_CLIENT_CA_FILE: whether a client certificate is `required` or `optional`.",
    default: "required",
    example: "optional",
    parse: (text) => oneOf(["required", "optional"], text),
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
  httpTlsCertFile: optional({
    name: "HTTP_TLS_CERT_FILE",
    description: "PEM file of the certificate, with its chain, that the port of Connect and REST shows. Set, this port speaks TLS only.",
    example: "/etc/ordertrail/tls.crt",
    parse: readablePath,
  }),
  httpTlsKeyFile: optional({
    name: "HTTP_TLS_KEY_FILE",
    description: "PEM file of the private key of HTTP_TLS_CERT_FILE, without a passphrase.",
    example: "/etc/ordertrail/tls.key",
    parse: readablePath,
  }),
  httpTlsClientCaFile: optional({
    name: "HTTP_TLS_CLIENT_CA_FILE",
    description: "PEM file of the CAs whose client certificates are accepted. Not set: none is asked for.",
    example: "/etc/ordertrail/client-ca.crt",
    parse: readablePath,
  }),
  httpTlsClientCert: defaulted({
    name: "HTTP_TLS_CLIENT_CERT",
    description: "With HTTP_TLS_CLIENT_CA_FILE: whether a client certificate is `required` or `optional`.",
    default: "required",
    example: "optional",
    parse: (text) => oneOf(["required", "optional"], text),
  }),
  trustedProxies: defaulted({
    name: "TRUSTED_PROXIES",
    description:
      "Addresses and networks of proxies, with commas between: who calls by way of them is known by X-Forwarded-For. Not set: none.",
    default: "",
    example: "10.0.0.0/8,fd00::/8",
    parse: (text) => parseProxies(list(text)),
  }),
  corsOrigins: defaulted({
    name: "CORS_ORIGINS",
    description: "Origins of web pages that may call, with commas between; `*` for any. Not set: none.",
    default: "",
    example: "https://orders.example.com",
    parse: (text): readonly string[] => list(text).map(origin),
  }),
  jwtIssuer: defaulted({
    name: "JWT_ISSUER",
    description: "What the tokens that Ordertrail issues have as `iss`.",
    default: "ordertrail",
    example: "https://orders.example.com/",
    parse: (text) => text,
  }),
  jwtAudience: defaulted({
    name: "JWT_AUDIENCE",
    description: "What the tokens that Ordertrail issues have as `aud`.",
    default: "ordertrail",
    example: "ordertrail",
    parse: (text) => text,
  }),
  jwtClockSkewSeconds: defaulted({
    name: "JWT_CLOCK_SKEW_SECONDS",
    description: "By how much an issuer's clock may differ from this one, in seconds.",
    default: "30",
    example: "30",
    parse: wholeNumber(0, 300),
  }),
  tokenIssuers: defaulted({
    name: "TOKEN_ISSUERS",
    description:
      "Others whose tokens are accepted: a JSON array of objects with issuer, jwks_url, audience, roles, role_claim, subject_claim and store_claim, as docs/access.md tells.",
    default: "[]",
    example:
      '[{"issuer":"https://login.example.com/","jwks_url":"https://login.example.com/jwks.json","audience":"ordertrail","roles":["customer"]}]',
    parse: parseIssuers,
  }),
  accessTokenSeconds: defaulted({
    name: "ACCESS_TOKEN_SECONDS",
    description: "How long the access tokens of AuthService are valid, in seconds.",
    default: "900",
    example: "900",
    parse: wholeNumber(60, 3600),
  }),
  refreshTokenSeconds: defaulted({
    name: "REFRESH_TOKEN_SECONDS",
    description: "How long a client may go on with refresh tokens before it must show its secret again, in seconds.",
    default: "86400",
    example: "86400",
    parse: wholeNumber(60, 2_592_000),
  }),
  trackingLinkPage: optional({
    name: "TRACKING_LINK_PAGE",
    description:
      "The web page that shows an order to the holder of a tracking link; the token is put in its fragment. Not set: links have no address.",
    example: "https://shop.example.com/track",
    parse: (text) => new URL(urlText(text, ["https:", "http:"])),
  }),
  denialsPerMinute: defaulted({
    name: "DENIALS_PER_MINUTE",
    description: "How many denied calls a minute one caller or address is told the reason of; further ones are RATE_LIMITED.",
    default: "60",
    example: "60",
    parse: wholeNumber(1, 1_000_000),
  }),
  callsPerMinute: defaulted({
    name: "API_CALLS_PER_MINUTE",
    description:
      "How many calls a minute one caller may make, by role: role=number, with commas between; further ones are RATE_LIMITED. A role that is not named, or with 0, has no limit.",
    default: "customer=6000,driver=6000,store=6000,link=6000",
    example: "customer=600,driver=1200,store=6000,link=60",
    parse: parseCallsPerMinute,
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
    description:
      "A file that says, apart from the database, who has been erased; on storage that stays and is not put back with it. Not set: erasures.ndjson in DATA_DIR.",
    example: "/var/lib/ordertrail/erasures.ndjson",
    requiredInProduction: ["ERASURES_FILE"],
    parse: (text) => resolve(text),
  }),
  retentionDays: optional({
    name: "RETENTION_DAYS",
    description: "For how many days after an order has ended its personal data is kept. Not set: until the person is erased.",
    example: "90",
    parse: wholeNumber(1, 36_500),
  }),
  auditOrigin: defaulted({
    name: "AUDIT_ORIGIN",
    description: "The log's name in its checkpoints: best the address below which it is published, without its scheme.",
    default: "ordertrail.localhost/audit",
    example: "orders.example.com/audit",
    requiredInProduction: ["AUDIT_ORIGIN"],
    parse: (text) => matching(/^[^\s+]{1,200}$/u, text, "must be a name without spaces and +, of at most 200 characters"),
  }),
  auditKeys: optional({
    name: "AUDIT_KEYS",
    description:
      "Keys that sign checkpoints of the log: 32 bytes in base64 each, the newest first, with commas between; all of them sign. After them, the public halves in note form of those that have signed before. Not set: one made in DATA_DIR.",
    example: "the output of `openssl rand -base64 32`",
    secret: true,
    requiredInProduction: ["AUDIT_KEYS", "AUDIT_KEYS_FILE"],
    parse: parseAuditKeys,
  }),
  auditKeysFile: optional({
    name: "AUDIT_KEYS_FILE",
    description:
      "A file that holds them, instead of AUDIT_KEYS; `ordertrail audit rotate-key` changes it, and it is read again before each checkpoint.",
    example: "/run/secrets/audit_keys",
    parse: (path) => {
      parseAuditKeys(readFileSync(path, "utf8"));
      return resolve(path);
    },
  }),
  metricsPublic: defaulted({
    name: "METRICS_PUBLIC",
    description: "`true`: anybody may read /metrics, without a token. Nothing of orders or people is in it.",
    default: "false",
    example: "true",
    parse: (text) => oneOf(["true", "false"], text) === "true",
  }),
  auditPublic: defaulted({
    name: "AUDIT_PUBLIC",
    description: "`true`: anybody may read the log's checkpoints and hash tiles, without a token. Entries always need one.",
    default: "false",
    example: "true",
    parse: (text) => oneOf(["true", "false"], text) === "true",
  }),
  auditWitnesses: defaulted({
    name: "AUDIT_WITNESSES",
    description:
      "Who cosigns checkpoints: a verifier key, a space and an address (C2SP tlog-witness) each, with commas between. Not set: nobody.",
    default: "",
    example: "witness.example+12b39042+BJxuetQWuYQ3yxTvhluIN3IJ9uY9qSwGezg8OO2RzXJm https://witness.example/",
    parse: parseWitnesses,
  }),
  auditPublishFile: optional({
    name: "AUDIT_PUBLISH_FILE",
    description: "A file that always holds the newest checkpoint: best where the operator of the database cannot write.",
    example: "/mnt/elsewhere/ordertrail.checkpoint",
    parse: (text) => resolve(text),
  }),
  auditPublishUrl: optional({
    name: "AUDIT_PUBLISH_URL",
    description: "An address to which every checkpoint is PUT, as text.",
    example: "https://archive.example/ordertrail/checkpoint",
    secret: true,
    parse: (text) => new URL(urlText(text, ["https:", "http:"])),
  }),
  dataDir: defaulted({
    name: "DATA_DIR",
    description:
      "The folder of the instance: its lock, its development keys, the newest checkpoint that it knows of, the data of the servers that it runs.",
    default: ".data",
    example: "/var/lib/ordertrail",
    parse: (text) => resolve(text),
  }),
  cliCaFile: optional({
    name: "CLI_CA_FILE",
    description:
      "PEM file of the CAs that `ordertrail status`, `demo`, `projections`, `audit` and the like trust. Not set: those that Node brings.",
    example: "/etc/ordertrail/ca.crt",
    parse: readablePath,
  }),
  cliCertFile: optional({
    name: "CLI_CERT_FILE",
    description: "PEM file of the certificate that they show where the instance asks for one.",
    example: "/etc/ordertrail/cli.crt",
    parse: readablePath,
  }),
  cliKeyFile: optional({
    name: "CLI_KEY_FILE",
    description: "PEM file of the private key of CLI_CERT_FILE.",
    example: "/etc/ordertrail/cli.key",
    parse: readablePath,
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
  maxConnections: defaulted({
    name: "MAX_CONNECTIONS",
    description: "How many connections each of the two ports holds at once; further ones are closed.",
    default: "10000",
    example: "10000",
    parse: wholeNumber(1, 1_000_000),
  }),
  maxConnectionsPerAddress: defaulted({
    name: "MAX_CONNECTIONS_PER_ADDRESS",
    description: "How many of them may come from one address. Behind a proxy, all do.",
    default: "1000",
    example: "1000",
    parse: wholeNumber(1, 1_000_000),
  }),
  uberBaseUrl: defaulted({
    name: "UBER_BASE_URL",
    description: "Where the API of Uber Direct is.",
    default: "https://api.uber.com",
    example: "https://api.uber.com",
    parse: baseUrl,
  }),
  uberAuthUrl: defaulted({
    name: "UBER_AUTH_URL",
    description: "Where Uber gives tokens.",
    default: "https://auth.uber.com/oauth/v2/token",
    example: "https://auth.uber.com/oauth/v2/token",
    parse: baseUrl,
  }),
  uberCustomerId: optional({
    name: "UBER_CUSTOMER_ID",
    description: "The account with Uber Direct. Set with the three below, Uber is one of the delivery providers.",
    example: "b3c4d5e6-0000-4000-8000-000000000000",
    parse: (text) => text,
  }),
  uberClientId: optional({
    name: "UBER_CLIENT_ID",
    description: "The client id of the account.",
    example: "aBcDeFgH",
    parse: (text) => text,
  }),
  uberClientSecret: optional({
    name: "UBER_CLIENT_SECRET",
    description: "Its secret.",
    example: "a secret of Uber's dashboard",
    secret: true,
    parse: (text) => text,
  }),
  uberWebhookKey: optional({
    name: "UBER_WEBHOOK_KEY",
    description: "The key by which Uber signs what it sends to /webhooks/uber.",
    example: "a signing key of Uber's dashboard",
    secret: true,
    parse: (text) => text,
  }),
  doordashBaseUrl: defaulted({
    name: "DOORDASH_BASE_URL",
    description: "Where the API of DoorDash Drive is.",
    default: "https://openapi.doordash.com",
    example: "https://openapi.doordash.com",
    parse: baseUrl,
  }),
  doordashDeveloperId: optional({
    name: "DOORDASH_DEVELOPER_ID",
    description: "The developer id with DoorDash. Set with the three below, DoorDash is one of the delivery providers.",
    example: "b3c4d5e6-0000-4000-8000-000000000000",
    parse: (text) => text,
  }),
  doordashKeyId: optional({
    name: "DOORDASH_KEY_ID",
    description: "The id of the key that signs requests.",
    example: "b3c4d5e6-0000-4000-8000-000000000001",
    parse: (text) => text,
  }),
  doordashSigningSecret: optional({
    name: "DOORDASH_SIGNING_SECRET",
    description: "The key itself, in base64, as the portal shows it.",
    example: "bm90IGEgc2VjcmV0IGF0IGFsbA==",
    secret: true,
    parse: (text) => matching(/^[A-Za-z0-9+/_=-]{16,}$/, text, "must be base64", true),
  }),
  doordashWebhookAuthorization: optional({
    name: "DOORDASH_WEBHOOK_AUTHORIZATION",
    description: "The Authorization header with which DoorDash is told to come to /webhooks/doordash: long and random.",
    example: "Basic b3JkZXJ0cmFpbDphIGxvbmcgcmFuZG9tIHNlY3JldA==",
    secret: true,
    parse: (text) => matching(/^.{24,}$/, text, "must have 24 characters or more", true),
  }),
  publicUrl: optional({
    name: "PUBLIC_URL",
    description:
      "Where providers and customers reach the HTTP port from outside: for callbacks and for the links in emails that unsubscribe.",
    example: "https://orders.example.com",
    parse: baseUrl,
  }),
  sendgridApiKey: optional({
    name: "SENDGRID_API_KEY",
    description: "The key of the SendGrid account. Set, with SENDGRID_FROM, emails are sent.",
    example: "SG.aBcDeFgHiJkLmNoPqRsTuV.0123456789",
    secret: true,
    parse: (text) => text,
  }),
  sendgridFrom: optional({
    name: "SENDGRID_FROM",
    description: "From which address emails come: one that SendGrid has verified.",
    example: "orders@example.com",
    parse: (text) => matching(/^[^\s@]+@[^\s@]+$/, text, "must be an email address"),
  }),
  sendgridFromName: defaulted({
    name: "SENDGRID_FROM_NAME",
    description: "The name that stands beside it.",
    default: "Ordertrail",
    example: "Corner Shop",
    parse: (text) => text,
  }),
  sendgridWebhookKey: optional({
    name: "SENDGRID_WEBHOOK_PUBLIC_KEY",
    description: "The key that SendGrid's signed event webhook shows. Not set: /webhooks/sendgrid believes nothing.",
    example: "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE…",
    parse: (text) => text,
  }),
  sendgridBaseUrl: defaulted({
    name: "SENDGRID_BASE_URL",
    description: "Where SendGrid's API is; https://api.eu.sendgrid.com for accounts in Europe.",
    default: "https://api.sendgrid.com",
    example: "https://api.eu.sendgrid.com",
    parse: baseUrl,
  }),
  twilioAccountSid: optional({
    name: "TWILIO_ACCOUNT_SID",
    description: "The Twilio account. Set, with TWILIO_AUTH_TOKEN and TWILIO_FROM, SMS are sent.",
    example: "AC00000000000000000000000000000000",
    parse: (text) => matching(/^AC[0-9a-fA-F]{32}$/, text, "must be AC and 32 hexadecimal digits"),
  }),
  twilioAuthToken: optional({
    name: "TWILIO_AUTH_TOKEN",
    description: "Its auth token, which signs callbacks, too.",
    example: "0123456789abcdef0123456789abcdef",
    secret: true,
    parse: (text) => text,
  }),
  twilioFrom: optional({
    name: "TWILIO_FROM",
    description: "The number that SMS come from, in E.164 form, or a messaging service.",
    example: "+15550100000",
    parse: (text) =>
      matching(/^(\+[1-9][0-9]{6,14}|MG[0-9a-fA-F]{32})$/, text, "must be a number such as +15550100000, or MG and 32 digits"),
  }),
  twilioBaseUrl: defaulted({
    name: "TWILIO_BASE_URL",
    description: "Where Twilio's API is.",
    default: "https://api.twilio.com",
    example: "https://api.twilio.com",
    parse: baseUrl,
  }),
  metaApiKey: optional({
    name: "META_API_KEY",
    description: "The token of a system user of WhatsApp's Cloud API. Set, with the three below, WhatsApp messages are sent.",
    example: "EAAG…",
    secret: true,
    parse: (text) => text,
  }),
  metaPhoneNumberId: optional({
    name: "META_PHONE_NUMBER_ID",
    description: "Meta's identifier of the number that they come from.",
    example: "106540352242922",
    parse: (text) => matching(/^[0-9]{5,20}$/, text, "must be digits"),
  }),
  metaAppSecret: optional({
    name: "META_APP_SECRET",
    description: "The app's secret, which signs webhooks.",
    example: "0123456789abcdef0123456789abcdef",
    secret: true,
    parse: (text) => text,
  }),
  metaVerifyToken: optional({
    name: "META_VERIFY_TOKEN",
    description: "The word by which Meta shows, when the webhook is set up, that it is Meta.",
    example: "a-long-random-word",
    secret: true,
    parse: (text) => text,
  }),
  metaApiVersion: defaulted({
    name: "META_API_VERSION",
    description: "The version of the Graph API.",
    default: "v25.0",
    example: "v26.0",
    parse: (text) => matching(/^v[0-9]+\.[0-9]+$/, text, "must be such as v25.0"),
  }),
  metaBaseUrl: defaulted({
    name: "META_BASE_URL",
    description: "Where the Graph API is.",
    default: "https://graph.facebook.com",
    example: "https://graph.facebook.com",
    parse: baseUrl,
  }),
  firebaseApiKey: optional({
    name: "FIREBASE_API_KEY",
    description:
      "The JSON of a Google service account, or the path of a file with it. Set, push messages are sent. FCM takes no plain server keys any more.",
    example: "/etc/ordertrail/firebase-service-account.json",
    secret: true,
    parse: parseServiceAccount,
  }),
  notifyOperatorEmail: optional({
    name: "NOTIFY_OPERATOR_EMAIL",
    description: "Who is told by email when nobody has done what an order waits for. Not set: nobody.",
    example: "operations@example.com",
    parse: (text) => matching(/^[^\s@]+@[^\s@]+$/, text, "must be an email address"),
  }),
  notifyGatherSeconds: defaulted({
    name: "NOTIFY_GATHER_SECONDS",
    description: "For how long news of little hurry waits for newer news, which then takes its place.",
    default: "60",
    example: "30",
    parse: wholeNumber(0, 3600),
  }),
  notifyPerMinute: defaulted({
    name: "NOTIFY_PER_MINUTE",
    description:
      "How many messages of one category a customer gets in a minute; more wait, and the newest takes their place. Urgent ones are not counted.",
    default: "1",
    example: "3",
    parse: wholeNumber(1, 1000),
  }),
  notifyAnswerMs: defaulted({
    name: "NOTIFY_ANSWER_MS",
    description: "How long a provider may take to take a message, in milliseconds.",
    default: "10000",
    example: "5000",
    parse: wholeNumber(100, 60_000),
  }),
  notifyAtOnce: defaulted({
    name: "NOTIFY_AT_ONCE",
    description: "How many messages may be with each provider at a time, for each process.",
    default: "64",
    example: "32",
    parse: wholeNumber(1, 1000),
  }),
  notifyProviderPerSecond: defaulted({
    name: "NOTIFY_PROVIDER_PER_SECOND",
    description: "How many messages each provider is handed in a second by all processes together.",
    default: "500",
    example: "80",
    parse: wholeNumber(1, 100_000),
  }),
  defaultTimeZone: defaulted({
    name: "DEFAULT_TIME_ZONE",
    description: "The IANA name of the time zone of stores and customers that have named none.",
    default: "UTC",
    example: "America/New_York",
    parse: (text) => {
      if (!isTimeZone(text)) throw new Error("must be the IANA name of a time zone");
      return text;
    },
  }),
  inHouseCurrency: defaulted({
    name: "IN_HOUSE_CURRENCY",
    description: "The currency of what a delivery by the platform's own drivers costs.",
    default: "EUR",
    example: "USD",
    parse: (text) => matching(/^[A-Z]{3}$/, text, "must be an ISO 4217 code"),
  }),
  inHouseFeeMinor: optional({
    name: "IN_HOUSE_FEE_MINOR",
    description: "What it costs, in the currency's minor unit. Set, the platform's own drivers are one of the delivery providers.",
    example: "299",
    parse: wholeNumber(0, 1_000_000_000),
  }),
  sandboxStepMs: defaulted({
    name: "SANDBOX_STEP_MS",
    description: "How long a courier of the providers that `start` plays in development takes from one step to the next, in milliseconds.",
    default: "4000",
    example: "500",
    parse: wholeNumber(50, 600_000),
  }),
  deliveryAnswerMs: defaulted({
    name: "DELIVERY_ANSWER_MS",
    description:
      "How long a delivery provider may take to answer, with one repetition, before the next one is asked, in milliseconds: each attempt gets half.",
    default: "4000",
    example: "4000",
    parse: wholeNumber(10, 60_000),
  }),
  deliveryGiveUpSeconds: defaulted({
    name: "DELIVERY_GIVE_UP_SECONDS",
    description: "For how long a courier is requested again and again of the only provider, while that is down, in seconds.",
    default: "600",
    example: "600",
    parse: wholeNumber(0, 86_400),
  }),
  deliveryQuietSeconds: defaulted({
    name: "DELIVERY_QUIET_SECONDS",
    description:
      "For how long nothing may be heard of a delivery before its provider is asked, and how often it is asked then, in seconds.",
    default: "180",
    example: "180",
    parse: wholeNumber(1, 86_400),
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
  watchHeartbeatMs: defaulted({
    name: "WATCH_HEARTBEAT_MS",
    description: "How often whoever watches an order gets a sign of life, and their token is looked at again, in milliseconds.",
    default: "15000",
    example: "15000",
    parse: wholeNumber(100, 600_000),
  }),
  driverNearMeters: defaulted({
    name: "DRIVER_NEAR_METERS",
    description: "How close to the store or the customer a driver is near it, in metres.",
    default: "500",
    example: "500",
    parse: wholeNumber(1, 100_000),
  }),
  driverArrivedMeters: defaulted({
    name: "DRIVER_ARRIVED_METERS",
    description: "How close to the store or the customer a driver is there, in metres.",
    default: "75",
    example: "75",
    parse: wholeNumber(1, 100_000),
  }),
  locationStaleSeconds: defaulted({
    name: "LOCATION_STALE_SECONDS",
    description: "Points that drivers' devices measured longer ago than so many seconds are not taken.",
    default: "300",
    example: "300",
    parse: wholeNumber(1, 86_400),
  }),
  locationStoreMs: defaulted({
    name: "LOCATION_STORE_MS",
    description: "How often the newest place of a driver is written to the database at most, in milliseconds.",
    default: "3000",
    example: "3000",
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
export type Config = Values & {
  /** Undefined where the port speaks without TLS. */
  readonly grpcTls: ServerTlsFiles | undefined;
  readonly httpTls: ServerTlsFiles | undefined;
  /** For connections to MongoDB. */
  readonly mongodbTls: ClientTlsFiles;
  readonly natsTls: ClientTlsFiles;
  /** Whom deliveries can be asked of. */
  readonly couriers: CourierAccounts;
  /** By what people can be reached. */
  readonly channels: ChannelAccounts;
  /** How long orders may wait for what, where their store does not say. */
  readonly deadlines: DefaultLimits;
  /** How the mirror of the log in NATS is kept. */
  readonly eventStream: { readonly maxAgeSeconds: number; readonly maxBytes: number; readonly replicas: number };
  /** For the command line's own calls to a running instance. */
  readonly cliTls: ClientTlsFiles;
};

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
  problems.push(...notForProduction(environment, values), ...contradictions(environment, values));
  if (problems.length > 0) throw new ConfigError(problems);
  return {
    ...values,
    grpcTls: tlsFiles(values.grpcTlsCertFile, values.grpcTlsKeyFile, values.grpcTlsClientCaFile, values.grpcTlsClientCert),
    httpTls: tlsFiles(values.httpTlsCertFile, values.httpTlsKeyFile, values.httpTlsClientCaFile, values.httpTlsClientCert),
    mongodbTls: { caFile: values.mongodbTlsCaFile, certFile: values.mongodbTlsCertFile, keyFile: values.mongodbTlsKeyFile },
    natsTls: { caFile: values.natsTlsCaFile, certFile: values.natsTlsCertFile, keyFile: values.natsTlsKeyFile },
    deadlines: {
      acknowledgmentSeconds: values.acknowledgmentSeconds,
      substitutionsSeconds: values.substitutionsSeconds,
      driverAssignmentSeconds: values.driverAssignmentSeconds,
      pickupSeconds: values.pickupSeconds,
      escalationSeconds: values.escalationSeconds,
      cancelUnacknowledged: values.cancelUnacknowledged,
    },
    eventStream: {
      maxAgeSeconds: values.eventStreamDays * 86_400,
      maxBytes: values.eventStreamMib * 1024 * 1024,
      replicas: values.eventStreamReplicas,
    },
    couriers: couriersOf(values),
    channels: channelsOf(values),
    cliTls: { caFile: values.cliCaFile, certFile: values.cliCertFile, keyFile: values.cliKeyFile },
  };
}

/**
 * The files with which the command line goes to a server by TLS, for commands that need no other setting. Throws a
 * ConfigError as `loadConfig` does.
 */
export function loadCliTls(environment: NodeJS.ProcessEnv = process.env): ClientTlsFiles {
  return loadConfig(Object.fromEntries(Object.entries(environment).filter(([name]) => name.startsWith("CLI_")))).cliTls;
}

/** The delivery providers that are set: accounts, and a price for the platform's own drivers. */
function channelsOf(values: Values): ChannelAccounts {
  const { sendgridApiKey, sendgridFrom, twilioAccountSid, twilioAuthToken, twilioFrom } = values;
  const { metaApiKey, metaPhoneNumberId, metaAppSecret, metaVerifyToken, firebaseApiKey } = values;
  return {
    ...(sendgridApiKey !== undefined &&
      sendgridFrom !== undefined && {
        email: {
          ...{ baseUrl: values.sendgridBaseUrl, apiKey: sendgridApiKey, from: sendgridFrom, fromName: values.sendgridFromName },
          webhookPublicKey: values.sendgridWebhookKey,
        },
      }),
    ...(twilioAccountSid !== undefined &&
      twilioAuthToken !== undefined &&
      twilioFrom !== undefined && {
        sms: {
          ...{ baseUrl: values.twilioBaseUrl, accountSid: twilioAccountSid, authToken: twilioAuthToken, from: twilioFrom },
          publicUrl: values.publicUrl,
        },
      }),
    ...(metaApiKey !== undefined &&
      metaPhoneNumberId !== undefined &&
      metaAppSecret !== undefined &&
      metaVerifyToken !== undefined && {
        whatsapp: {
          ...{ baseUrl: values.metaBaseUrl, apiVersion: values.metaApiVersion, phoneNumberId: metaPhoneNumberId },
          ...{ accessToken: metaApiKey, appSecret: metaAppSecret, verifyToken: metaVerifyToken },
        },
      }),
    ...(firebaseApiKey !== undefined && { push: { serviceAccount: firebaseApiKey } }),
  };
}

function couriersOf(values: Values): CourierAccounts {
  const { uberCustomerId, uberClientId, uberClientSecret, uberWebhookKey } = values;
  const { doordashDeveloperId, doordashKeyId, doordashSigningSecret, doordashWebhookAuthorization } = values;
  return {
    ...(values.inHouseFeeMinor !== undefined && { inHouse: { feeMinor: values.inHouseFeeMinor, currency: values.inHouseCurrency } }),
    ...(uberCustomerId !== undefined &&
      uberClientId !== undefined &&
      uberClientSecret !== undefined &&
      uberWebhookKey !== undefined && {
        uber: {
          ...{ baseUrl: values.uberBaseUrl, authUrl: values.uberAuthUrl, customerId: uberCustomerId, clientId: uberClientId },
          ...{ clientSecret: uberClientSecret, webhookKey: uberWebhookKey },
        },
      }),
    ...(doordashDeveloperId !== undefined &&
      doordashKeyId !== undefined &&
      doordashSigningSecret !== undefined &&
      doordashWebhookAuthorization !== undefined && {
        doordash: {
          ...{ baseUrl: values.doordashBaseUrl, developerId: doordashDeveloperId, keyId: doordashKeyId },
          ...{ signingSecret: doordashSigningSecret, webhookAuthorization: doordashWebhookAuthorization },
        },
      }),
  };
}

function tlsFiles(
  certFile: string | undefined,
  keyFile: string | undefined,
  clientCaFile: string | undefined,
  clientCert: ServerTlsFiles["clientCert"],
): ServerTlsFiles | undefined {
  return certFile === undefined || keyFile === undefined ? undefined : { certFile, keyFile, clientCaFile, clientCert };
}

function readSetting<T>({ name, default: byDefault, parse }: Parsed<T>, environment: NodeJS.ProcessEnv): T | undefined {
  const text = textOf(environment, name) ?? byDefault;
  return text === undefined ? undefined : parse(text);
}

/** Compose files pass on what is not set as an empty string: it counts as not set. */
function textOf(environment: NodeJS.ProcessEnv, name: string): string | undefined {
  return environment[name]?.trim() || undefined;
}

/** What development makes up when nothing is set, or lets be set, and production must not. */
function notForProduction(environment: NodeJS.ProcessEnv, { production, corsOrigins }: Partial<Values>): string[] {
  if (!production) return [];
  const problems = VARIABLES.flatMap(({ requiredInProduction: names, example }) =>
    names && !names.some((name) => textOf(environment, name) !== undefined)
      ? [`${names.join(" or ")} must be set in production; for example ${example}`]
      : [],
  );
  for (const name of ["UBER_BASE_URL", "UBER_AUTH_URL", "DOORDASH_BASE_URL"]) {
    if (textOf(environment, name)?.startsWith("http://"))
      problems.push(`${name} must be an address with https:// in production: what goes there is personal`);
  }
  if (corsOrigins?.includes("*")) problems.push("CORS_ORIGINS must not be * in production: list the origins of your own pages");
  problems.push(...guessableKeys(environment));
  return problems;
}

/** What is wrong with keys that stand for something else than chance. Shows nothing of them. */
function guessableKeys(environment: NodeJS.ProcessEnv): string[] {
  const held = ["MASTER_KEYS", "AUDIT_KEYS"].map((name) => keyWords(environment, name));
  const problems = held.flatMap(({ name, words }) => [
    ...(words.some((word) => new Set(Buffer.from(word, "base64")).size === 1)
      ? [`${name} must not have a key that is the same byte over and over: make it by openssl rand -base64 32`]
      : []),
    ...(new Set(words).size < words.length ? [`${name} must not have the same key twice`] : []),
  ]);
  const [master, audit] = held;
  if (master?.words.some((word) => audit?.words.includes(word)))
    problems.push(`${master.name} and ${audit?.name} must not have a key in common: what seals is not to sign`);
  return problems;
}

/** The keys of a variable, or of the file that another names, as text; none when they cannot be read, which others tell. */
function keyWords(environment: NodeJS.ProcessEnv, variable: string): { readonly name: string; readonly words: readonly string[] } {
  const given = textOf(environment, variable);
  const path = textOf(environment, `${variable}_FILE`);
  const name = given === undefined ? `${variable}_FILE` : variable;
  try {
    const text = given ?? (path === undefined ? "" : readFileSync(path, "utf8"));
    return { name, words: text.split(/[\s,]+/).filter((word) => word !== "") };
  } catch {
    return { name, words: [] };
  }
}

/** Of these variables, the second means something only with the first. */
const DEPENDENT: readonly (readonly [needed: string, dependent: string])[] = [
  ...["GRPC", "HTTP"].flatMap((door) => [
    [`${door}_TLS_KEY_FILE`, `${door}_TLS_CERT_FILE`] as const,
    [`${door}_TLS_CERT_FILE`, `${door}_TLS_KEY_FILE`] as const,
    [`${door}_TLS_CERT_FILE`, `${door}_TLS_CLIENT_CA_FILE`] as const,
    [`${door}_TLS_CLIENT_CA_FILE`, `${door}_TLS_CLIENT_CERT`] as const,
  ]),
  ["MONGODB_TLS_KEY_FILE", "MONGODB_TLS_CERT_FILE"],
  ["MONGODB_TLS_CERT_FILE", "MONGODB_TLS_KEY_FILE"],
  ["NATS_TLS_KEY_FILE", "NATS_TLS_CERT_FILE"],
  ["NATS_TLS_CERT_FILE", "NATS_TLS_KEY_FILE"],
  ["CLI_KEY_FILE", "CLI_CERT_FILE"],
  ["CLI_CERT_FILE", "CLI_KEY_FILE"],
];

/** An account with a delivery provider is of use only as a whole. */
const ACCOUNTS: readonly (readonly string[])[] = [
  ["UBER_CUSTOMER_ID", "UBER_CLIENT_ID", "UBER_CLIENT_SECRET", "UBER_WEBHOOK_KEY"],
  ["DOORDASH_DEVELOPER_ID", "DOORDASH_KEY_ID", "DOORDASH_SIGNING_SECRET", "DOORDASH_WEBHOOK_AUTHORIZATION"],
  ["SENDGRID_API_KEY", "SENDGRID_FROM"],
  ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_FROM"],
  ["META_API_KEY", "META_PHONE_NUMBER_ID", "META_APP_SECRET", "META_VERIFY_TOKEN"],
];

function contradictions(environment: NodeJS.ProcessEnv, values: Partial<Values>): string[] {
  const isSet = (name: string) => textOf(environment, name) !== undefined;
  const problems = DEPENDENT.flatMap(([needed, dependent]) =>
    isSet(dependent) && !isSet(needed) ? [`${dependent} is set, but ${needed} is not: set both`] : [],
  );
  for (const account of ACCOUNTS) {
    const missing = account.filter((name) => !isSet(name));
    if (missing.length > 0 && missing.length < account.length)
      problems.push(
        `${account.filter(isSet).join(" and ")} ${account.length - missing.length === 1 ? "is" : "are"} set, but ${missing.join(" and ")} not: set all of them, or none`,
      );
  }
  if (isSet("MASTER_KEYS") && isSet("MASTER_KEYS_FILE")) problems.push("MASTER_KEYS and MASTER_KEYS_FILE are both set: set one");
  if (isSet("AUDIT_KEYS") && isSet("AUDIT_KEYS_FILE")) problems.push("AUDIT_KEYS and AUDIT_KEYS_FILE are both set: set one");
  const { defaultDeadlineMs, maxDeadlineMs, tokenIssuers = [], jwtIssuer, production } = values;
  for (const { issuer, jwksUrl } of tokenIssuers) {
    if (issuer === jwtIssuer)
      problems.push(`TOKEN_ISSUERS must not name ${issuer}, which is JWT_ISSUER: these are Ordertrail's own tokens`);
    if (production && isOpenToOthers(jwksUrl))
      problems.push(`TOKEN_ISSUERS must have a jwks_url with https:// for ${issuer} in production, unless it is on this machine`);
  }
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

function matching(pattern: RegExp, text: string, rule: string, isSecret = false): string {
  if (!pattern.test(text)) throw new Error(isSecret ? rule : `is "${text}", but ${rule}`);
  return text;
}

function baseUrl(text: string): string {
  if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol))
    throw new Error(`is "${text}", but must be an address with https://`);
  return text.replace(/\/+$/, "");
}

/** Shows nothing of the text, as it may hold a password. MongoDB's own addresses list several hosts, which URL does not read. */
function urlText(text: string, schemes: readonly string[]): string {
  const [scheme, rest] = text.split("//", 2);
  if (!schemes.includes(scheme ?? "") || !rest) throw new Error(`must begin with ${schemes.map((known) => `${known}//`).join(" or ")}`);
  return text;
}

/** Fails early for a file that the process may not read; what is in it, others check. */
function readablePath(text: string): string {
  const path = resolve(text);
  try {
    accessSync(path, constants.R_OK);
  } catch (error) {
    throw new Error(`names a file that cannot be read (${(error as NodeJS.ErrnoException).code})`);
  }
  return path;
}

function isOpenToOthers({ protocol, hostname }: URL): boolean {
  return protocol === "http:" && hostname !== "localhost" && hostname !== "[::1]" && !hostname.startsWith("127.");
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
