import { connect } from "node:net";
import { resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { type Db, MongoClient, MongoNetworkError, MongoServerError } from "mongodb";
import { type ServerProcess, startServerProcess } from "./server-process.ts";

/** A running mongod. */
export type Mongod = ServerProcess & {
  /** Where a client connects to. */
  readonly url: string;
};

export type MongodOptions = {
  /** The folder of the data, made if absent; it belongs to this mongod alone while it runs. */
  readonly dataDir: string;
  /** The port on 127.0.0.1; by default where it was before, or one that is free. */
  readonly port?: number;
  /** The name of the replica set. */
  readonly replSet?: string;
  /** Memory for WiredTiger's cache. */
  readonly cacheSizeMib?: number;
  /** Lets tests set fail points. */
  readonly failPoints?: boolean;
  /** Lets go of dropped collections at once: for many databases that live for a moment, whose files would otherwise stay for minutes. */
  readonly forgetful?: boolean;
  /** Writes its files uncompressed, so that tests can search them. */
  readonly uncompressed?: boolean;
};

/** On another port, mongod asks who answers on its former one; a program that takes the connection and is silent costs it 30 s. */
const PRIMARY_TIMEOUT_MS = 60_000;
const POLL_MS = 10;

/**
 * Starts mongod as a replica set of one, initiated if the folder is new, and returns when it is a writable primary.
 * A folder may come back on another port: the set is then told of it. Everything acknowledged with `j: true` is on
 * disk and survives `kill()`.
 */
export async function startMongod(options: MongodOptions): Promise<Mongod> {
  const replSet = options.replSet ?? "ordertrail";
  const mongod = await startMongodMember({ ...options, replSet });
  try {
    await becomePrimary(mongod.port, replSet);
  } catch (error) {
    await mongod.kill();
    throw error;
  }
  return { ...mongod, url: `mongodb://127.0.0.1:${mongod.port}/?replicaSet=${replSet}` };
}

/**
 * Starts mongod as one member of a replica set that someone else initiates, and returns when it takes connections.
 * Its `url` leads to this member alone, whatever its state.
 */
export async function startMongodMember(options: MongodOptions & { replSet: string }): Promise<Mongod> {
  const dataDir = resolve(options.dataDir);
  const server = await startServerProcess({
    name: "mongod",
    dataDir,
    pidFile: "mongod.lock",
    port: options.port,
    args: (port) => [
      ...["--dbpath", dataDir, "--port", String(port), "--bind_ip", "127.0.0.1", "--nounixsocket"],
      ...["--replSet", options.replSet, "--oplogSize", "990", "--quiet"],
      ...["--wiredTigerCacheSizeGB", String((options.cacheSizeMib ?? 1024) / 1024)],
      // Alone, it has nobody to hand over to: without these, an orderly stop waits for seconds.
      ...["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"],
      ...["--setParameter", "diagnosticDataCollectionEnabled=false"],
      ...(options.forgetful ? ["--setParameter", "minSnapshotHistoryWindowInSeconds=0", "--syncdelay", "10"] : []),
      ...(options.failPoints ? ["--setParameter", "enableTestCommands=1"] : []),
      ...(options.uncompressed
        ? [
            "--wiredTigerCollectionBlockCompressor",
            "none",
            "--wiredTigerJournalCompressor",
            "none",
            "--wiredTigerIndexPrefixCompression",
            "0",
          ]
        : []),
    ],
    isReady: takesConnections,
  });
  return { ...server, url: `mongodb://127.0.0.1:${server.port}/?directConnection=true` };
}

async function takesConnections(port: number): Promise<boolean> {
  const { promise, resolve: settle } = Promise.withResolvers<boolean>();
  const socket = connect(port, "127.0.0.1", () => settle(true)).once("error", () => settle(false));
  return promise.finally(() => socket.destroy());
}

async function becomePrimary(port: number, replSet: string): Promise<void> {
  await using client = new MongoClient(`mongodb://127.0.0.1:${port}/?directConnection=true`);
  const admin = client.db("admin");
  const deadline = Date.now() + PRIMARY_TIMEOUT_MS;
  const until = async (step: () => Promise<boolean>) => {
    while (!(await step().catch(falseIfDisconnected))) {
      if (Date.now() > deadline) throw new Error(`mongod on port ${port} was not primary after ${PRIMARY_TIMEOUT_MS / 1000} seconds`);
      await pause(POLL_MS);
    }
  };
  await until(() => isConfigured(admin, { _id: 0, host: `127.0.0.1:${port}` }, replSet));
  await until(async () => (await admin.command({ hello: 1 }))["isWritablePrimary"] === true);
}

/** Sees to it that the set has this one member; false when mongod is still reading what it knows of the set. */
async function isConfigured(admin: Db, member: { _id: number; host: string }, replSet: string): Promise<boolean> {
  try {
    const { config } = (await admin.command({ replSetGetConfig: 1 })) as { config: ReplicaSetConfig };
    if (config.members[0]?.host !== member.host) {
      const members = [{ ...config.members[0], ...member }];
      await admin.command({ replSetReconfig: { ...config, version: config.version + 1, members }, force: true });
    }
    return true;
  } catch (error) {
    if (!isError(error, "NotYetInitialized")) throw error;
  }
  try {
    await admin.command({ replSetInitiate: { _id: replSet, members: [member] } });
    return true;
  } catch (error) {
    if (!isError(error, "AlreadyInitialized")) throw error;
    return false;
  }
}

/** mongod closes its connections whenever its role in the set changes. */
function falseIfDisconnected(error: unknown): false {
  if (error instanceof MongoNetworkError) return false;
  throw error;
}

type ReplicaSetConfig = { readonly version: number; readonly members: readonly { readonly host: string }[] };

function isError(error: unknown, codeName: string): boolean {
  return error instanceof MongoServerError && error.codeName === codeName;
}
