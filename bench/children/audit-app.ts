import { join } from "node:path";
import { MongoClient } from "mongodb";
import { issueDevelopmentToken } from "../../src/access/development-token.ts";
import { createDevelopmentKeys } from "../../src/access/keys.ts";
import { createApp } from "../../src/app.ts";
import { createAuditKeySource } from "../../src/audit/audit-keys.ts";
import { type AppConfig, loadConfig } from "../../src/config.ts";
import { createLogger, logTo } from "../../src/logger.ts";
import { runKeeper } from "../audit-keeper.ts";
import { serveParent } from "../child.ts";

/** Where a log is published, and what is needed to look at it. */
export type AuditConnection = { readonly grpc: string; readonly http: string; readonly token: string; readonly key: string };

/** Ordertrail over a log whose tree is made first; it only answers calls. */
await serveParent<
  { readonly mongodbUrl: string; readonly database: string; readonly folder: string; readonly entries: number },
  "connection",
  AuditConnection
>(async ({ mongodbUrl, database, folder, entries }) => {
  const client = await new MongoClient(mongodbUrl).connect();
  const keeper = await runKeeper(client.db(database), folder);
  await keeper.covered(entries);
  await keeper.stop();
  await client.close();
  const environment = { DATABASE_NAME: database, DATA_DIR: folder, GRPC_PORT: "0", HTTP_PORT: "0", ROLES: "api" };
  const config: AppConfig = { ...loadConfig(environment), mongodbUrl };
  const app = await createApp(config, createLogger(config.logLevel, logTo(join(folder, "ordertrail.log"))));
  const keys = await createDevelopmentKeys(config.dataDir);
  const token = await issueDevelopmentToken(keys, config, { role: "auditor", subject: "bench", expiresInSeconds: 36_000 });
  const [signer] = await createAuditKeySource(config).signers(config.auditOrigin);
  const { grpc, http } = app.addresses;
  return { answer: () => Promise.resolve({ grpc, http, token, key: signer?.verifier.text ?? "" }), close: () => app.stop() };
});
