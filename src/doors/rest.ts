import type { IncomingMessage, ServerResponse } from "node:http";
import type { DescMethod, Message } from "@bufbuild/protobuf";
import { Door } from "../gen/ordertrail/events/v1/values_pb.js";
import { CALLER_LEFT, timeoutIn, whenAborted } from "./deadline.ts";
import type { Dispatcher } from "./dispatch.ts";
import { type EventMapping, eventMappingOf, resumedQuery, writeEvents } from "./event-stream.ts";
import { sendJson } from "./http-answer.ts";
import { readJsonBody } from "./json-body.ts";
import { writeMessage } from "./json-writer.ts";
import { peerOf } from "./peer.ts";
import { readRestRequest } from "./rest-request.ts";
import { createRestRoutes, type RestRoute } from "./rest-routes.ts";

/** By how many milliseconds the caller wants the answer: Connect's header, as both are served on one port. */

export type RestDoorOptions = {
  readonly dispatcher: Dispatcher;
  /** Larger bodies are refused with PAYLOAD_TOO_LARGE. */
  readonly maxRequestBytes: number;
  /** Streams end with its reason when it aborts. */
  readonly stopping: AbortSignal;
  readonly clock: () => Date;
};

/** The REST paths. */
export type RestDoor = {
  /**
   * Answers the request if it is for a REST path, and says whether it was. Throws what the call fails with, before
   * anything is written.
   */
  handle(target: RestTarget, request: IncomingMessage, response: ServerResponse): Promise<boolean>;
  /** The HTTP methods of a path, for the header Allow. */
  methodsOf(path: string): readonly string[];
};

/** What a request is for. */
export type RestTarget = {
  readonly path: string;
  /** What stands behind the question mark. */
  readonly query: string;
  readonly traceId: string;
};

/** Serves the RPCs that have google.api.http annotations under the paths that these name, in JSON. */
export function createRestDoor({ dispatcher, maxRequestBytes, stopping, clock }: RestDoorOptions): RestDoor {
  const routes = createRestRoutes(dispatcher.services);
  const mappings = new Map(
    routes.routes.filter(isStream).map(({ method }): [DescMethod, EventMapping] => [method, eventMappingOf(method)]),
  );

  return {
    methodsOf: routes.methodsOf,

    async handle({ path, query, traceId }, request, response) {
      const found = routes.match(request.method === "HEAD" ? "GET" : (request.method ?? ""), path);
      if (!found) return false;
      const { route, variables } = found;
      const incoming = {
        door: Door.REST,
        authorization: request.headers.authorization,
        traceId,
        whenEnded: (end: (reason: unknown) => void) => response.once("close", () => end(CALLER_LEFT)),
        timeoutMs: timeoutIn(request.headers),
        ...peerOf(request),
      };
      const mapping = mappings.get(route.method);
      if (mapping) {
        const read = () => readRestRequest(route, { variables, query: resumedQuery(query, request, mapping), body: {} });
        const leaving = new AbortController();
        response.once("close", () => leaving.abort(CALLER_LEFT));
        const whenEnded = whenAborted(AbortSignal.any([leaving.signal, stopping]));
        const answers = dispatcher.stream(route.method, read, { ...incoming, whenEnded });
        await writeEvents(answers, response, { mapping, path, leaving: leaving.signal, clock });
        return true;
      }
      const read = async () =>
        readRestRequest(route, { variables, query, body: route.body === "none" ? {} : await readJsonBody(request, maxRequestBytes) });
      const output = await dispatcher.unary(route.method, read, incoming);
      sendJson(response, 200, JSON.stringify(answerOf(route, output)));
      return true;
    },
  };
}

function isStream({ method }: RestRoute): boolean {
  return method.methodKind === "server_streaming";
}

function answerOf({ method, responseBody }: RestRoute, output: Message) {
  const whole = writeMessage(method.output, output);
  if (!responseBody) return whole;
  return typeof whole === "object" && whole !== null && !Array.isArray(whole) ? (whole[responseBody.name] ?? {}) : {};
}
