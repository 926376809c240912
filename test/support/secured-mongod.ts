import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { MongoClient } from "mongodb";
import { startServerProcess } from "../../src/embedded/server-process.ts";
import { createAuthority, writeIssued } from "./certificates.ts";
import { eventually } from "./eventually.ts";
import { temporaryFolder } from "./temporary-folder.ts";

/** A mongod that takes nobody without TLS, a certificate from its CA, and a password. */
export type SecuredMongod = AsyncDisposable & {
  readonly host: string;
  /** Who may read and write everything. */
  readonly user: string;
  readonly password: string;
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
};

/** Starts it as a replica set of one; it is killed and removed at the end of the `await using` block. */
export async function startSecuredMongod(): Promise<SecuredMongod> {
  await using parts = new AsyncDisposableStack();
  const folder = parts.use(await temporaryFolder());
  const authority = await createAuthority();
  const caFile = join(folder.path, "ca.crt");
  await writeFile(caFile, authority.cert);
  const issued = await authority.issue({ name: "mongod" });
  const serverFile = join(folder.path, "mongod.pem");
  await writeFile(serverFile, issued.cert + issued.key, { mode: 0o600 });
  const setKeyFile = join(folder.path, "set.key");
  await writeFile(setKeyFile, randomBytes(96).toString("base64"), { mode: 0o600 });
  const client = await writeIssued(folder.path, "client", await authority.issue({ name: "ordertrail" }));

  const dataDir = join(folder.path, "data");
  const server = await startServerProcess({
    name: "mongod",
    dataDir,
    pidFile: "mongod.lock",
    port: undefined,
    args: (port) => [
      ...["--dbpath", dataDir, "--port", String(port), "--bind_ip", "127.0.0.1", "--nounixsocket"],
      ...["--replSet", "secured", "--oplogSize", "990", "--quiet", "--wiredTigerCacheSizeGB", "0.25"],
      ...["--tlsMode", "requireTLS", "--tlsCertificateKeyFile", serverFile, "--tlsCAFile", caFile],
      ...["--auth", "--keyFile", setKeyFile, "--setParameter", "diagnosticDataCollectionEnabled=false"],
    ],
    isReady: takesConnections,
  });
  parts.defer(() => server.kill());
  const host = `127.0.0.1:${server.port}`;
  const [user, password] = ["ordertrail", `p@ss/w:rd?${randomBytes(8).toString("hex")}`];
  await addUser(host, { caFile, ...client }, user, password);
  const running = parts.move();
  return { host, user, password, caFile, ...client, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

async function takesConnections(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(port, "127.0.0.1", () => resolve(true)).once("error", () => resolve(false));
  return promise.finally(() => socket.destroy());
}

/** Initiates the set, and makes its first user, which mongod allows to this machine as long as there is none. */
async function addUser(
  host: string,
  { caFile, certFile, keyFile }: { caFile: string; certFile: string; keyFile: string },
  user: string,
  password: string,
): Promise<void> {
  const [cert, key] = await Promise.all([readFile(certFile), readFile(keyFile)]);
  await using client = new MongoClient(`mongodb://${host}/?directConnection=true`, { tls: true, tlsCAFile: caFile, cert, key });
  const admin = client.db("admin");
  await admin.command({ replSetInitiate: { _id: "secured", members: [{ _id: 0, host }] } });
  await eventually(async () => {
    const hello = await admin.command({ hello: 1 });
    if (hello["isWritablePrimary"] !== true) throw new Error("the secured mongod is no primary");
  }, 60_000);
  await admin.command({ createUser: user, pwd: password, roles: ["root"] });
}
