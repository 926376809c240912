import { timestampDate } from "@bufbuild/protobuf/wkt";
import { OrderStatus } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OrderTrackingService, type WatchTrackingResponse } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import type { Bearer, RestBody, RpcDoor, TestApp } from "./app.ts";

/** The ways by which an order can be watched. */
export const WATCH_DOORS = ["grpc", "connect", "grpc-web", "events"] as const;
export type WatchDoor = (typeof WATCH_DOORS)[number];

/** What a watcher was told, whichever door it came by. */
export type Seen =
  /** `types` is only the last of them by server-sent events, and "snapshot" is none. */
  | { readonly version: number; readonly status: string; readonly types: readonly string[]; readonly skipped: number }
  | { readonly position: number; readonly at: Date };

/** How a watching was refused, or ended. */
export class WatchEnded extends Error {
  readonly body: RestBody;

  constructor(body: RestBody) {
    super(body.detail);
    this.body = body;
  }
}

export type Watching = { readonly orderId: string; readonly fromVersion?: number };

/** Watches an order until the stream ends. By server-sent events, what ends it otherwise is thrown as WatchEnded. */
export async function* watchOrder(
  app: TestApp,
  door: WatchDoor,
  caller: Bearer,
  { orderId, fromVersion }: Watching,
  signal: AbortSignal = new AbortController().signal,
): AsyncGenerator<Seen, void, undefined> {
  if (door === "events") {
    const headers = { ...(fromVersion !== undefined && { "last-event-id": String(fromVersion) }) };
    yield* readEvents(await app.get(caller, `/orders/tracking/${orderId}/events`, { headers, signal }));
    return;
  }
  const request = { orderId, ...(fromVersion !== undefined && { fromVersion }) };
  for await (const message of clientOf(app, door, caller).watchTracking(request, { signal })) yield seenIn(message);
}

const clientOf = (app: TestApp, door: RpcDoor, caller: Bearer) => app.client(OrderTrackingService, door, caller);

/** A message as what was seen. */
export function seenIn({ kind }: WatchTrackingResponse): Seen {
  if (kind.case === "heartbeat") {
    const { position, serverTime } = kind.value;
    return { position: Number(position), at: serverTime ? timestampDate(serverTime) : new Date(0) };
  }
  const { order, eventTypes, skippedVersions } = kind.value ?? {};
  return {
    version: order?.version ?? 0,
    status: OrderStatus[order?.currentStatus ?? 0] ?? "",
    types: eventTypes ?? [],
    skipped: skippedVersions ?? 0,
  };
}

/** The events of an answer. */
export async function* readEvents(response: Response): AsyncGenerator<Seen, void, undefined> {
  if (response.status === 204) return;
  if (response.status !== 200) throw new WatchEnded(await response.json());
  let text = "";
  for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
    const blocks = (text + chunk).split("\n\n");
    text = blocks.pop() ?? "";
    for (const block of blocks) yield seenInEvent(block);
  }
}

function seenInEvent(block: string): Seen {
  const comment = /^: (\S+) position (\d+)$/m.exec(block);
  if (comment) return { position: Number(comment[2]), at: new Date(comment[1] ?? "") };
  const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(block)?.[1] ?? "";
  const data = JSON.parse(field("data"));
  if (field("event") === "error") throw new WatchEnded(data);
  if (field("id") !== String(data.version)) throw new Error(`the id is ${field("id")}, and the version ${data.version}`);
  return { version: data.version, status: data.current_status, types: field("event") === "snapshot" ? [] : [field("event")], skipped: 0 };
}
