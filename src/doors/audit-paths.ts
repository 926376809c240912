import type { IncomingMessage, ServerResponse } from "node:http";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { checkPath, type PathTemplate } from "../access/permissions.ts";
import type { AuditLog } from "../audit/audit-log.ts";
import { parseTilePath, type TileAddress } from "../audit/tile.ts";
import type { Caller } from "../domain/caller.ts";
import { Refusal } from "../domain/refusal.ts";
import { bearerToken } from "./bearer-token.ts";

export type AuditPathsOptions = {
  readonly log: AuditLog;
  /** Whether anybody may read checkpoints and hash tiles, without a token. */
  readonly isPublic: boolean;
  /** Throws a Refusal UNAUTHENTICATED for a token that does not verify. */
  readonly verifyToken: (token: string) => Promise<Caller>;
};

/** The log as C2SP's tlog-tiles has it, below /audit. */
export type AuditPaths = {
  /** Answers the request if it is for one of its paths, and says whether it was. Throws a Refusal. */
  handle(path: string, request: IncomingMessage, response: ServerResponse): Promise<boolean>;
  /** The HTTP methods of a path, for the header Allow. */
  methodsOf(path: string): readonly string[];
};

const PREFIX = "/audit/";
const METHODS = ["GET", "HEAD"];
const YEAR_SECONDS = 365 * 86_400;
const compress = promisify(gzip);

/** Serves /audit/checkpoint, /audit/tile/<level>/<index>[.p/<width>] and /audit/tile/entries/<index>[.p/<width>]. */
export function createAuditPaths({ log, isPublic, verifyToken }: AuditPathsOptions): AuditPaths {
  /** Who may share what is cached: where a token is needed, none but the caller. */
  async function admit(template: PathTemplate, { headers }: IncomingMessage): Promise<"public" | "private"> {
    if (isPublic && checkPath(undefined, template)) return "public";
    checkPath(await verifyToken(bearerToken(headers.authorization)), template);
    return "private";
  }

  async function answerCheckpoint(request: IncomingMessage, response: ServerResponse): Promise<void> {
    await admit("/audit/checkpoint", request);
    const newest = await log.checkpoint();
    if (!newest) throw new Refusal("NOT_COVERED", "no checkpoint has been signed yet: try again");
    send(response, Buffer.from(newest.signed), { "content-type": "text/plain; charset=utf-8", "cache-control": "no-cache" });
  }

  async function answerTile(address: TileAddress, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const template = address.level === "entries" ? "/audit/tile/entries/{index}" : "/audit/tile/{level}/{index}";
    const scope = await admit(template, request);
    const bytes = await log.tile(address);
    if (!bytes) throw new Refusal("NOT_COVERED", "the log's newest checkpoint has no such tile");
    const headers = { "content-type": "application/octet-stream", "cache-control": `${scope}, max-age=${YEAR_SECONDS}, immutable` };
    // Hashes do not get smaller.
    const isCompressed = address.level === "entries" && /\bgzip\b/.test(String(request.headers["accept-encoding"] ?? ""));
    if (address.level === "entries") response.appendHeader("vary", "Accept-Encoding");
    send(response, isCompressed ? await compress(bytes) : bytes, isCompressed ? { ...headers, "content-encoding": "gzip" } : headers);
  }

  return {
    async handle(path, request, response) {
      if (!path.startsWith(PREFIX)) return false;
      const name = path.slice(PREFIX.length);
      const isTile = name.startsWith("tile/");
      if (!isTile && name !== "checkpoint") return false;
      if (!METHODS.includes(request.method ?? ""))
        throw new Refusal("METHOD_NOT_ALLOWED", `${request.method} is not for this path; use GET`, { allow: METHODS.join(", ") });
      if (isTile) {
        const address = parseTilePath(name);
        if (!address) throw new Refusal("MALFORMED_REQUEST", "this is no path of a tile: tile/<level or entries>/<index>[.p/<width>]");
        await answerTile(address, request, response);
      } else {
        await answerCheckpoint(request, response);
      }
      return true;
    },
    methodsOf: (path) => (path === `${PREFIX}checkpoint` || path.startsWith(`${PREFIX}tile/`) ? METHODS : []),
  };
}

function send(response: ServerResponse, bytes: Uint8Array, headers: Record<string, string>): void {
  response.writeHead(200, { ...headers, "content-length": bytes.length });
  response.end(bytes);
}
