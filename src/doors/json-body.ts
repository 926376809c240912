import type { IncomingMessage } from "node:http";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { Refusal } from "../domain/refusal.ts";

/** The JSON object that a request brings; `{}` if it brings no body. Throws a Refusal for any other, and for a body over the limit, which is not read on. */
export async function readJsonBody(request: IncomingMessage, maxBytes: number): Promise<JsonObject> {
  const bytes = await readBytes(request, maxBytes);
  if (bytes.byteLength === 0) return {};
  checkContentType(request);
  return parseObject(decodeText(bytes));
}

/** The body as it came. Throws a Refusal PAYLOAD_TOO_LARGE for one over the limit, which is not read on. */
export async function readBytes(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  if (Number(request.headers["content-length"] ?? 0) > maxBytes) throw tooLarge(maxBytes);
  const chunks: Buffer[] = [];
  let length = 0;
  // Leaving the loop would destroy the connection before the refusal is written.
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > maxBytes) throw tooLarge(maxBytes);
  }
  return Buffer.concat(chunks);
}

/** What a request is refused with that is too large. */
export function tooLarge(maxBytes: number): Refusal {
  return new Refusal("PAYLOAD_TOO_LARGE", `the request is larger than ${maxBytes} bytes`, { max_bytes: String(maxBytes) });
}

function checkContentType({ headers }: IncomingMessage): void {
  const [type = "", ...parameters] = (headers["content-type"] ?? "")
    .toLowerCase()
    .split(";")
    .map((part) => part.trim());
  const isJson = type === "application/json" && parameters.every((parameter) => /^charset="?utf-8"?$/.test(parameter));
  if (!isJson) throw new Refusal("UNSUPPORTED_MEDIA_TYPE", "the content type must be application/json, in UTF-8");
  if (headers["content-encoding"] !== undefined && headers["content-encoding"] !== "identity") {
    throw new Refusal("UNSUPPORTED_MEDIA_TYPE", "the body must not be compressed");
  }
}

function decodeText(bytes: Buffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Refusal("MALFORMED_REQUEST", "the body is not UTF-8");
  }
}

function parseObject(text: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    // The parser's own message quotes the body, which may be personal.
    const position = error instanceof Error ? /at position \d+/.exec(error.message)?.[0] : undefined;
    throw new Refusal("MALFORMED_REQUEST", ["the body is not JSON", position].filter(Boolean).join(": it breaks off or goes wrong "));
  }
  if (!isJsonObject(value)) throw new Refusal("MALFORMED_REQUEST", "the body must be a JSON object");
  if (countKeys(value) !== countNames(text)) throw new Refusal("MALFORMED_REQUEST", "an object in the body names a field twice");
  return value;
}

/** How many keys there are in a value and all that it holds. Of a key that was given twice, parsing keeps one. */
function countKeys(value: JsonValue): number {
  let keys = 0;
  const open: JsonValue[] = [value];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (typeof next !== "object" || next === null) continue;
    const members = Object.values(next);
    if (!Array.isArray(next)) keys += members.length;
    for (const member of members) open.push(member);
  }
  return keys;
}

/** How many keys a JSON text has: its strings before a colon. */
function countNames(text: string): number {
  let names = 0;
  for (const [, colon] of text.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?/g)) if (colon) names++;
  return names;
}

function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
