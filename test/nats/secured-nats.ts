import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { startServerProcess } from "../../src/embedded/server-process.ts";
import { createAuthority, writeIssued } from "../support/certificates.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

/** A nats-server that takes nobody without TLS, a certificate from its CA, and a password or token. */
export type SecuredNats = AsyncDisposable & {
  readonly host: string;
  readonly secret: string;
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
  /** Ends it at once; `restart` brings it back on its port. */
  kill(): Promise<void>;
  restart(): Promise<void>;
};

export const USER = "ordertrail";

/** Starts it; it is killed and removed at the end of the `await using` block. */
export async function startSecuredNats(by: "password" | "token"): Promise<SecuredNats> {
  await using parts = new AsyncDisposableStack();
  const folder = parts.use(await temporaryFolder());
  const authority = await createAuthority();
  const caFile = join(folder.path, "ca.crt");
  await writeFile(caFile, authority.cert);
  const own = await writeIssued(folder.path, "server", await authority.issue({ name: "nats" }));
  const client = await writeIssued(folder.path, "client", await authority.issue({ name: "ordertrail" }));
  const secret = `p@ss/w:rd?${randomBytes(8).toString("hex")}`;
  const dataDir = join(folder.path, "data");
  const pidFile = "nats-server.pid";
  const start = (port?: number) =>
    startServerProcess({
      name: "nats-server",
      dataDir,
      pidFile,
      port,
      args: (chosen) => [
        ...["-a", "127.0.0.1", "-p", String(chosen), "-P", join(dataDir, pidFile)],
        ...["--tls", "--tlsverify", "--tlscert", own.certFile, "--tlskey", own.keyFile, "--tlscacert", caFile],
        ...(by === "password" ? ["--user", USER, "--pass", secret] : ["--auth", secret]),
      ],
      isReady: takesConnections,
    });
  let server = await start();
  parts.defer(() => server.kill());
  const running = parts.move();
  return {
    host: `127.0.0.1:${server.port}`,
    secret,
    caFile,
    ...client,
    kill: () => server.kill(),
    async restart() {
      server = await start(server.port);
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

async function takesConnections(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(port, "127.0.0.1", () => resolve(true)).once("error", () => resolve(false));
  return await promise.finally(() => socket.destroy());
}
