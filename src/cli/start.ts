import { join } from "node:path";
import type { Command } from "commander";
import type { Logger } from "pino";
import { roleName, TOKEN_ROLES } from "../access/claims.ts";
import { issueDevelopmentToken } from "../access/development-token.ts";
import { createDevelopmentKeys } from "../access/keys.ts";
import { type Config, loadConfig } from "../config.ts";
import { assertPortFree } from "../embedded/free-port.ts";
import { keepRunning } from "../embedded/keep-running.ts";
import { type Mongod, startMongod } from "../embedded/mongod.ts";
import { type NatsServer, startNatsServer } from "../embedded/nats-server.ts";
import type { ServerName } from "../embedded/server-binaries.ts";
import { startValkeyServer, type ValkeyServer } from "../embedded/valkey-server.ts";
import { createLogger, logTo } from "../logger.ts";
import { type PlayedAccounts, startMessageSandbox } from "../sandbox/message-sandbox.ts";
import { startSandbox } from "../sandbox/sandbox.ts";
import { EXIT } from "./exit-codes.ts";
import { claimInstance, type InstanceAddresses } from "./instance.ts";
import { publicAddress } from "./public-address.ts";

const TOKEN_SECONDS = 12 * 3600;

/** Registers `start`: runs Ordertrail until it is asked to end, with servers of its own where no address is given. */
export function registerStart(program: Command): void {
  program
    .command("start")
    .description(
      "run Ordertrail until Ctrl-C or SIGTERM; with a MongoDB, a NATS and a Valkey of its own unless MONGODB_URL, NATS_URL and REDIS_URL are set",
    )
    .action(async () => {
      const config = loadConfig();
      await run(config, createLogger(config.logLevel, logTo(process.stderr.fd)));
    });
}

async function run(config: Config, logger: Logger): Promise<void> {
  const ending = whenAskedToEnd();
  await using cleanup = new AsyncDisposableStack();
  const lock = await claimInstance(config.dataDir).catch((error: unknown) => explain(error, config.dataDir));
  cleanup.defer(() => lock.release());
  await checkPort("GRPC", config.grpcHost, config.grpcPort);
  await checkPort("HTTP", config.httpHost, config.httpPort);

  // Most of the code is loaded while the servers start; the other verbs never need it.
  const loading = import("../app.ts");
  const mongodbUrl = config.mongodbUrl ?? (await keepOwn("mongod", startMongod, config, logger, cleanup));
  const natsUrl = config.natsUrl ?? (await keepOwn("nats-server", startNatsServer, config, logger, cleanup));
  const redisUrl = config.redisUrl ?? (await keepOwnValkey(config, logger, cleanup));
  const { createApp } = await loading;
  let http: string | undefined;
  const sandbox = playsProviders(config)
    ? cleanup.use(await startSandbox({ webhooksTo: () => http, stageMs: config.sandboxStepMs }))
    : undefined;
  const couriers = { ...config.couriers, ...(sandbox && { uber: sandbox.uber.settings, doordash: sandbox.doordash.settings }) };
  const messages = config.production ? undefined : await startMessageSandbox(channelsToPlay(config), () => http);
  if (messages) cleanup.use(messages);
  const channels = { ...config.channels, ...messages?.accounts };
  const app = await createApp({ ...config, couriers, channels, mongodbUrl, natsUrl, redisUrl }, logger);
  cleanup.defer(() => app.stop());
  http = app.addresses.http;

  const addresses = {
    ...{ ...app.addresses, mongodb: publicAddress(mongodbUrl), nats: publicAddress(natsUrl) },
    ...(redisUrl !== undefined && { redis: publicAddress(redisUrl) }),
    ...(messages && { outbox: messages.outbox }),
  };
  await lock.publish(addresses, app.serverNames);
  const played = messages ? channelsToPlay(config) : new Set<string>();
  const text = await welcome(config, addresses, app.serverNames.grpc !== undefined, sandbox !== undefined, played);
  const asked = await Promise.race([ending, Promise.resolve(undefined)]);
  if (asked === undefined) process.stdout.write(text);
  logger.info({ signal: await ending }, "ending: calls under way are finished first");
}

/** The channels without an account: in development, whoever would carry their messages is played on this machine. */
function channelsToPlay({ channels }: Config): ReadonlySet<keyof PlayedAccounts> {
  return new Set((["email", "sms", "whatsapp", "push"] as const).filter((channel) => !channels[channel]));
}

/** Whether delivery providers are played on this machine: in development, and when there is an account with neither. */
function playsProviders({ production, couriers }: Config): boolean {
  return !production && !couriers.uber && !couriers.doordash;
}

/** Runs a server of this instance's own, with its data in DATA_DIR, until the stack is disposed of; returns its address. */
async function keepOwn<T extends Mongod | NatsServer | ValkeyServer>(
  name: ServerName,
  start: (options: { dataDir: string; port?: number }) => Promise<T>,
  { dataDir }: Config,
  logger: Logger,
  cleanup: AsyncDisposableStack,
): Promise<string> {
  const ownDir = join(dataDir, name);
  const server = await keepRunning(name, (port) => start({ dataDir: ownDir, ...(port !== undefined && { port }) }), logger);
  cleanup.defer(() => server.stop());
  return server.first.url;
}

