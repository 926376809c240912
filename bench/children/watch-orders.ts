import { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Client, type ClientReadableStream, credentials, Metadata } from "@grpc/grpc-js";
import { OrderStatus } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import {
  UpdateSubstitutionsRequestSchema,
  UpdateSubstitutionsResponseSchema,
  WatchTrackingRequestSchema,
  WatchTrackingResponseSchema,
} from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { serveParent } from "../child.ts";
import { createGrpcCaller } from "../grpc-caller.ts";
import { createOrderCalls } from "../order-calls.ts";
import { createIdentifiers } from "../small-entry.ts";
import type { Connection } from "./app.ts";

/** Orders that are watched, and commands to them at a steady rate, whether or not the ones before are answered. */
export type WatchLoad = {
  readonly orders: number;
  /** How many watch each order. */
  readonly watchersEach: number;
  /** How many more watch each, and never read. */
  readonly idleEach: number;
  readonly perSecond: number;
  readonly warmUpMs: number;
  readonly measureMs: number;
};

/** How long after a command's answer a watcher has its message; one that is there before the answer counts as 0. */
export type WatchFigures = {
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** The share of messages that were there first. */
  readonly early: number;
};

const SERVICE = "/ordertrail.v1.OrderTrackingService";
/** Fewer than a server allows on one connection. */
const STREAMS_A_CONNECTION = 90;
/** A window in which a few messages fit, so that who never reads is soon behind. */
const IDLE_WINDOW = 8192;
const SETTLE_MS = 20_000;

type Told = { readonly orderId: string; readonly version: number; readonly at: number };

/** Where commands go, and where orders are watched, if that is elsewhere. */
type Knowledge = Connection & { readonly otherAddress?: string };

/** Watches orders over gRPC, and changes them; both by this process's clock. */
await serveParent<Knowledge, WatchLoad, WatchFigures>(async ({ address, token, otherAddress = address }) => {
  const caller = createGrpcCaller(address, token);
  const calls = createOrderCalls(caller);
  const identifier = createIdentifiers();
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${token}`);

  async function openOrder(): Promise<string> {
    const orderId = identifier();
    await calls.open(orderId);
    for (const status of [OrderStatus.STORE_NOTIFIED, OrderStatus.STORE_ACKNOWLEDGED, OrderStatus.PICKING_IN_PROGRESS])
      await calls.updateStatus(orderId, status);
    return orderId;
  }

  /** Proposes a substitution, which the order can take again and again; answers its version. */
  async function change(orderId: string, substitutionId: string): Promise<number> {
    const substitutions = [{ substitutionId, originalItem: { itemId: "item-1001", name: "Whole milk, 1 l", quantity: 1 } }];
    const request = encode(UpdateSubstitutionsRequestSchema, { orderId, substitutions });
    const response = await caller.call(`${SERVICE}/UpdateSubstitutions`, request);
    return fromBinary(UpdateSubstitutionsResponseSchema, response).order?.version ?? 0;
  }

  async function answer(load: WatchLoad): Promise<WatchFigures> {
    const { orders, watchersEach, idleEach, perSecond, warmUpMs, measureMs } = load;
    const orderIds = await Promise.all(Array.from({ length: orders }, openOrder));
    await using connections = createConnections(otherAddress, metadata);
    const told: Told[] = [];
    const begun: Promise<unknown>[] = [];
    for (const orderId of orderIds) {
      for (let n = 0; n < watchersEach; n++) begun.push(read(connections.watch(orderId), orderId, told));
      // "metadata" is the server's first word; "data" is never asked for.
      for (let n = 0; n < idleEach; n++) begun.push(once(connections.watch(orderId, IDLE_WINDOW), "metadata"));
    }
    await Promise.all(begun);
    told.length = 0;

    const answered = new Map<string, number>();
    const changing: Promise<void>[] = [];
    const from = performance.now();
    const measured = (at: number) => at >= from + warmUpMs && at < from + warmUpMs + measureMs;
    for (let sent = 0; ; ) {
      const now = performance.now() - from;
      if (now > warmUpMs + measureMs) break;
      for (; sent < (now * perSecond) / 1000; sent++) {
        const orderId = orderIds[sent % orders] ?? "";
        const substitutionId = `s-${sent}`;
        changing.push(change(orderId, substitutionId).then((version) => void answered.set(`${orderId} ${version}`, performance.now())));
      }
      await pause(1);
    }
    await Promise.all(changing);
    const until = performance.now() + SETTLE_MS;
    while (told.length < changing.length * watchersEach) {
      if (performance.now() > until)
        throw new Error(`of ${changing.length * watchersEach} messages only ${told.length} have come to those who read`);
      await pause(10);
    }
    const lags = told
      .map(({ orderId, version, at }) => ({ at: answered.get(`${orderId} ${version}`) ?? Number.NaN, lag: at }))
      .filter(({ at }) => measured(at))
      .map(({ at, lag }) => lag - at)
      .toSorted((a, b) => a - b);
    const percentile = (share: number) => Math.max(0, lags[Math.floor(lags.length * share)] ?? Number.NaN);
    return { p50Ms: percentile(0.5), p99Ms: percentile(0.99), early: lags.filter((lag) => lag < 0).length / lags.length };
  }

  return { answer, close: async () => caller.close() };
});

/** Notes when what comes of a stream is there; resolves when it has begun. */
async function read(stream: ClientReadableStream<Buffer>, orderId: string, told: Told[]): Promise<void> {
  let last = 0;
  const begun = once(stream, "data");
  stream.on("data", (bytes: Buffer) => {
    const at = performance.now();
    const { kind } = fromBinary(WatchTrackingResponseSchema, bytes);
    if (kind.case !== "change") return;
    const version = kind.value.order?.version ?? 0;
    if (last !== 0 && version !== last + 1) throw new Error(`after version ${last} of an order comes ${version}`);
    last = version;
    told.push({ orderId, version, at });
  });
  await begun;
}

type Connections = AsyncDisposable & { watch(orderId: string, window?: number): ClientReadableStream<Buffer> };

/** Streams on as many connections as they need; those of one window share theirs. Closed with all their streams. */
function createConnections(address: string, metadata: Metadata): Connections {
  const clients: Client[] = [];
  const streams: ClientReadableStream<Buffer>[] = [];
  const open = new Map<number, { client: Client; streams: number }>();
  const asTheyAre = (bytes: Buffer) => bytes;
  return {
    watch(orderId, window = 0) {
      let connection = open.get(window);
      if (!connection || connection.streams >= STREAMS_A_CONNECTION) {
        const options = { "grpc.use_local_subchannel_pool": 1, ...(window > 0 && { "grpc-node.flow_control_window": window }) };
        connection = { client: new Client(address, credentials.createInsecure(), options), streams: 0 };
        clients.push(connection.client);
        open.set(window, connection);
      }
      connection.streams++;
      const request = Buffer.from(encode(WatchTrackingRequestSchema, { orderId }));
      const stream = connection.client.makeServerStreamRequest(`${SERVICE}/WatchTracking`, asTheyAre, asTheyAre, request, metadata);
      // Cancelled at the end; one that ends before that is missed by its reader.
      stream.on("error", () => undefined);
      streams.push(stream);
      return stream;
    },
    async [Symbol.asyncDispose]() {
      for (const stream of streams) stream.cancel();
      for (const client of clients) client.close();
    },
  };
}

function encode<Desc extends DescMessage>(desc: Desc, init: MessageInitShape<Desc>): Uint8Array {
  return toBinary(desc, create(desc, init));
}
