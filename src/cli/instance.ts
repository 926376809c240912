import { randomUUID } from "node:crypto";
import { link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { identifyProcess } from "../embedded/process-identity.ts";
import { makeFolder } from "../make-folder.ts";

/** Where an instance is reached. */
export type InstanceAddresses = {
  readonly grpc: string;
  readonly http: string;
  readonly mongodb: string;
  readonly nats: string;
  /** Absent when limits are kept in memory. */
  readonly redis?: string;
  /** Where what the providers that are played here have taken is read; absent when none is played. */
  readonly outbox?: string;
};

/** Of each port that speaks TLS, the name that its certificate is made out to; empty for one without a name. */
export type ServerNames = { readonly grpc?: string; readonly http?: string };

/** The running instance of a data folder. */
export type Instance = {
  readonly pid: number;
  /** Tells this process from a later one with the same id. */
  readonly startedAt: string;
  /** Absent while it starts. */
  readonly addresses?: InstanceAddresses;
  readonly serverNames?: ServerNames;
};

/** The right to be the only instance of a data folder. */
export type InstanceLock = {
  /** Tells others where this instance is reached. */
  publish(addresses: InstanceAddresses, serverNames?: ServerNames): Promise<void>;
  release(): Promise<void>;
};

/** Thrown when another process is the data folder's instance. */
export class InstanceRunningError extends Error {
  override readonly name = "InstanceRunningError";
  readonly instance: Instance;

  constructor(instance: Instance, dataDir: string) {
    const where = instance.addresses ? `gRPC ${instance.addresses.grpc}, HTTP ${instance.addresses.http}` : "it is still starting";
    super(`Ordertrail already runs with the data in ${dataDir}: process ${instance.pid}, ${where}`);
    this.instance = instance;
  }
}

const fileOf = (dataDir: string): string => join(dataDir, "instance.json");

/** The running instance of a data folder; undefined when there is none, or only what a killed one left behind. */
export async function findInstance(dataDir: string): Promise<Instance | undefined> {
  const instance = await readInstance(fileOf(dataDir));
  return instance && isAlive(instance) ? instance : undefined;
}

/**
 * Makes this process the data folder's instance. Of several that try at once, one succeeds; what a killed instance left
 * behind does not count. Throws an InstanceRunningError when there is one already.
 */
export async function claimInstance(dataDir: string): Promise<InstanceLock> {
  const path = fileOf(dataDir);
  const self: Instance = { pid: process.pid, startedAt: identifyProcess(process.pid)?.startedAt ?? "" };
  await makeFolder(dataDir);
  // A link, unlike a rename, fails when the name is taken.
  while (!(await putInPlace(path, self, link))) {
    const holder = await readInstance(path);
    if (holder && isAlive(holder)) throw new InstanceRunningError(holder, dataDir);
    await removeStale(path);
  }
  return {
    async publish(addresses, serverNames = {}) {
      await putInPlace(path, { ...self, addresses, serverNames }, rename);
    },
    release: () => rm(path, { force: true }),
  };
}

/** Moves the file aside before removing it: should a living instance have taken the place meanwhile, it gets it back. */
async function removeStale(path: string): Promise<void> {
  const aside = `${path}.${randomUUID()}`;
  if (!(await succeeds(rename(path, aside), "ENOENT"))) return;
  const holder = await readInstance(aside);
  if (holder && isAlive(holder)) await succeeds(link(aside, path), "EEXIST");
  await rm(aside, { force: true });
}

async function putInPlace(path: string, instance: Instance, move: typeof link | typeof rename): Promise<boolean> {
  const draft = `${path}.${randomUUID()}`;
  await writeFile(draft, `${JSON.stringify(instance, undefined, 2)}\n`, { mode: 0o600 });
  try {
    return await succeeds(move(draft, path), "EEXIST");
  } finally {
    await rm(draft, { force: true });
  }
}

async function readInstance(path: string): Promise<Instance | undefined> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as Instance;
  } catch (error) {
    // What cannot be parsed was not written by us: files are put in place whole.
    if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

function isAlive({ pid, startedAt }: Instance): boolean {
  return identifyProcess(pid)?.startedAt === startedAt;
}

/** Whether an operation succeeds, when it may fail with one code only. */
async function succeeds(operation: Promise<unknown>, code: string): Promise<boolean> {
  try {
    await operation;
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === code) return false;
    throw error;
  }
}
