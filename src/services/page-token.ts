import { createHash } from "node:crypto";
import { Refusal } from "../domain/refusal.ts";

const DEFAULT_PAGE_SIZE = 50;
const MAX_PAGE_SIZE = 1000;

/** How many things a page holds for the page_size asked for. */
export function pageLimit(pageSize: number): number {
  return pageSize === 0 ? DEFAULT_PAGE_SIZE : Math.min(pageSize, MAX_PAGE_SIZE);
}

/**
 * A token that goes on after `key`, for the same filters only. Opaque to callers, and no grant of access: whoever sends it
 * is checked like everyone else.
 */
export function formatPageToken(key: readonly (string | number)[], filters: unknown): string {
  return Buffer.from(JSON.stringify([digest(filters), ...key])).toString("base64url");
}

/** The key in a token, as many parts as `kinds` names; undefined for the empty token. Throws VALIDATION_FAILED for any other. */
export function parsePageToken(token: string, kinds: readonly ("string" | "number")[], filters: unknown): (string | number)[] | undefined {
  if (token === "") return undefined;
  let parts: unknown;
  try {
    parts = JSON.parse(Buffer.from(token, "base64url").toString());
  } catch {
    throw invalid("is not a token of this server");
  }
  if (!Array.isArray(parts) || parts.length !== kinds.length + 1 || !kinds.every((kind, index) => isA(kind, parts[index + 1]))) {
    throw invalid("is not a token of this server");
  }
  if (parts[0] !== digest(filters)) throw invalid("belongs to a list with other filters");
  return parts.slice(1);
}

function digest(filters: unknown): string {
  return createHash("sha256").update(JSON.stringify(filters)).digest("base64url").slice(0, 12);
}

function invalid(detail: string): Refusal {
  return new Refusal("VALIDATION_FAILED", `page_token: ${detail}`, {}, [{ field: "page_token", rule: "page_token", detail }]);
}

function isA(kind: "string" | "number", value: unknown): boolean {
  return kind === "number" ? Number.isSafeInteger(value) : typeof value === "string";
}
