import { createApp } from "../../src/app.ts";
import { loadConfig } from "../../src/config.ts";
import { DeliveryProvider } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { createLogger } from "../../src/logger.ts";
import { courierOf } from "../support/provider.ts";

/** A process that answers calls, with one delivery provider, until it is killed. Says its address. */
const [mongodbUrl = "", database = "", dataDir = "", provider = ""] = process.argv.slice(2);
const config = loadConfig({
  ...{ DATABASE_NAME: database, DATA_DIR: dataDir, ROLES: "api" },
  ...{ GRPC_PORT: "0", HTTP_PORT: "0", DELIVERY_ANSWER_MS: "30000" },
});
const app = await createApp({ ...config, mongodbUrl }, createLogger("silent"), undefined, {
  couriers: [courierOf(DeliveryProvider.UBER, provider)],
});
process.stdout.write(`${app.addresses.http}\n`);
