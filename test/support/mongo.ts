import { randomUUID } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Db, MongoClient } from "mongodb";
import { expect, inject } from "vitest";
import { type Mongod, startMongodMember } from "../../src/embedded/mongod.ts";
import { eventually } from "./eventually.ts";
import { temporaryFolder } from "./temporary-folder.ts";

/** An empty database on the shared mongod, for one test. */
export type TestDatabase = AsyncDisposable & {
  /** The server's address, for processes that the test starts. */
  readonly url: string;
  readonly name: string;
  readonly client: MongoClient;
  readonly db: Db;
};

/** A fresh database with a client of its own; dropped, and the client closed, at the end of the `await using` block. */
export async function testDatabase(): Promise<TestDatabase> {
  const url = inject("mongodbUrl");
  const name = `test_${randomUUID().replaceAll("-", "")}`;
  const client = await new MongoClient(url).connect();
  const db = client.db(name);
  const dispose = async () => {
    await db.dropDatabase();
    await client.close();
  };
  return { url, name, client, db, [Symbol.asyncDispose]: dispose };
}

/** One member of a `ReplicaSet`; stays the same through `kill` and `restart`. */
export type Member = { readonly port: number };

/** A replica set of real mongods, to be treated badly. */
export type ReplicaSet = AsyncDisposable & {
  readonly url: string;
  readonly members: readonly Member[];
  /** The member that now takes writes; waits for an election that is under way. */
  primary(): Promise<Member>;
  /** Makes the primary step down for some seconds; returns the member that it was. */
  stepDown(): Promise<Member>;
  /** Ends a member without warning, and waits until it is gone. */
  kill(member: Member): Promise<void>;
  /** Starts a killed member again, on its port and data. */
  restart(member: Member): Promise<void>;
  /** Freezes a member (SIGSTOP) and waits until it stands still: its connections stay open, and nothing answers. */
  pause(member: Member): Promise<void>;
  /** Lets a frozen member go on. */
  resume(member: Member): void;
  /** Runs a command on a member's admin database, whatever state the member is in; fail points are enabled. */
  command(member: Member, command: Record<string, unknown>): Promise<Record<string, unknown>>;
};

const STEP_DOWN_SECONDS = 5;

/** Starts and initiates a replica set, and waits for its primary; all is killed and removed at the end of the block. */
export async function startReplicaSet(options: { members: number; electionTimeoutMillis: number }): Promise<ReplicaSet> {
  const folder = await temporaryFolder();
  const start = (index: number, port?: number) =>
    startMongodMember({
      dataDir: join(folder.path, `member-${index}`),
      replSet: "test",
      cacheSizeMib: 256,
      failPoints: true,
      ...(port === undefined ? {} : { port }),
    });
  const running = await Promise.all(Array.from({ length: options.members }, (_, index) => start(index)));
  const members: readonly Member[] = running.map(({ port }) => ({ port }));
  const hosts = members.map(({ port }) => `127.0.0.1:${port}`);
  const processOf = (member: Member) => running[members.indexOf(member)] as Mongod;

  await adminCommand(members[0] as Member, {
    replSetInitiate: {
      _id: "test",
      members: hosts.map((host, _id) => ({ _id, host })),
      settings: {
        electionTimeoutMillis: options.electionTimeoutMillis,
        heartbeatIntervalMillis: Math.ceil(options.electionTimeoutMillis / 5),
      },
    },
  });

  const primary = () =>
    eventually(async () => {
      const answers = await Promise.all(members.map((member) => isPrimary(member)));
      const found = members[answers.indexOf(true)];
      if (found === undefined) {
        throw new Error("the replica set has no primary");
      }
      return found;
    }, 30_000);

  await primary();
  return {
    url: `mongodb://${hosts.join(",")}/?replicaSet=test`,
    members,
    primary,
    async stepDown() {
      const member = await primary();
      await adminCommand(member, { replSetStepDown: STEP_DOWN_SECONDS, secondaryCatchUpPeriodSecs: 2, force: true });
      return member;
    },
    kill: (member) => processOf(member).kill(),
    async restart(member) {
      const index = members.indexOf(member);
      running[index] = await start(index, member.port);
    },
    async pause(member) {
      const { pid } = processOf(member);
      process.kill(pid, "SIGSTOP");
      await eventually(() => assertFrozen(pid));
    },
    resume: (member) => process.kill(processOf(member).pid, "SIGCONT"),
    command: adminCommand,
    async [Symbol.asyncDispose]() {
      await Promise.all(running.map((mongod) => mongod.kill()));
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** The signal only asks: on a busy machine, some threads go on for a while. */
async function assertFrozen(pid: number): Promise<void> {
  if (process.platform !== "linux") return;
  const threads = (await readdir(`/proc/${pid}/task`)).map((thread) => readFile(`/proc/${pid}/task/${thread}/stat`, "utf8"));
  for (const stat of await Promise.all(threads)) expect(stat).toMatch(/\) T /);
}

async function isPrimary(member: Member): Promise<boolean> {
  return adminCommand(member, { hello: 1 }).then(
    (hello) => hello["isWritablePrimary"] === true,
    () => false,
  );
}

async function adminCommand(member: Member, command: Record<string, unknown>): Promise<Record<string, unknown>> {
  await using client = new MongoClient(`mongodb://127.0.0.1:${member.port}/?directConnection=true`, {
    serverSelectionTimeoutMS: 1_000,
    socketTimeoutMS: 10_000,
  });
  return await client.db("admin").command(command);
}
