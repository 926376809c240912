import { randomUUID } from "node:crypto";
import type { DescService } from "@bufbuild/protobuf";
import { type Client, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { MongoClient } from "mongodb";
import { inject } from "vitest";
import { roleName } from "../../src/access/claims.ts";
import { issueDevelopmentToken } from "../../src/access/development-token.ts";
import { createDevelopmentKeys } from "../../src/access/keys.ts";
import { type AppOptions, createApp } from "../../src/app.ts";
import { loadConfig } from "../../src/config.ts";
import type { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { createLogger } from "../../src/logger.ts";
import { temporaryFolder } from "./temporary-folder.ts";

/** Who calls, in a test. */
export type TestCaller = { readonly role: Role; readonly subject: string; readonly storeId?: string };

/** A caller, or the token that they bring; an empty one is not sent. */
export type Bearer = TestCaller | string;

/** The doors that speak of RPCs. */
export type RpcDoor = "grpc" | "connect" | "grpc-web";

/** The whole application on free ports and a database of its own. */
export type TestApp = AsyncDisposable & {
  readonly grpc: string;
  readonly http: string;
  readonly databaseName: string;
  /** Its DATA_DIR: another with the same keys shares it. */
  readonly dataDir: string;
  readonly database: MongoClient;
  token(caller: TestCaller): Promise<string>;
  /** A way to one of the doors, for calls by any descriptor. */
  transport(door: RpcDoor, caller: Bearer): Transport;
  /** A typed client over one of the doors. */
  client<Service extends DescService>(service: Service, door: RpcDoor, caller: Bearer): Client<Service>;
  /** A REST call. `body` is sent as JSON. */
  rest(caller: Bearer, method: string, path: string, body?: unknown): Promise<{ readonly status: number; readonly body: RestBody }>;
  /** A GET whose answer is not read. */
  get(
    caller: Bearer,
    path: string,
    options?: { readonly headers?: Record<string, string>; readonly signal?: AbortSignal },
  ): Promise<Response>;
  /** Stops it, as a signal to its process would. */
  stop(): Promise<void>;
  /** The lines that it has logged. */
  readonly log: readonly string[];
};

// biome-ignore lint/suspicious/noExplicitAny: the body of an answer is whatever JSON came, and each test says what it expects of it.
export type RestBody = any;

/** Starts the application, by a clock of the test's own if one is given; it is stopped, and its database dropped, at the end of the `await using` block. */
export async function startTestApp(environment: NodeJS.ProcessEnv = {}, clock?: () => Date, options: AppOptions = {}): Promise<TestApp> {
  await using parts = new AsyncDisposableStack();
  const folder = parts.use(await temporaryFolder());
  const databaseName = `test_${randomUUID().replaceAll("-", "")}`;
  const mongodbUrl = inject("mongodbUrl");
  const database = await new MongoClient(mongodbUrl).connect();
  parts.defer(async () => {
    await database.db(databaseName).dropDatabase();
    await database.close();
  });
  const config = loadConfig({
    DATABASE_NAME: databaseName,
    DATA_DIR: folder.path,
    GRPC_PORT: "0",
    HTTP_PORT: "0",
    DENIALS_PER_MINUTE: "1000000",
    API_CALLS_PER_MINUTE: "customer=0",
    // Messages are entries of the log, too: for tests that are about them.
    ROLES: "api,projector,relay,timers,couriers",
    ...environment,
  });
  const keys = await createDevelopmentKeys(config.dataDir);
  const log: string[] = [];
  const app = await createApp({ ...config, mongodbUrl }, createLogger("debug", { write: (line) => log.push(line) }), clock, options);
  parts.defer(() => app.stop());

  const token = (caller: TestCaller) =>
    issueDevelopmentToken(keys, config, { ...caller, role: roleName(caller.role), expiresInSeconds: 600 });
  /** One for all calls of a caller: to sign and to verify each time would be most of the work of many tests. */
  const tokens = new Map<string, Promise<string>>();
  function tokenOf(caller: TestCaller): Promise<string> {
    const name = JSON.stringify([caller.role, caller.subject, caller.storeId]);
    const made = tokens.get(name) ?? token(caller);
    tokens.set(name, made);
    return made;
  }
  const authorizationOf = async (caller: Bearer): Promise<{ authorization?: string }> => {
    const bearer = typeof caller === "string" ? caller : await tokenOf(caller);
    return bearer === "" ? {} : { authorization: `Bearer ${bearer}` };
  };
  const authorized =
    (caller: Bearer): Interceptor =>
    (next) =>
    async (request) => {
      for (const [name, value] of Object.entries(await authorizationOf(caller))) request.header.set(name, value);
      return await next(request);
    };
  const { grpc, http } = app.addresses;
  // One connection for all: a server takes only so many from one address.
  const sessionManager = new Http2SessionManager(`http://${grpc}`);
  parts.defer(() => sessionManager.abort());
  function transport(door: RpcDoor, caller: Bearer): Transport {
    const interceptors = [authorized(caller)];
    if (door === "grpc") return createGrpcTransport({ baseUrl: `http://${grpc}`, interceptors, sessionManager });
    const options = { baseUrl: http, httpVersion: "1.1", interceptors } as const;
    return door === "connect" ? createConnectTransport(options) : createGrpcWebTransport(options);
  }
  const running = parts.move();
  return {
    grpc,
    http,
    databaseName,
    dataDir: config.dataDir,
    database,
    log,
    token,
    transport,
    client: (service, door, caller) => createClient(service, transport(door, caller)),
    async rest(caller, method, path, body) {
      const response = await fetch(`${http}${path}`, {
        method,
        headers: { ...(await authorizationOf(caller)), ...(body !== undefined && { "content-type": "application/json" }) },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      });
      return { status: response.status, body: await response.json() };
    },
    get: async (caller, path, { headers, ...options } = {}) =>
      await fetch(`${http}${path}`, { ...options, headers: { ...headers, ...(await authorizationOf(caller)) } }),
    stop: () => app.stop(),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}
