import { type DescField, type DescMessage, type JsonObject, type JsonValue, ScalarType } from "@bufbuild/protobuf";
import { Refusal, type Violation } from "../domain/refusal.ts";
import { type JsonReading, readMessage } from "./json-reader.ts";
import type { RestRoute } from "./rest-routes.ts";

/** A REST request in its parts. */
export type RestParts = {
  readonly variables: ReadonlyMap<DescField, string>;
  /** What stands behind the question mark. */
  readonly query: string;
  readonly body: JsonObject;
};

/** Joins path, query and body into the request message. All violations are in the reading. */
export function readRestRequest({ method, body: bodyTarget }: RestRoute, { variables, query, body }: RestParts): JsonReading {
  const violations: Violation[] = [];
  const json = bodyTarget === "all" ? { ...body } : readQuery(method.input, query, violations);
  if (bodyTarget === "all" && query !== "") {
    for (const name of new Set(parseQuery(query).keys()))
      violations.push({
        field: shortened(name),
        rule: "unknown_field",
        detail: "must be in the body: this path takes no query parameters",
      });
  }
  if (typeof bodyTarget === "object") json[bodyTarget.name] = body;
  for (const [field, value] of variables) {
    const given = json[field.name] ?? json[field.jsonName];
    if (given !== undefined && given !== value)
      violations.push({ field: field.name, rule: "same_as_path", detail: "must be as in the path, or be left out" });
    delete json[field.jsonName];
    json[field.name] = value;
  }
  const reading = readMessage(method.input, json);
  return { message: reading.message, violations: [...violations, ...reading.violations] };
}

const MAX_QUERY_LEVELS = 8;

/** Query parameters as JSON: `a.b=1` is field b of message field a, and a parameter that comes again adds to a list. */
function readQuery(desc: DescMessage, query: string, violations: Violation[]): JsonObject {
  const json: JsonObject = {};
  for (const [name, value] of parseQuery(query)) {
    const leaf = findLeaf(desc, json, name.split("."));
    if (!leaf) violations.push({ field: shortened(name), rule: "unknown_field", detail: "is not a parameter here" });
    else if (leaf.field.fieldKind === "list")
      leaf.holder[leaf.field.name] = [...listOf(leaf.holder[leaf.field.name]), typed(leaf.field, value)];
    else if (leaf.field.name in leaf.holder) violations.push({ field: shortened(name), rule: "duplicate", detail: "must be given once" });
    else leaf.holder[leaf.field.name] = typed(leaf.field, value);
  }
  return json;
}

/** The field that a parameter's name leads to, and the JSON object that is to hold it. */
function findLeaf(
  desc: DescMessage,
  json: JsonObject,
  names: readonly string[],
): { readonly field: DescField; readonly holder: JsonObject } | undefined {
  const [name, ...rest] = names;
  const field = desc.fields.find((candidate) => candidate.name === name || candidate.jsonName === name);
  if (!field || names.length > MAX_QUERY_LEVELS) return undefined;
  const nested = field.fieldKind === "message" && !field.message.typeName.startsWith("google.protobuf.") ? field.message : undefined;
  if (rest.length === 0) return nested ? undefined : { field, holder: json };
  if (!nested) return undefined;
  const inner = json[field.name] ?? {};
  if (typeof inner !== "object" || inner === null || Array.isArray(inner)) return undefined;
  json[field.name] = inner;
  return findLeaf(nested, inner, rest);
}

/** All else is read from text as from a JSON string. */
function typed({ scalar }: DescField, value: string): JsonValue {
  return scalar === ScalarType.BOOL && (value === "true" || value === "false") ? value === "true" : value;
}

function listOf(value: JsonValue | undefined): JsonValue[] {
  return Array.isArray(value) ? value : [];
}

function parseQuery(query: string): URLSearchParams {
  try {
    decodeURIComponent(query);
  } catch {
    throw new Refusal("MALFORMED_REQUEST", "the query has percent-encoding that does not decode to UTF-8");
  }
  return new URLSearchParams(query);
}

function shortened(name: string): string {
  return name.slice(0, 64).toWellFormed();
}
