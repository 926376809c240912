import type { Command } from "commander";
import type { Db } from "mongodb";
import { type Config, loadConfig } from "../config.ts";
import { createLogClient } from "../log/log-client.ts";
import { EXIT } from "./exit-codes.ts";
import { findInstance } from "./instance.ts";

/** Does something with the database of the configuration: the one at MONGODB_URL, or the running instance's own. */
export async function withDatabase(command: Command, use: (db: Db, config: Config) => Promise<void>): Promise<void> {
  const config = loadConfig();
  const url = config.mongodbUrl ?? (await findInstance(config.dataDir))?.addresses?.mongodb;
  if (url === undefined) {
    return command.error(`error: no instance runs with the data in ${config.dataDir}: npm start, or set MONGODB_URL`, {
      exitCode: EXIT.notRunning,
    });
  }
  await using client = createLogClient(url, config.mongodbTls);
  await use(client.db(config.databaseName), config);
}