/** As `keepOwn`; undefined, with a warning, where none can run: limits are then kept in memory. Production is told by others. */
async function keepOwnValkey(config: Config, logger: Logger, cleanup: AsyncDisposableStack): Promise<string | undefined> {
  if (config.production) return undefined;
  try {
    return await keepOwn("valkey-server", startValkeyServer, config, logger, cleanup);
  } catch (error) {
    logger.warn({ reason: (error as Error).message }, "there is no Valkey: limits are kept in memory");
    return undefined;
  }
}

/** Says of a folder that cannot be used what can be done about it. */
function explain(error: unknown, dataDir: string): never {
  if (!(error instanceof Error && "code" in error)) throw error;
  throw new Error(`the folder ${dataDir} cannot be used (${error.code}): set DATA_DIR to one that can be made and written`);
}

async function checkPort(door: "GRPC" | "HTTP", host: string, port: number): Promise<void> {
  try {
    await assertPortFree(port, host);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EADDRINUSE") throw new Error(`port ${port} is taken by another program: set ${door}_PORT to a free one, or to 0 for any`);
    throw new Error(`cannot listen on ${host}:${port} (${code}): set ${door}_HOST and ${door}_PORT to an address of this machine`);
  }
}

/** A signal within this time of the first is the same wish: npm passes on the Ctrl-C that the terminal sends to all. */
const SAME_WISH_MS = 500;

/** Resolves at the first signal to end. A later one ends the process at once; its servers then end by themselves. */
function whenAskedToEnd(): Promise<NodeJS.Signals> {
  const { promise, resolve } = Promise.withResolvers<NodeJS.Signals>();
  let firstAt: number | undefined;
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {
      if (firstAt === undefined) resolve(signal);
      else if (performance.now() - firstAt > SAME_WISH_MS) process.exit(EXIT.failed);
      firstAt ??= performance.now();
    });
  }
  return promise;
}

async function welcome(
  config: Config,
  addresses: InstanceAddresses,
  grpcTls: boolean,
  sandbox: boolean,
  played: ReadonlySet<string>,
): Promise<string> {
  const { grpc, http, mongodb, nats, redis } = addresses;
  return `
Ordertrail is ready.

  gRPC           ${grpc}${grpcTls ? "  (TLS)" : ""}
  Connect, REST  ${http}
  MongoDB        ${mongodb}
  NATS           ${nats}
  Valkey         ${redis ?? "none: limits are kept in memory"}
${sandbox ? "  Deliveries     Uber and DoorDash are played here; set their accounts to have real couriers\n" : ""}${played.size > 0 ? `  Messages       NOTHING IS REALLY SENT by ${[...played].join(", ")}: they are played here; read them with \`outbox\`\n` : ""}${config.production ? "" : await firstSteps(config, addresses, grpcTls)}
Ctrl-C ends it; the data stays in ${config.dataDir}.

`;
}

const ORDERTRAIL = "npm run -s ordertrail --";
const OPERATOR_TOKEN = `$(${ORDERTRAIL} token --role operator --subject me)`;
const FIRST_ORDER = JSON.stringify({
  order_id: "first-order",
  store_id: "store-1",
  customer_id: "customer-1",
  items: [{ item_id: "apples", name: "Apples", quantity: 2, unit_price: { amount_minor: 349, currency: "EUR" } }],
  request_id: "first",
});

/** A token for each role, and commands to copy: for an instance that issues its own tokens. */
async function firstSteps(config: Config, { grpc, http }: InstanceAddresses, grpcTls: boolean): Promise<string> {
  const keys = await createDevelopmentKeys(config.dataDir);
  const tokens = TOKEN_ROLES.map(roleName).map(async (role) => {
    const subject = role === "partner" ? "uber" : `${role}-1`;
    const storeId = role === "store" ? "store-1" : undefined;
    const token = await issueDevelopmentToken(keys, config, { role, subject, storeId, expiresInSeconds: TOKEN_SECONDS });
    return `  ${`${role} (${subject})`.padEnd(24)} ${token}\n`;
  });
  const trust = config.cliTls.caFile === undefined ? "" : `-cacert ${config.cliTls.caFile} `;
  const curlTrust = config.cliTls.caFile === undefined ? "" : `--cacert ${config.cliTls.caFile} `;
  return `
A token for each role, valid for 12 hours:

${(await Promise.all(tokens)).join("")}
A first order over gRPC, the same order over REST, and a whole life at once:

  grpcurl ${grpcTls ? trust : "-plaintext "}-H "Authorization: Bearer ${OPERATOR_TOKEN}" -d '${FIRST_ORDER}' ${grpc} ordertrail.v1.OrderTrackingService/InitTracking
  curl -s ${http.startsWith("https:") ? curlTrust : ""}-H "Authorization: Bearer ${OPERATOR_TOKEN}" ${http}/orders/tracking/first-order
  ${ORDERTRAIL} demo
`;
}
