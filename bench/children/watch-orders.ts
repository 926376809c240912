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
  /** How often each order is changed before the rate begins: with enough of it, who never reads is far behind. */
  readonly changesBefore: number;
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
  /** From the sending of the command to the message. */
  readonly p99FromSendingMs: number;
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
  let newest = 0n;
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
    const { order } = fromBinary(UpdateSubstitutionsResponseSchema, response);
    if (order && order.position > newest) newest = order.position;
    return order?.version ?? 0;
  }

  async function answer(load: WatchLoad): Promise<WatchFigures> {
    const { orders, watchersEach, idleEach, changesBefore, perSecond, warmUpMs, measureMs } = load;
    const orderIds = await Promise.all(Array.from({ length: orders }, openOrder));
    await using connections = createConnections(otherAddress, metadata);
    const told: Told[] = [];
    // "metadata" is the server's first word; "data" is never asked for.
    const idle = orderIds.flatMap((orderId) => Array.from({ length: idleEach }, () => connections.watch(orderId, IDLE_WINDOW)));
    await Promise.all(idle.map((stream) => once(stream, "metadata")));
    await Promise.all(
      orderIds.map(async (orderId) => {
        for (let n = 0; n < changesBefore; n++) await change(orderId, `before-${n}`);
      }),
    );
    await calls.untilProjected(newest);
    await Promise.all(
      orderIds.flatMap((orderId) => Array.from({ length: watchersEach }, () => read(connections.watch(orderId), orderId, told))),
    );
    told.length = 0;

    async function untilTold(messages: number): Promise<void> {
      const until = performance.now() + SETTLE_MS;
      while (told.length < messages) {
        if (performance.now() > until) throw new Error(`of ${messages} messages only ${told.length} have come to those who read`);
        await pause(10);
      }
    }

    const answered = new Map<string, { readonly sent: number; readonly at: number }>();
    const changing: Promise<void>[] = [];
    const from = performance.now();
    const measured = (at: number) => at >= from + warmUpMs && at < from + warmUpMs + measureMs;
    for (let sent = 0; ; ) {
      const now = performance.now() - from;
      if (now > warmUpMs + measureMs) break;
      for (; sent < (now * perSecond) / 1000; sent++) {
        const orderId = orderIds[sent % orders] ?? "";
        const substitutionId = `s-${sent}`;
        const at = performance.now();
        const call = change(orderId, substitutionId);
        changing.push(call.then((version) => void answered.set(`${orderId} ${version}`, { sent: at, at: performance.now() })));
      }
      await pause(1);
    }
    await Promise.all(changing);
    await untilTold(changing.length * watchersEach);
    const times = told.flatMap(({ orderId, version, at }) => {
      const command = answered.get(`${orderId} ${version}`);
      return command && measured(command.at) ? [{ lag: at - command.at, whole: at - command.sent }] : [];
    });
    const lags = times.map(({ lag }) => Math.max(0, lag));
    return {
      p50Ms: percentile(lags, 0.5),
      p99Ms: percentile(lags, 0.99),
      early: times.filter(({ lag }) => lag < 0).length / times.length,
      p99FromSendingMs: percentile(
        times.map(({ whole }) => whole),
        0.99,
      ),
    };
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

function percentile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length * share)] ?? Number.NaN;
}

function encode<Desc extends DescMessage>(desc: Desc, init: MessageInitShape<Desc>): Uint8Array {
  return toBinary(desc, create(desc, init));
}
