import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { type Client, Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { describe, expect, inject, it } from "vitest";
import { issueDevelopmentToken } from "../../src/access/development-token.ts";
import { createDevelopmentKeys } from "../../src/access/keys.ts";
import { OrderStatus } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { testDatabase } from "../support/mongo.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { readEvents, type Seen, seenIn, WatchEnded } from "../support/watching.ts";
import { COUNTS } from "./counts.ts";
import { createRandom } from "./random.ts";
import { type ServerProcesses, startServerProcesses } from "./server-processes.ts";

const ORDERS = 4;
const WATCHERS_PER_ORDER = 6;
const COMMANDS_BETWEEN = 12;

type Tracking = Client<typeof OrderTrackingService>;

/** Commands and watchers on whichever of the processes answers. */
function createCallers(servers: ServerProcesses, token: string, random: (limit: number) => number) {
  const authorization = `Bearer ${token}`;
  const authorize: Interceptor = (next) => (request) => {
    request.header.set("authorization", authorization);
    return next(request);
  };
  const clients = new Map<string, Tracking>();
  const clientOf = (address: string, make: () => Tracking): Tracking => {
    const client = clients.get(address) ?? make();
    clients.set(address, client);
    return client;
  };
  const any = () => {
    const addresses = servers.addresses[random(servers.addresses.length)];
    if (!addresses) throw new Error("there is no server");
    return addresses;
  };
  const anyClient = (): Tracking => {
    const { grpc, http } = any();
    const interceptors = [authorize];
    return random(2) === 0
      ? clientOf(grpc, () => createClient(OrderTrackingService, createGrpcTransport({ baseUrl: `http://${grpc}`, interceptors })))
      : clientOf(http, () =>
          createClient(OrderTrackingService, createConnectTransport({ baseUrl: http, httpVersion: "1.1", interceptors })),
        );
  };

  async function* watch(orderId: string, fromVersion: number | undefined): AsyncGenerator<Seen, void, undefined> {
    if (random(3) === 0) {
      const headers = { authorization, ...(fromVersion !== undefined && { "last-event-id": String(fromVersion) }) };
      yield* readEvents(await fetch(`${any().http}/orders/tracking/${orderId}/events`, { headers }));
    } else {
      const request = { orderId, ...(fromVersion !== undefined && { fromVersion }) };
      for await (const message of anyClient().watchTracking(request)) yield seenIn(message);
    }
  }

  return {
    /** Carries out a command, again and again until a process has answered. */
    async command(call: (tracking: Tracking, requestId: string) => Promise<unknown>): Promise<void> {
      const requestId = randomUUID();
      for (;;) {
        try {
          await call(anyClient(), requestId);
          return;
        } catch (error) {
          if (!isPassing(error)) throw error;
          await pause(20);
        }
      }
    },
    /** Watches an order to its end, from one process to the next; answers every version that it was told, and how often it came back. */
    async watchToTheEnd(orderId: string): Promise<{ versions: number[]; skipped: number; reconnects: number }> {
      const versions: number[] = [];
      let skipped = 0;
      for (let reconnects = 0; ; reconnects++) {
        try {
          for await (const seen of watch(orderId, versions.at(-1))) {
            if (!("version" in seen)) continue;
            versions.push(seen.version);
            skipped += seen.skipped;
          }
          return { versions, skipped, reconnects };
        } catch (error) {
          if (!isPassing(error)) throw error;
          await pause(20);
        }
      }
    },
  };
}

/** Whether another attempt may succeed: the process is ending, gone, or killed in the middle of a word. */
function isPassing(error: unknown): boolean {
  if (error instanceof WatchEnded) return error.body.code === "UNAVAILABLE";
  if (error instanceof TypeError) return true;
  const { code } = ConnectError.from(error);
  return [Code.Unavailable, Code.Canceled, Code.Aborted, Code.Internal, Code.Unknown].includes(code);
}

describe("watchers of orders while the server processes are restarted one after the other", () => {
  it(
    `are told every version once, by ${COUNTS.watchRestarts} restarts`,
    async () => {
      process.stdout.write(`seed ${COUNTS.seed}: FAULTS_SEED=${COUNTS.seed} repeats it\n`);
      const random = createRandom(COUNTS.seed);
      await using folder = await temporaryFolder();
      await using database = await testDatabase();
      const settings = { jwtIssuer: "ordertrail", jwtAudience: "ordertrail" };
      const keys = await createDevelopmentKeys(folder.path);
      const token = await issueDevelopmentToken(keys, settings, { role: "service", subject: "test", expiresInSeconds: 3600 });
      await using servers = await startServerProcesses(2, {
        MONGODB_URL: inject("mongodbUrl"),
        DATABASE_NAME: database.name,
        DATA_DIR: folder.path,
      });
      const { command, watchToTheEnd } = createCallers(servers, token, random);
      const orderIds = Array.from({ length: ORDERS }, (_, n) => `order-${n}`);
      for (const orderId of orderIds) {
        await command((tracking, requestId) => tracking.initTracking({ orderId, storeId: "store-1", customerId: "c-1", requestId }));
        for (const status of [
          OrderStatus.STORE_NOTIFIED,
          OrderStatus.STORE_ACKNOWLEDGED,
          OrderStatus.PICKING_IN_PROGRESS,
          OrderStatus.READY_FOR_PICKUP,
        ])
          await command((tracking, requestId) => tracking.updateStatus({ orderId, status, requestId }));
      }
      const watching = orderIds.flatMap((orderId) => Array.from({ length: WATCHERS_PER_ORDER }, () => watchToTheEnd(orderId)));

      let restarting = true;
      const restarts = (async () => {
        for (let n = 0; n < COUNTS.watchRestarts; n++) {
          await pause(100 + random(400));
          await servers.restart(n % 2, random(3) === 0 ? "SIGKILL" : "SIGTERM");
        }
        restarting = false;
      })();
      let changes = 0;
      while (restarting || changes % COMMANDS_BETWEEN !== 0) {
        const driverDetails = { driverId: `driver-${changes++}` };
        await Promise.all(
          orderIds.map((orderId) => command((tracking, requestId) => tracking.assignDriver({ orderId, driverDetails, requestId }))),
        );
        await pause(random(40));
      }
      await restarts;
      for (const orderId of orderIds)
        await command((tracking, requestId) => tracking.cancelOrder({ orderId, reason: "the end", requestId }));

      const newest = 5 + changes + 1;
      let reconnects = 0;
      for (const watched of await Promise.all(watching)) {
        const [first = 0] = watched.versions;
        expect(watched.versions).toEqual(Array.from({ length: newest - first + 1 }, (_, n) => first + n));
        expect(watched.skipped).toBe(0);
        reconnects += watched.reconnects;
      }
      expect(reconnects).toBeGreaterThan(0);
      process.stdout.write(`${watching.length} watchers of ${newest} versions each came back ${reconnects} times\n`);
    },
    60_000 + COUNTS.watchRestarts * 15_000,
  );
});
