// A process that mirrors a log until it is killed. Arguments: the address of MongoDB, the database, the address of NATS, the prefix.
import { startRelay } from "../../src/live/relay.ts";
import { createLogger } from "../../src/logger.ts";
import { startNatsClient } from "../../src/nats/nats-client.ts";
import { openLog } from "../support/open-log.ts";

const [url = "", database = "", natsUrl = "", prefix = ""] = process.argv.slice(2);
const logger = createLogger("silent");
const log = openLog(url, database);
const nats = startNatsClient({ url: natsUrl, tlsFiles: { caFile: undefined, certFile: undefined, keyFile: undefined } }, logger);
startRelay({ nats, reader: log.reader, settings: { prefix, maxAgeSeconds: 0, maxBytes: 0, replicas: 1 }, logger });
// Whoever started it holds the other end: when that is gone, nobody is left to end it.
process.stdin.once("end", () => process.exit(1)).resume();
