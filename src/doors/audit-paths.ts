import type { IncomingMessage, ServerResponse } from "node:http";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import type { AuditLog } from "../audit/audit-log.ts";
import { parseTilePath, type TileAddress } from "../audit/tile.ts";
import { Refusal } from "../domain/refusal.ts";
import { Door } from "../gen/ordertrail/events/v1/values_pb.js";
import type { Dispatcher } from "./dispatch.ts";
import { peerOf } from "./peer.ts";

export type AuditPathsOptions = {
  readonly log: AuditLog;
  /** Whether anybody may read checkpoints and hash tiles, without a token. */
  readonly isPublic: boolean;
  readonly authorize: Dispatcher["authorize"];
};

/** The log as C2SP's tlog-tiles has it, below /audit. */
export type AuditPaths = {
  /** Answers the request if it is for one of its paths, and says whether it was. Throws a Refusal. */
  handle(target: AuditTarget, request: IncomingMessage, response: ServerResponse): Promise<boolean>;
  /** The HTTP methods of a path, for the header Allow. */
  methodsOf(path: string): readonly string[];
  /** All of them, as the permission table names them. */
  readonly names: readonly string[];
};

/** What a request is for. */
export type AuditTarget = { readonly path: string; readonly traceId: string };

const CHECKPOINT = "GET /audit/checkpoint";
const HASH_TILE = "GET /audit/tile/{level}/{index}";
const ENTRIES = "GET /audit/tile/entries/{index}";
/** What may be opened to anybody: it tells nothing of what the entries say. */
const OPENABLE: readonly string[] = [CHECKPOINT, HASH_TILE];

const PREFIX = "/audit/";
const METHODS = ["GET", "HEAD"];
const YEAR_SECONDS = 365 * 86_400;
const compress = promisify(gzip);

/** Serves /audit/checkpoint, /audit/tile/<level>/<index>[.p/<width>] and /audit/tile/entries/<index>[.p/<width>]. */
export function createAuditPaths({ log, isPublic, authorize }: AuditPathsOptions): AuditPaths {
  /** Who may share what is cached: where a token is needed, none but the caller. */
  async function admit(name: string, traceId: string, request: IncomingMessage): Promise<"public" | "private"> {
    if (isPublic && OPENABLE.includes(name)) return "public";
    await authorize(name, { door: Door.REST, authorization: request.headers.authorization, traceId, ...peerOf(request) });
    return "private";
  }

  async function answerCheckpoint(traceId: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    await admit(CHECKPOINT, traceId, request);
    const newest = await log.checkpoint();
    if (!newest) throw new Refusal("NOT_COVERED", "no checkpoint has been signed yet: try again");
    send(response, Buffer.from(newest.signed), { "content-type": "text/plain; charset=utf-8", "cache-control": "no-cache" });
  }

  async function answerTile(address: TileAddress, traceId: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const scope = await admit(address.level === "entries" ? ENTRIES : HASH_TILE, traceId, request);
    const bytes = await log.tile(address);
    if (!bytes) throw new Refusal("NOT_COVERED", "the log's newest checkpoint has no such tile");
    const headers = { "content-type": "application/octet-stream", "cache-control": `${scope}, max-age=${YEAR_SECONDS}, immutable` };
    // Hashes do not get smaller.
    const isCompressed = address.level === "entries" && /\bgzip\b/.test(String(request.headers["accept-encoding"] ?? ""));
    if (address.level === "entries") response.appendHeader("vary", "Accept-Encoding");
    send(response, isCompressed ? await compress(bytes) : bytes, isCompressed ? { ...headers, "content-encoding": "gzip" } : headers);
  }

  return {
    async handle({ path, traceId }, request, response) {
      if (!path.startsWith(PREFIX)) return false;
      const name = path.slice(PREFIX.length);
      const isTile = name.startsWith("tile/");
      if (!isTile && name !== "checkpoint") return false;
      if (!METHODS.includes(request.method ?? ""))
        throw new Refusal("METHOD_NOT_ALLOWED", `${request.method} is not for this path; use GET`, { allow: METHODS.join(", ") });
      if (isTile) {
        const address = parseTilePath(name);
        if (!address) throw new Refusal("MALFORMED_REQUEST", "this is no path of a tile: tile/<level or entries>/<index>[.p/<width>]");
        await answerTile(address, traceId, request, response);
      } else {
        await answerCheckpoint(traceId, request, response);
      }
      return true;
    },
    methodsOf: (path) => (path === `${PREFIX}checkpoint` || path.startsWith(`${PREFIX}tile/`) ? METHODS : []),
    names: [CHECKPOINT, HASH_TILE, ENTRIES],
  };
}

function send(response: ServerResponse, bytes: Uint8Array, headers: Record<string, string>): void {
  response.writeHead(200, { ...headers, "content-length": bytes.length });
  response.end(bytes);
}
