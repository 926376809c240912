import { createApp } from "../../src/app.ts";
import { loadConfig } from "../../src/config.ts";
import { createLogger } from "../../src/logger.ts";

/** The application in a process of its own, as the environment configures it, until SIGTERM. Says where it listens. */
const config = loadConfig();
if (config.mongodbUrl === undefined) throw new Error("MONGODB_URL is not set");
const app = await createApp({ ...config, mongodbUrl: config.mongodbUrl }, createLogger("silent"));
process.once("SIGTERM", () => {
  void app.stop().then(() => process.exit(0));
});
// Whoever started it is gone.
process.stdin.resume().once("end", () => process.exit(1));
process.stdout.write(`${JSON.stringify(app.addresses)}\n`);
