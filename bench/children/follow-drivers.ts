import { setTimeout as pause } from "node:timers/promises";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Client, type ClientDuplexStream, credentials, Metadata } from "@grpc/grpc-js";
import {
  StreamLocationsResponseSchema,
  WatchDriverLocationRequestSchema,
  WatchDriverLocationResponseSchema,
} from "../../src/gen/ordertrail/v1/driver_location_service_pb.js";
import { serveParent } from "../child.ts";
import { createGrpcCaller } from "../grpc-caller.ts";
import { createOrderCalls } from "../order-calls.ts";
import type { Connection } from "./app.ts";
import { ordersUnderWay, pointsMessage } from "./drivers.ts";

/** `open`: so many drivers, each on a stream of their own and watched by one. A number: for so many seconds each sends a point a second. */
export type FollowTask = { readonly drivers: number } | { readonly seconds: number };

/** From the sending of a point to the watcher, and the points that no watcher got. */
export type FollowFigures = { readonly points: number; readonly lost: number; readonly p50Ms: number; readonly p99Ms: number };

const SERVICE = "/ordertrail.v1.DriverLocationService";
/** Fewer than a server allows on one connection. */
const STREAMS_A_CONNECTION = 90;
const SETTLE_MS = 5000;
const STEP_MS = 10;

await serveParent<Connection, FollowTask, FollowFigures>(async ({ address, token }) => {
  const caller = createGrpcCaller(address, token);
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  const asTheyAre = (bytes: Buffer) => bytes;
  const clients: Client[] = [];
  const drivers: { readonly orderId: string; readonly stream: ClientDuplexStream<Buffer, Buffer> }[] = [];
  let streams = 0;
  let lags: number[] = [];
  let dropped = 0;

  function connection(): Client {
    if (streams++ % STREAMS_A_CONNECTION === 0)
      clients.push(new Client(address, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 }));
    return clients.at(-1) as Client;
  }

  async function open(count: number): Promise<void> {
    for (const orderId of await ordersUnderWay(createOrderCalls(caller), count)) {
      const request = Buffer.from(toBinary(WatchDriverLocationRequestSchema, create(WatchDriverLocationRequestSchema, { orderId })));
      connection()
        .makeServerStreamRequest(`${SERVICE}/WatchDriverLocation`, asTheyAre, asTheyAre, request, metadata)
        .on("error", () => undefined)
        .on("data", (bytes: Buffer) => {
          const { kind } = fromBinary(WatchDriverLocationResponseSchema, bytes);
          const at = kind.case === "update" ? kind.value.location?.recordedAt : undefined;
          if (at) lags.push(Date.now() - timestampMs(at));
        });
      const stream = connection().makeBidiStreamRequest(`${SERVICE}/StreamLocations`, asTheyAre, asTheyAre, metadata);
      stream.on("error", () => undefined);
      stream.on("data", (bytes: Buffer) => {
        for (const { count } of fromBinary(StreamLocationsResponseSchema, bytes).dropped) dropped += Number(count);
      });
      drivers.push({ orderId, stream });
    }
    await pause(SETTLE_MS);
  }

  async function drive(seconds: number): Promise<FollowFigures> {
    lags = [];
    let sent = 0;
    const from = performance.now();
    for (;;) {
      const elapsed = (performance.now() - from) / 1000;
      if (elapsed >= seconds) break;
      for (; sent < elapsed * drivers.length; sent++) {
        const driver = drivers[sent % drivers.length];
        driver?.stream.write(pointsMessage([driver.orderId], Date.now()));
      }
      await pause(STEP_MS);
    }
    await pause(SETTLE_MS);
    if (dropped > 0) throw new Error(`${dropped} points were not taken`);
    const sorted = Float64Array.from(lags).sort();
    const share = (part: number) => sorted[Math.floor(sorted.length * part)] ?? Number.NaN;
    return { points: sent, lost: sent - lags.length, p50Ms: share(0.5), p99Ms: share(0.99) };
  }

  return {
    async answer(task) {
      if ("seconds" in task) return await drive(task.seconds);
      await open(task.drivers);
      return { points: 0, lost: 0, p50Ms: 0, p99Ms: 0 };
    },
    async close() {
      caller.close();
      for (const { stream } of drivers) stream.cancel();
      for (const client of clients) client.close();
    },
  };
});
