import { Valkey } from "iovalkey";
import type { Logger } from "pino";

/** The connection to Valkey, which comes back by itself. */
export type ValkeyConnection = {
  readonly client: Valkey;
  /** Throws when Valkey does not answer, or takes nothing. */
  check(): Promise<void>;
  stop(): void;
};

/** A command that takes longer has failed. */
const COMMAND_TIMEOUT_MS = 200;
/** A server that is silent for so long, though asked, is away: no further command waits for it until it answers again. */
const SILENCE_MS = 500;
const CONNECT_TIMEOUT_MS = 2000;
const MAX_RETRY_MS = 1000;
const CHECK_KEY = "ordertrail:check";

/**
 * Connects to Valkey, and again whenever the connection is lost. Commands fail at once while there is none. That it is
 * away is logged once, and that it is back.
 */
export function connectToValkey(url: string, logger: Logger): ValkeyConnection {
  const client = new Valkey(url, {
    commandTimeout: COMMAND_TIMEOUT_MS,
    socketTimeout: SILENCE_MS,
    connectTimeout: CONNECT_TIMEOUT_MS,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    // With the connection, what waits for an answer on it fails.
    maxRetriesPerRequest: 0,
    retryStrategy: (attempts) => Math.min(50 * attempts, MAX_RETRY_MS),
  });
  let isAway = false;
  let isStopped = false;
  let reason: string | undefined;
  client.on("error", ({ message }: Error) => {
    reason = message;
  });
  client.on("close", () => {
    if (isAway || isStopped) return;
    isAway = true;
    logger.warn({ reason }, "Valkey cannot be reached: until it is back, each process keeps limits by itself");
  });
  client.on("ready", () => {
    if (isAway) logger.info("Valkey is back: limits are shared again");
    isAway = false;
    reason = undefined;
  });
  return {
    client,
    async check() {
      if (client.status !== "ready") throw new Error(`Valkey cannot be reached (${reason ?? client.status})`);
      await client.set(CHECK_KEY, "1", "PX", 1000);
    },
    stop() {
      isStopped = true;
      client.disconnect();
    },
  };
}
