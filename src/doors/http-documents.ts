import type { IncomingMessage, ServerResponse } from "node:http";
import type { DescService } from "@bufbuild/protobuf";
import { Refusal } from "../domain/refusal.ts";
import { sendJson } from "./http-answer.ts";
import { createOpenApi } from "./openapi.ts";
import type { Readiness } from "./readiness.ts";

export type DocumentsOptions = {
  readonly services: readonly DescService[];
  readonly readiness: Readiness;
  /** The public keys that verify the tokens issued here. */
  readonly jwks: () => Promise<object>;
  /** For how many seconds others may remember them. */
  readonly jwksMaxAgeSeconds: number;
};

/** What anybody may read without a token: whether the server lives and is ready, its paths, and its public keys. */
export type Documents = {
  /** Answers the request if it is for one of them, and says whether it was. Throws a Refusal METHOD_NOT_ALLOWED. */
  handle(path: string, request: IncomingMessage, response: ServerResponse): Promise<boolean>;
  /** The HTTP methods of a path, for the header Allow. */
  methodsOf(path: string): readonly string[];
  /** All of them, as the permission table names them. */
  readonly names: readonly string[];
};

const METHODS = ["GET", "HEAD"];

/** /healthz, /readyz, /openapi.json and /.well-known/jwks.json. */
export function createDocuments({ services, readiness, jwks, jwksMaxAgeSeconds }: DocumentsOptions): Documents {
  const openApi = JSON.stringify(createOpenApi(services));
  const documents = new Map<string, (response: ServerResponse) => void | Promise<void>>([
    ["/healthz", (response) => sendJson(response, 200, JSON.stringify({ status: "ok" }))],
    [
      "/readyz",
      async (response) => {
        const report = await readiness.check();
        sendJson(response, report.ready ? 200 : 503, JSON.stringify(report));
      },
    ],
    ["/openapi.json", (response) => sendJson(response, 200, openApi)],
    [
      "/.well-known/jwks.json",
      async (response) => {
        const keys = await jwks();
        response.setHeader("cache-control", `public, max-age=${jwksMaxAgeSeconds}`);
        sendJson(response, 200, JSON.stringify(keys));
      },
    ],
  ]);

  return {
    async handle(path, { method = "" }, response) {
      const document = documents.get(path);
      if (!document) return false;
      if (!METHODS.includes(method))
        throw new Refusal("METHOD_NOT_ALLOWED", `${method} is not for this path; use GET`, { allow: METHODS.join(", ") });
      await document(response);
      return true;
    },
    methodsOf: (path) => (documents.has(path) ? METHODS : []),
    names: [...documents.keys()].map((path) => `GET ${path}`),
  };
}
