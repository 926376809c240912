import type { IncomingMessage, ServerResponse } from "node:http";
import { Refusal } from "../domain/refusal.ts";
import { Door } from "../gen/ordertrail/events/v1/values_pb.js";
import type { Dispatcher } from "./dispatch.ts";
import { peerOf } from "./peer.ts";

/** What is served at /metrics. */
export type MetricsText = { readonly contentType: string; text(): Promise<string> };

export type MetricsPathOptions = {
  readonly metrics: MetricsText;
  /** Whether anybody may read them, without a token. */
  readonly isPublic: boolean;
  readonly authorize: Dispatcher["authorize"];
};

/** The process's metrics, for Prometheus. */
export type MetricsPath = {
  /** Answers the request if it is for /metrics, and says whether it was. Throws a Refusal. */
  handle(target: { readonly path: string; readonly traceId: string }, request: IncomingMessage, response: ServerResponse): Promise<boolean>;
  /** The HTTP methods of a path, for the header Allow. */
  methodsOf(path: string): readonly string[];
  /** As the permission table names it. */
  readonly names: readonly string[];
};

const PATH = "/metrics";
const NAME = `GET ${PATH}`;
const METHODS = ["GET", "HEAD"];

/** Serves /metrics. */
export function createMetricsPath({ metrics, isPublic, authorize }: MetricsPathOptions): MetricsPath {
  return {
    async handle({ path, traceId }, request, response) {
      if (path !== PATH) return false;
      if (!METHODS.includes(request.method ?? ""))
        throw new Refusal("METHOD_NOT_ALLOWED", `${request.method} is not for this path; use GET`, { allow: METHODS.join(", ") });
      if (!isPublic) await authorize(NAME, { door: Door.REST, authorization: request.headers.authorization, traceId, ...peerOf(request) });
      response.writeHead(200, { "content-type": metrics.contentType, "cache-control": "no-store" });
      response.end(await metrics.text());
      return true;
    },
    methodsOf: (path) => (path === PATH ? METHODS : []),
    names: [NAME],
  };
}
