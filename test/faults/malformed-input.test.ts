import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { Agent, request } from "node:http";
import { fileURLToPath } from "node:url";
import { Client, credentials, status } from "@grpc/grpc-js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { issueDevelopmentToken } from "../../src/access/development-token.ts";
import { createDevelopmentKeys } from "../../src/access/keys.ts";
import { findInstance } from "../../src/cli/instance.ts";
import { AuditService } from "../../src/gen/ordertrail/v1/audit_service_pb.js";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { callBytes } from "../doors/grpc-calls.ts";
import { CORPUS, connectCall, messageBytes, packedCall, restCall } from "../doors/malformed-requests.ts";
import { eventually } from "../support/eventually.ts";
import { testDatabase } from "../support/mongo.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { COUNTS } from "./counts.ts";

const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));
const AT_ONCE = 16;
/** What caches of a busy process may still take, and what is young garbage at one moment and not at the other. */
const MAX_GROWTH_MIB = 64;
/** A heap that may grow as it likes is collected late, and its size says little; in this one, what is kept for ever would end the process. */
const HEAP = ["--max-semi-space-size=16", "--max-old-space-size=160"];
/** Rebuilding and verifying take long by design, and what they do is not what is tried here. */
const METHODS = [...OrderTrackingService.methods, ...AuditService.methods, ...OperationsService.methods].filter(
  ({ name }) => !/^(Rebuild|Verify|Rotate)/.test(name),
);
const UNARY = METHODS.filter(({ methodKind }) => methodKind === "unary");
const NO_FAULT: readonly status[] = [
  status.OK,
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.FAILED_PRECONDITION,
  status.ABORTED,
  status.PERMISSION_DENIED,
  status.RESOURCE_EXHAUSTED,
  // Who asks for a position that is yet to come waits for it.
  status.DEADLINE_EXCEEDED,
];
const DEADLINE_MS = 500;

/** An instance in a process of its own. */
async function anInstance() {
  await using parts = new AsyncDisposableStack();
  const folder = parts.use(await temporaryFolder());
  const database = parts.use(await testDatabase());
  const env = {
    ...{ DATA_DIR: folder.path, DATABASE_NAME: database.name, MONGODB_URL: database.url, NATS_URL: "nats://127.0.0.1:1" },
    ...{ GRPC_PORT: "0", HTTP_PORT: "0", LOG_LEVEL: "error" },
  };
  const child = spawn(process.execPath, [...HEAP, MAIN, "start"], { env, stdio: ["ignore", "pipe", "pipe"] });
  const ended = new Promise((resolve) => child.once("close", resolve));
  parts.defer(async () => {
    child.kill("SIGTERM");
    await ended;
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk) => {
      said += chunk;
    });
  const addresses = await eventually(async () => {
    const found = (await findInstance(folder.path))?.addresses;
    if (!found) throw new Error(said);
    return found;
  }, 30_000);
  const keys = await createDevelopmentKeys(folder.path);
  const tokens = await Promise.all(
    ["operator", "customer", "auditor"].map((role) =>
      issueDevelopmentToken(
        keys,
        { jwtIssuer: "ordertrail", jwtAudience: "ordertrail" },
        { role, subject: "fuzz", expiresInSeconds: 86_400 },
      ),
    ),
  );
  const running = parts.move();
  return {
    ...addresses,
    authorizations: tokens.map((token) => `Bearer ${token}`),
    said: () => said,
    alive: () => child.exitCode === null && child.signalCode === null,
    async residentMib() {
      const [, kib = "0"] = /VmRSS:\s+(\d+) kB/.exec(await readFile(`/proc/${child.pid}/status`, "utf8")) ?? [];
      return Number(kib) / 1024;
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

describe("a running instance, whatever it is sent through its three doors", () => {
  it(
    "does not fall over, has no fault, and does not grow",
    async () => {
      const { malformedRequests: count, seed } = COUNTS;
      process.stderr.write(`${count} malformed requests, seed ${seed}\n`);
      await using instance = await anInstance();
      const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE });
      const grpc = new Client(instance.grpc, credentials.createInsecure());
      const corpusCalls = fc
        .tuple(restCall, fc.constantFrom(...CORPUS))
        .map(([call, body]) => ({ ...call, body, type: "application/json" }));
      const http = fc
        .oneof(restCall, connectCall(METHODS), packedCall(METHODS), corpusCalls)
        .map((call) => ({ door: "http" as const, ...call }));
      const rpc = fc.record({ rpc: fc.constantFrom(...UNARY), bytes: messageBytes }).map((call) => ({ door: "grpc" as const, ...call }));
      const anyCall = fc.record({ call: fc.oneof(http, rpc), who: fc.constantFrom(...instance.authorizations) });

      let sent = 0;
      let warm = 0;
      async function send(batch: readonly (typeof anyCall extends fc.Arbitrary<infer Call> ? Call : never)[]): Promise<void> {
        await Promise.all(
          batch.map(async ({ call, who }) => {
            if (call.door === "http") {
              const answered = await sendHttp(instance.http, agent, call, who);
              expect(answered, `${call.method} ${call.path} ${call.type} ${call.body.toString("base64")}`).toSatisfy(
                (code: number) => code < 500 || code === 504,
              );
              return;
            }
            const code = await callBytes(grpc, call.rpc, call.bytes, {
              authorization: who,
              options: { deadline: Date.now() + DEADLINE_MS },
            }).then(
              () => status.OK,
              (error: { code: status }) => error.code,
            );
            expect(NO_FAULT, `${call.rpc.name} ${Buffer.from(call.bytes).toString("base64")}: ${code}`).toContain(code);
          }),
        );
        sent += batch.length;
        if (warm === 0 && sent >= count / 4) warm = await instance.residentMib();
      }
      // Samples by the thousand: fast-check keeps all that it has made of one.
      for (let made = 0; made < count; made += 1000) {
        const calls = fc.sample(anyCall, { numRuns: Math.min(1000, count - made), seed: seed + made });
        for (let from = 0; from < calls.length; from += AT_ONCE) await send(calls.slice(from, from + AT_ONCE));
      }
      const after = await instance.residentMib();
      process.stderr.write(`${sent} requests; resident ${warm.toFixed()} MiB after a quarter, ${after.toFixed()} MiB at the end\n`);
      grpc.close();
      agent.destroy();
      expect(instance.alive()).toBe(true);
      expect((await fetch(`${instance.http}/readyz`)).status).toBe(200);
      expect(instance.said()).not.toContain('"level":50');
      // Fewer requests do not warm it up.
      if (count >= 20_000) expect(after - warm).toBeLessThan(MAX_GROWTH_MIB);
    },
    COUNTS.malformedRequests * 50 + 60_000,
  );
});

/** The status of the answer; a connection that the server closes because of what came counts as refused. */
function sendHttp(
  base: string,
  agent: Agent,
  { method, path, body, type, headers: more }: { method: string; path: string; body: string | Buffer; type: string; headers?: object },
  authorization: string,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(base);
    const headers = {
      authorization,
      "content-type": type,
      "content-length": Buffer.byteLength(body),
      "connect-protocol-version": "1",
      "connect-timeout-ms": DEADLINE_MS,
      ...more,
    };
    const outgoing = request({ hostname, port, agent, method, path, headers }, (incoming) => {
      incoming.resume();
      incoming.on("end", () => resolve(incoming.statusCode ?? 0));
      incoming.on("error", reject);
    });
    outgoing.on("error", (error: NodeJS.ErrnoException) =>
      error.code === "ECONNRESET" || error.code === "EPIPE" ? resolve(0) : reject(error),
    );
    outgoing.end(body);
  });
}
