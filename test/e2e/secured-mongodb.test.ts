import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { issueDevelopmentToken } from "../../src/access/development-token.ts";
import { createDevelopmentKeys } from "../../src/access/keys.ts";
import { createApp } from "../../src/app.ts";
import { claimInstance } from "../../src/cli/instance.ts";
import { publicAddress } from "../../src/cli/public-address.ts";
import { loadConfig } from "../../src/config.ts";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { createLogClient } from "../../src/log/log-client.ts";
import { createLogger } from "../../src/logger.ts";
import { type SecuredMongod, startSecuredMongod } from "../support/secured-mongod.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

let mongod: SecuredMongod;
beforeAll(async () => {
  mongod = await startSecuredMongod();
});
afterAll(() => mongod[Symbol.asyncDispose]());

const urlOf = (password: string) =>
  `mongodb://${mongod.user}:${encodeURIComponent(password)}@${mongod.host}/?replicaSet=secured&authSource=admin`;
const filesOf = ({ caFile, certFile, keyFile }: SecuredMongod) => ({
  MONGODB_TLS_CA_FILE: caFile,
  MONGODB_TLS_CERT_FILE: certFile,
  MONGODB_TLS_KEY_FILE: keyFile,
});

/** The password, as it is and as it stands in the URL. */
const secrets = () => [mongod.password, encodeURIComponent(mongod.password)];

describe("a MongoDB that wants TLS, a certificate and a password", () => {
  it("serves the whole application, and no line of the log holds the password", async () => {
    await using folder = await temporaryFolder();
    const environment = { MONGODB_URL: urlOf(mongod.password), ...filesOf(mongod), DATA_DIR: folder.path, GRPC_PORT: "0", HTTP_PORT: "0" };
    const config = loadConfig(environment);
    const { mongodbUrl = "" } = config;
    const lines: string[] = [];
    const app = await createApp({ ...config, mongodbUrl }, createLogger("debug", { write: (line) => lines.push(line) }));
    const keys = await createDevelopmentKeys(folder.path);
    const token = await issueDevelopmentToken(keys, config, { role: "service", subject: "checkout", expiresInSeconds: 60 });
    const client = createClient(OrderTrackingService, createGrpcTransport({ baseUrl: `http://${app.addresses.grpc}` }));
    const headers = { authorization: `Bearer ${token}` };
    const { order } = await client.initTracking({ orderId: "order-1", storeId: "s", customerId: "c" }, { headers });
    expect(order?.position).toBe(1n);
    expect((await fetch(`${app.addresses.http}/readyz`)).status).toBe(200);

    const lock = await claimInstance(folder.path);
    await lock.publish({ ...app.addresses, mongodb: publicAddress(mongodbUrl), nats: "" });
    for (const args of [["status"], ["log", "tail", "--json"]]) {
      const { code, out, err } = await ordertrail(args, environment);
      expect([code, err]).toEqual([0, ""]);
      for (const secret of secrets()) expect(out).not.toContain(secret);
      if (args[0] === "log") expect(out).toContain('"order-order-1"');
      else expect(out).toContain(`mongodb  mongodb://***@${mongod.host}/?replicaSet=secured`);
    }
    await lock.release();
    await app.stop();
    for (const secret of secrets()) expect(lines.join("")).not.toContain(secret);
  });

  it.each<[string, (files: NodeJS.ProcessEnv) => NodeJS.ProcessEnv, RegExp]>([
    [
      "without TLS",
      () => ({ MONGODB_TLS_CA_FILE: "", MONGODB_TLS_CERT_FILE: "", MONGODB_TLS_KEY_FILE: "" }),
      /connection|closed|timed out/i,
    ],
    ["without its CA", () => ({ MONGODB_TLS_CA_FILE: "" }), /certificate/i],
    ["without a certificate", () => ({ MONGODB_TLS_CERT_FILE: "", MONGODB_TLS_KEY_FILE: "" }), /connection|closed|alert/i],
    ["with another password", () => ({ MONGODB_URL: urlOf("wr0ng s3cret") }), /Authentication failed/],
    ["with no password", () => ({ MONGODB_URL: `mongodb://${mongod.host}/?replicaSet=secured` }), /requires authentication/],
  ])("is not reached %s; the command says why, and shows no password", async (_what, change, why) => {
    await using folder = await temporaryFolder();
    const { code, out, err } = await ordertrail(["start"], {
      ...{ MONGODB_URL: urlOf(mongod.password), ...filesOf(mongod), ...change({}) },
      ...{ NATS_URL: "nats://me:planted@127.0.0.1:1", DATA_DIR: folder.path, GRPC_PORT: "0", HTTP_PORT: "0" },
    });
    expect([code, out]).toEqual([1, ""]);
    expect(err).toMatch(why);
    for (const secret of [...secrets(), "wr0ng s3cret", "wr0ng%20s3cret", "planted"]) expect(err).not.toContain(secret);
  });
});

describe("a MongoDB URL that cannot be used", () => {
  const SECRETS = ["s3cr3t", "p4ss"];

  it.each([
    "mongodb://me:s3cr3t@",
    "mongodb://me:s3cr3t/p4ss@host/",
    "mongodb://me:s3cr3t@p4ss@host/",
    "mongodb://me:s3cr3t?p4ss=1@host/",
    "mongodb://me:s3cr3t:p4ss@host/",
    "mongodb://me:s3cr3t%zz@host/",
    "mongodb://me:s3cr3t@host/?tls=p4ss",
    "mongodb://me:s3cr3t&p4ss@host:notaport/",
    "mongodb://me:s3cr3t@host/?tls=p4ss&x",
    "mongodb://s3cr3t@host/?authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKEN:p4ss&directConnection=true&directConnection=true",
    "mongodb://host/?proxyPassword=s3cr3t",
    "mongodb+srv://me:s3cr3t@host:27017/",
  ])("is refused without a word of its secrets: %s", (url) => {
    let message = "";
    try {
      void createLogClient(url).close();
    } catch (error) {
      ({ message } = error as Error);
      expect((error as Error).cause).toBeUndefined();
    }
    for (const secret of SECRETS) expect(message).not.toContain(secret);
  });
});

/** Runs the command to its end. */
function ordertrail(args: readonly string[], env: NodeJS.ProcessEnv): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], { env }, (error, out, err) => {
      resolve({ code: error ? Number(error.code) : 0, out, err });
    });
  });
}
