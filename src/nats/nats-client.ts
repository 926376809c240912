import { readFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { type ConnectionOptions, connect, credsAuthenticator, Events, type NatsConnection } from "nats";
import type { Logger } from "pino";
import { type ClientTlsFiles, readClientTls } from "../tls-files.ts";

/** How this process reaches NATS. */
export type NatsSettings = {
  /** Such as nats://user:password@host:4222,other-host:4222, or tls://token@host:4222; what is special in a password is percent-encoded. */
  readonly url: string;
  /** A file of a user's JWT and seed, as NATS's own tools write it. */
  readonly credsFile?: string | undefined;
  /** With any of them, and with tls:, the connection is by TLS or not at all. */
  readonly tlsFiles: ClientTlsFiles;
};

/** A connection to NATS that is made for as long as it takes, and made again when it is lost. */
export type NatsClient = {
  /** The connection, while it stands; undefined while NATS is away. */
  connected(): NatsConnection | undefined;
  /** The same, and while it is being made again: subscriptions made meanwhile are NATS's when it stands. */
  connection(): NatsConnection | undefined;
  /** Calls back once there is a connection, at once if there is one; it then reconnects by itself, and renews its subscriptions. */
  onConnected(listener: (connection: NatsConnection) => void): void;
  /** Resolves after a round trip; rejects, with the reason, while there is no connection. */
  check(): Promise<void>;
  stop(): Promise<void>;
};

const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 5000;
const RECONNECT_MS = 500;
const CONNECT_MS = 5000;
const PING_MS = 1000;

/** Begins to connect. Nobody has to wait for it: while NATS is away, orders go on. Throws an Error when a file cannot be read. */
export function startNatsClient(settings: NatsSettings, logger: Logger): NatsClient {
  const options = optionsOf(settings);
  const stopping = new AbortController();
  let connection: NatsConnection | undefined;
  let fault: unknown;
  let stands = false;
  const listeners: ((connection: NatsConnection) => void)[] = [];
  const tried = Promise.withResolvers<void>();

  async function run(): Promise<void> {
    for (let retryMs = FIRST_RETRY_MS; !connection && !stopping.signal.aborted; retryMs = Math.min(2 * retryMs, LAST_RETRY_MS)) {
      try {
        connection = await connect(options);
        stands = true;
        void watch(connection);
        logger.info({ server: connection.getServer() }, "connected to NATS");
        for (const listener of listeners) listener(connection);
      } catch (error) {
        fault = error;
        logger.warn({ err: error, retry_ms: retryMs }, "NATS cannot be reached; trying again");
        tried.resolve();
        await pause(retryMs, undefined, { signal: stopping.signal }).catch(() => undefined);
      }
    }
    tried.resolve();
  }

  /** Ends with the connection. */
  async function watch(watched: NatsConnection): Promise<void> {
    for await (const { type } of watched.status()) {
      if (type === Events.Reconnect) logger.info("connected to NATS again");
      else if (type === Events.Disconnect) logger.warn("the connection to NATS is lost; connecting again");
      else continue;
      stands = type === Events.Reconnect;
    }
  }

  const connecting = run();
  return {
    connected: () => (stands && !connection?.isClosed() ? connection : undefined),
    connection: () => (connection?.isClosed() ? undefined : connection),
    onConnected(listener) {
      if (connection) listener(connection);
      else listeners.push(listener);
    },
    async check() {
      // Whoever asks at the very start hears how the first attempt went.
      await tried.promise;
      if (!connection) throw new Error("there is no connection to NATS", { cause: fault });
      await connection.flush();
    },
    async stop() {
      stopping.abort();
      await connecting;
      // Whoever has something to tell in this very moment must find none: one that is closed throws.
      stands = false;
      await connection?.close();
    },
  };
}

/** Whether NATS is shown who this is, so that it can keep others out: by a user, a token, credentials or a certificate. */
export function isKnownToNats({ url, tlsFiles, credsFile }: NatsSettings): boolean {
  return credsFile !== undefined || tlsFiles.certFile !== undefined || new URL(url.split(",")[0] ?? "").username !== "";
}

function optionsOf({ url, tlsFiles, credsFile }: NatsSettings): ConnectionOptions {
  const [first = "", ...others] = url.split(",");
  const { protocol, host, username, password } = new URL(first);
  const user = decodeURIComponent(username);
  const tls = readClientTls(tlsFiles);
  return {
    name: "ordertrail",
    servers: [host, ...others.map((other) => other.trim().replace(/^(nats|tls):\/\//, ""))],
    ...(credsFile !== undefined && { authenticator: credsAuthenticator(readFileSync(credsFile)) }),
    timeout: CONNECT_MS,
    maxReconnectAttempts: -1,
    reconnectTimeWait: RECONNECT_MS,
    // A server that is frozen or cut off closes no connection: without an answer to the second, it counts as away.
    pingInterval: PING_MS,
    maxPingOut: 2,
    // Who is told of something by NATS in the process that published it has been told there already.
    noEcho: true,
    // A server that takes nobody for a while, as while its accounts are read anew, is asked again.
    ignoreAuthErrorAbort: true,
    ...(user !== "" && (password === "" ? { token: user } : { user, pass: decodeURIComponent(password) })),
    ...((protocol === "tls:" || Object.keys(tls).length > 0) && {
      tls: { ...text(tls.ca, "ca"), ...text(tls.cert, "cert"), ...text(tls.key, "key") },
    }),
  };
}

function text<Name extends string>(pem: Buffer | undefined, name: Name): { readonly [name in Name]?: string } {
  return pem ? ({ [name]: pem.toString() } as { readonly [name in Name]: string }) : {};
}
