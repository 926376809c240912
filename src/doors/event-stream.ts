import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { type DescField, type DescMethod, isMessage, type Message } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Refusal } from "../domain/refusal.ts";
import { OrderTrackingSchema } from "../gen/ordertrail/v1/order_tracking_pb.js";
import { OrderTrackingService, WatchTrackingResponseSchema } from "../gen/ordertrail/v1/order_tracking_service_pb.js";
import { CallFailure } from "./errors.ts";
import { errorBodyOf } from "./http-answer.ts";
import { writeMessage } from "./json-writer.ts";

/** One server-sent event; a comment tells a client's library nothing but that the connection lives. */
type ServerSentEvent = { readonly id: string; readonly event: string; readonly data: string } | { readonly comment: string };

/** How an RPC that streams is served as server-sent events. */
export type EventMapping = {
  /** What an answer is told as. */
  readonly eventOf: (answer: Message) => ServerSentEvent | undefined;
  /** The field of the request that Last-Event-ID sets: an id of an event, to go on from. */
  readonly resumeField: DescField;
  /** What a client should know of the events, for the OpenAPI document. */
  readonly about: string;
};

/** How this RPC is served as server-sent events. Throws an Error for one of which that is not laid down. */
export function eventMappingOf(method: DescMethod): EventMapping {
  const mapping = MAPPINGS.get(method);
  if (!mapping) throw new Error(`${method.parent.typeName}/${method.name} streams: say in MAPPINGS how its answers become events`);
  return mapping;
}

const { watchTracking } = OrderTrackingService.method;

const MAPPINGS: ReadonlyMap<DescMethod, EventMapping> = new Map([
  [
    watchTracking as DescMethod,
    {
      eventOf: trackingEventOf,
      resumeField: watchTracking.input.field.fromVersion,
      about:
        "Server-sent events. `data` is the order (OrderTracking), `id` its version, `event` the type of what has happened last, such as StoreAcknowledged, or `snapshot` for the order as it stood when the stream began. An event `error` has an Error as its data, and is the last. Comments are signs of life.",
    },
  ],
]);

function trackingEventOf(answer: Message): ServerSentEvent | undefined {
  if (!isMessage(answer, WatchTrackingResponseSchema)) return undefined;
  const { case: kind, value } = answer.kind;
  if (kind === "heartbeat") {
    const time = value.serverTime ? timestampDate(value.serverTime).toISOString() : "";
    return { comment: `${time} position ${value.position}` };
  }
  if (!value?.order) return undefined;
  const data = JSON.stringify(writeMessage(OrderTrackingSchema, value.order));
  return { id: String(value.order.version), event: value.eventTypes.at(-1) ?? "snapshot", data };
}

const HEADERS = {
  "content-type": "text/event-stream; charset=utf-8",
  // nginx would keep events back to fill its buffer.
  "x-accel-buffering": "no",
};
/** When a server ends all its streams at once, not all clients should come back at once. */
const RETRY_MS = { least: 500, most: 1500 };

export type EventStreamOptions = {
  readonly mapping: EventMapping;
  readonly path: string;
  /** Aborts when nobody takes the events any more, at which the answers end. */
  readonly leaving: AbortSignal;
  readonly clock: () => Date;
};

/**
 * Writes the answers as server-sent events, no faster than they are taken. What fails before the first answer is thrown,
 * with nothing written; what fails later is the last event. An end without any answer is 204, at which browsers do not
 * come back.
 */
export async function writeEvents(
  answers: AsyncIterable<Message>,
  response: ServerResponse,
  { mapping, path, leaving, clock }: EventStreamOptions,
): Promise<void> {
  let begun = false;
  try {
    for await (const answer of answers) {
      if (!begun) {
        begun = true;
        response.writeHead(200, HEADERS);
        if (response.req.method === "HEAD") break;
        response.write(`retry: ${Math.round(RETRY_MS.least + Math.random() * (RETRY_MS.most - RETRY_MS.least))}\n`);
      }
      const event = mapping.eventOf(answer);
      if (event && !response.write(textOf(event))) await drained(response, leaving);
    }
  } catch (thrown) {
    if (!begun || !(thrown instanceof CallFailure) || leaving.aborted) throw thrown;
    response.write(textOf({ id: "", event: "error", data: JSON.stringify(errorBodyOf(thrown, path, clock())) }));
  }
  if (!begun) response.writeHead(204);
  response.end();
}

async function drained(response: ServerResponse, leaving: AbortSignal): Promise<void> {
  try {
    await once(response, "drain", { signal: leaving });
  } catch (error) {
    // The next of the answers then fails, with the reason.
    if (!leaving.aborted) throw error;
  }
}

function textOf(event: ServerSentEvent): string {
  if ("comment" in event) return `: ${event.comment}\n\n`;
  const id = event.id === "" ? "" : `id: ${event.id}\n`;
  return `${id}event: ${event.event}\ndata: ${event.data}\n\n`;
}

/** The query of a request, with what its Last-Event-ID asks for in it: that is newer than what a client's address says. */
export function resumedQuery(query: string, { headers }: IncomingMessage, { resumeField }: EventMapping): string {
  const id = headers["last-event-id"];
  if (id === undefined || id === "") return query;
  if (typeof id !== "string" || !/^\d{1,10}$/.test(id) || Number(id) >= 2 ** 32) {
    const detail = "must be the id of an event of this stream: a version of the order";
    throw new Refusal("VALIDATION_FAILED", `Last-Event-ID: ${detail}`, {}, [{ field: "Last-Event-ID", rule: "event_id", detail }]);
  }
  const others = query.split("&").filter((part) => ![resumeField.name, resumeField.jsonName].includes(part.split("=", 1)[0] ?? ""));
  return [...others.filter((part) => part !== ""), `${resumeField.name}=${id}`].join("&");
}
