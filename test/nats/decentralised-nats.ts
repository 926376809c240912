import { randomBytes } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { nkeys } from "nats";
import { startServerProcess } from "../../src/embedded/server-process.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

/** A nats-server that takes whom an account of its operator has given credentials. */
export type DecentralisedNats = AsyncDisposable & {
  readonly url: string;
  /** Credentials of a user, as a file. */
  readonly credsFile: string;
  /** The same of another operator's user. */
  readonly foreignCredsFile: string;
  /** The seed in the first of them. */
  readonly seed: string;
};

const ANY = { subs: -1, data: -1, payload: -1 };
const ACCOUNT_LIMITS = { ...ANY, imports: -1, exports: -1, wildcards: true, conn: -1, leaf: -1 };

/** Starts it; it is killed and removed at the end of the `await using` block. */
export async function startDecentralisedNats(): Promise<DecentralisedNats> {
  await using parts = new AsyncDisposableStack();
  const folder = parts.use(await temporaryFolder());
  const [own, foreign] = [anOperator(), anOperator()];
  const credsFile = join(folder.path, "own.creds");
  const foreignCredsFile = join(folder.path, "foreign.creds");
  await writeFile(credsFile, own.creds);
  await writeFile(foreignCredsFile, foreign.creds);
  const configFile = join(folder.path, "nats.conf");
  await writeFile(configFile, `operator: ${own.operator}\nresolver: MEMORY\nresolver_preload: { ${own.accountId}: ${own.account} }\n`);
  const dataDir = join(folder.path, "data");
  await mkdir(dataDir);
  const pidFile = "nats-server.pid";
  const server = await startServerProcess({
    name: "nats-server",
    dataDir,
    pidFile,
    port: undefined,
    args: (port) => ["-a", "127.0.0.1", "-p", String(port), "-c", configFile, "-P", join(dataDir, pidFile)],
    isReady: takesConnections,
  });
  parts.defer(() => server.kill());
  const running = parts.move();
  return {
    url: `nats://127.0.0.1:${server.port}`,
    credsFile,
    foreignCredsFile,
    seed: own.seed,
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** An operator with an account, and a user of that with credentials. */
function anOperator() {
  const operator = nkeys.createOperator();
  const account = nkeys.createAccount();
  const user = nkeys.createUser();
  const seed = new TextDecoder().decode(user.getSeed());
  const userJwt = claim(account, user, { ...ANY, pub: {}, sub: {}, type: "user" });
  return {
    operator: claim(operator, operator, { type: "operator" }),
    accountId: account.getPublicKey(),
    account: claim(operator, account, { limits: ACCOUNT_LIMITS, type: "account" }),
    seed,
    creds: [
      "-----BEGIN NATS USER JWT-----",
      userJwt,
      "------END NATS USER JWT------",
      "",
      "-----BEGIN USER NKEY SEED-----",
      seed,
      "------END USER NKEY SEED------",
      "",
    ].join("\n"),
  };
}

type Keys = ReturnType<typeof nkeys.createUser>;

/** A JWT by which one key says something of another, in NATS's own algorithm. */
function claim(issuer: Keys, subject: Keys, nats: object): string {
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = {
    jti: randomBytes(16).toString("hex"),
    iat: Math.floor(Date.now() / 1000),
    iss: issuer.getPublicKey(),
    name: "test",
    sub: subject.getPublicKey(),
    nats: { ...nats, version: 2 },
  };
  const signed = `${encode({ typ: "JWT", alg: "ed25519-nkey" })}.${encode(claims)}`;
  return `${signed}.${Buffer.from(issuer.sign(new TextEncoder().encode(signed))).toString("base64url")}`;
}

async function takesConnections(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(port, "127.0.0.1", () => resolve(true)).once("error", () => resolve(false));
  return await promise.finally(() => socket.destroy());
}
