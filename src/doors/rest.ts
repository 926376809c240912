import type { IncomingMessage, ServerResponse } from "node:http";
import type { Message } from "@bufbuild/protobuf";
import { Door } from "../gen/ordertrail/events/v1/values_pb.js";
import { CALLER_LEFT, timeoutIn } from "./deadline.ts";
import type { Dispatcher } from "./dispatch.ts";
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
export function createRestDoor({ dispatcher, maxRequestBytes }: RestDoorOptions): RestDoor {
  const routes = createRestRoutes(dispatcher.services);

  return {
    methodsOf: routes.methodsOf,

    async handle({ path, query, traceId }, request, response) {
      const found = routes.match(request.method === "HEAD" ? "GET" : (request.method ?? ""), path);
      if (!found) return false;
      const { route, variables } = found;
      const read = async () =>
        readRestRequest(route, { variables, query, body: route.body === "none" ? {} : await readJsonBody(request, maxRequestBytes) });
      const output = await dispatcher.unary(route.method, read, {
        door: Door.REST,
        authorization: request.headers.authorization,
        traceId,
        whenEnded: (end) => response.once("close", () => end(CALLER_LEFT)),
        timeoutMs: timeoutIn(request.headers),
        ...peerOf(request),
      });
      sendJson(response, 200, JSON.stringify(answerOf(route, output)));
      return true;
    },
  };
}

function answerOf({ method, responseBody }: RestRoute, output: Message) {
  const whole = writeMessage(method.output, output);
  if (!responseBody) return whole;
  return typeof whole === "object" && whole !== null && !Array.isArray(whole) ? (whole[responseBody.name] ?? {}) : {};
}
