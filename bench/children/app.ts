import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { issueDevelopmentToken } from "../../src/access/development-token.ts";
import { createDevelopmentKeys } from "../../src/access/keys.ts";
import { createApp } from "../../src/app.ts";
import { type AppConfig, loadConfig } from "../../src/config.ts";
import { createLogger, logTo } from "../../src/logger.ts";
import { serveParent } from "../child.ts";

/** Where a server listens, and what lets a back-end service in. */
export type Connection = { readonly address: string; readonly token: string };

/** The same, and what is in use of the process's heap. */
export type Held = Connection & { readonly heapMib: number };

/**
 * Ordertrail itself, all roles in this process, without NATS unless it is told of one, and everything else as it is by
 * default, its log lines included; they go to a file. Answers where its gRPC port is; and, told to, what its heap holds when nothing is left that could be let go of.
 */
await serveParent<
  { readonly mongodbUrl: string; readonly natsUrl?: string; readonly database: string; readonly folder: string },
  "connection" | "heap",
  Connection | Held
>(async ({ mongodbUrl, natsUrl, database, folder }) => {
  const environment = {
    MONGODB_URL: mongodbUrl,
    NATS_URL: natsUrl,
    DATABASE_NAME: database,
    DATA_DIR: folder,
    GRPC_PORT: "0",
    HTTP_PORT: "0",
  };
  const config: AppConfig = { ...loadConfig(environment), mongodbUrl };
  const app = await createApp(config, createLogger(config.logLevel, logTo(join(folder, "ordertrail.log"))));
  const keys = await createDevelopmentKeys(config.dataDir);
  const token = await issueDevelopmentToken(keys, config, { role: "service", subject: "bench", expiresInSeconds: 3600 });
  const connection = { address: app.addresses.grpc, token };
  return {
    answer: (task) => Promise.resolve(task === "heap" ? { ...connection, heapMib: heapMib() } : connection),
    close: () => app.stop(),
  };
});

function heapMib(): number {
  setFlagsFromString("--expose-gc");
  const collect: () => void = runInNewContext("gc");
  collect();
  return process.memoryUsage().heapUsed / 1024 ** 2;
}
