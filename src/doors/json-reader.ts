import {
  type DescEnum,
  type DescField,
  type DescMessage,
  fromJson,
  type JsonObject,
  type JsonValue,
  type Message,
  ScalarType,
} from "@bufbuild/protobuf";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import { Refusal, type Violation } from "../domain/refusal.ts";
import { bareName, bareNames } from "./enum-names.ts";

/** More are as good as these, and a body of a megabyte can break a hundred thousand. */
const MAX_VIOLATIONS = 100;
/** Levels of free JSON that are read at all; how many are allowed is for the request's own rules to say. */
const MAX_FREE_LEVELS = 32;

const INT32_MAX = 2n ** 31n - 1n;
const INT64_MAX = 2n ** 63n - 1n;

/** A message read from JSON, and every place where the JSON does not fit it. What fits is in the message. */
export type JsonReading = { readonly message: Message; readonly violations: readonly Violation[] };

/**
 * Reads a message from REST's JSON: proto3 JSON, with fields by their proto or camel-case names and enums by their bare
 * or full names. Finds all that is wrong at once: unknown fields, values of the wrong type, unknown enum values.
 */
export function readMessage(desc: DescMessage, json: JsonObject): JsonReading {
  const violations: Violation[] = [];
  const report: Report = (field, rule, detail) => {
    if (violations.length < MAX_VIOLATIONS) violations.push({ field, rule, detail });
    return undefined;
  };
  const fitting = cleanObject(desc, json, "", report);
  try {
    return { message: fromJson(desc, fitting), violations };
  } catch {
    throw new Refusal("MALFORMED_REQUEST", "the request does not fit its schema; /openapi.json describes it");
  }
}

/** Notes a violation; nothing is left of the value. */
type Report = (field: string, rule: string, detail: string) => undefined;

function cleanObject(desc: DescMessage, json: JsonObject, path: string, report: Report): JsonObject {
  const fitting: JsonObject = {};
  for (const [key, value] of Object.entries(json)) {
    const field = desc.fields.find(({ name, jsonName }) => name === key || jsonName === key);
    const at = join(path, field?.name ?? key.slice(0, 64).toWellFormed());
    if (!field) report(at, "unknown_field", "is not a field here");
    else if (field.name in fitting) report(at, "duplicate", "must be given once, by one of its names");
    else if (value !== null) {
      const cleaned = cleanField(field, value, at, report);
      if (cleaned !== undefined) fitting[field.name] = cleaned;
    }
  }
  return fitting;
}

function cleanField(field: DescField, value: JsonValue, path: string, report: Report): JsonValue | undefined {
  switch (field.fieldKind) {
    case "list":
      if (!Array.isArray(value)) return report(path, "type", "must be a list");
      // What does not fit leaves a gap of its size, so that the others keep their places in the paths of violations.
      return value.map((element, index) => cleanSingular(field, element, `${path}[${index}]`, report) ?? gapFor(field));
    case "map":
      if (!isObject(value)) return report(path, "type", "must be an object");
      return Object.fromEntries(
        Object.entries(value).flatMap(([key, member]) => {
          const cleaned = cleanSingular(field, member, `${path}["${key.slice(0, 64).toWellFormed()}"]`, report);
          return cleaned === undefined ? [] : [[key, cleaned]];
        }),
      );
    default:
      return cleanSingular(field, value, path, report);
  }
}

function gapFor({ message, enum: enumDesc, scalar }: SingularDesc): JsonValue {
  if (message) return {};
  if (enumDesc) return enumDesc.values[0]?.name ?? 0;
  if (scalar === ScalarType.BOOL) return false;
  return scalar === ScalarType.STRING || scalar === ScalarType.BYTES ? "" : 0;
}

type SingularDesc = {
  readonly message?: DescMessage | undefined;
  readonly enum?: DescEnum | undefined;
  readonly scalar?: ScalarType | undefined;
};

function cleanSingular(
  { message, enum: enumDesc, scalar }: SingularDesc,
  value: JsonValue,
  path: string,
  report: Report,
): JsonValue | undefined {
  if (enumDesc) return cleanEnum(enumDesc, value, path, report);
  if (message?.typeName.startsWith("google.protobuf.")) return cleanWellKnown(message, value, path, report);
  if (message) return isObject(value) ? cleanObject(message, value, path, report) : report(path, "type", "must be an object");
  return cleanScalar(scalar, value, path, report);
}

function cleanEnum(desc: DescEnum, value: JsonValue, path: string, report: Report): JsonValue | undefined {
  const known = desc.values.find((candidate) => value === candidate.name || value === bareName(candidate));
  return known?.name ?? report(path, "enum", `must be one of ${bareNames(desc).join(", ")}`);
}

function cleanScalar(scalar: ScalarType | undefined, value: JsonValue, path: string, report: Report): JsonValue | undefined {
  switch (scalar) {
    case ScalarType.STRING:
      if (typeof value !== "string") return report(path, "type", "must be a string");
      return value.isWellFormed() ? value : report(path, "well_formed", "must not hold half a surrogate pair");
    case ScalarType.BOOL:
      return typeof value === "boolean" ? value : report(path, "type", "must be true or false");
    case ScalarType.BYTES:
      if (typeof value === "string" && /^[A-Za-z0-9+/_-]*={0,2}$/.test(value)) return value;
      return report(path, "type", "must be a string in base64");
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return finiteNumber(value) ?? report(path, "type", "must be a number");
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return wholeNumber(value, 0n, 2n * INT32_MAX + 1n) ?? report(path, "type", "must be a whole number from 0 to 4294967295");
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return (
        wholeNumber(value, 0n, 2n * INT64_MAX + 1n) ??
        report(path, "type", "must be a whole number of 0 or more, as a string if it is large")
      );
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return wholeNumber(value, -INT64_MAX - 1n, INT64_MAX) ?? report(path, "type", "must be a whole number, as a string if it is large");
    default:
      return (
        wholeNumber(value, -INT32_MAX - 1n, INT32_MAX) ?? report(path, "type", "must be a whole number from -2147483648 to 2147483647")
      );
  }
}

function finiteNumber(value: JsonValue): JsonValue | undefined {
  const isNumeric = typeof value === "number" || (typeof value === "string" && /^-?\d+(\.\d+)?([eE][+-]?\d+)?$/.test(value));
  return isNumeric && Number.isFinite(Number(value)) ? Number(value) : undefined;
}

/** The number as a string; undefined if it is none, has a fraction, lies outside, or is too large to be exact as a JSON number. */
function wholeNumber(value: JsonValue, min: bigint, max: bigint): string | undefined {
  const isWhole = Number.isSafeInteger(value) || (typeof value === "string" && /^-?\d{1,20}$/.test(value));
  if (!isWhole) return undefined;
  const number = BigInt(String(value));
  return number >= min && number <= max ? String(number) : undefined;
}

const WELL_KNOWN: Readonly<Record<string, string>> = {
  "google.protobuf.Timestamp": "must be a time as in RFC 3339, such as 2026-01-31T09:30:00Z",
  "google.protobuf.Duration": 'must be a duration in seconds, such as "1.5s"',
  "google.protobuf.Struct": "must be an object",
};

function cleanWellKnown(desc: DescMessage, value: JsonValue, path: string, report: Report): JsonValue | undefined {
  const problem = findFreeProblem(value, path, 0);
  if (problem) return report(...problem);
  if (desc.typeName === TimestampSchema.typeName && !isInCalendar(value)) return report(path, "type", WELL_KNOWN[desc.typeName] ?? "");
  try {
    fromJson(desc, value);
    return value;
  } catch {
    return report(path, "type", WELL_KNOWN[desc.typeName] ?? `must be the JSON form of ${desc.typeName}`);
  }
}

/** Whether a time names a day and an hour that there are; 30 February would silently become a day of March. */
function isInCalendar(value: JsonValue): boolean {
  const [, year, month, day, hour] = /^(\d{4})-(\d{2})-(\d{2})T(\d{2}):/.exec(String(value)) ?? [];
  const date = new Date(Date.UTC(Number(year), Number(month) - 1, Number(day)));
  return date.getUTCMonth() + 1 === Number(month) && date.getUTCDate() === Number(day) && Number(hour) < 24;
}

/** What keeps free JSON from being read at all. */
function findFreeProblem(value: JsonValue, path: string, level: number): Parameters<Report> | undefined {
  if (typeof value === "string" && !value.isWellFormed()) return [path, "well_formed", "must not hold half a surrogate pair"];
  if (typeof value === "number" && !Number.isFinite(value)) return [path, "type", "must not hold a number that is too large"];
  if (typeof value !== "object" || value === null) return undefined;
  if (level === MAX_FREE_LEVELS) return [path, "depth", `must not be more than ${MAX_FREE_LEVELS} levels deep`];
  for (const [key, member] of Object.entries(value)) {
    const problem = key.isWellFormed()
      ? findFreeProblem(member, path, level + 1)
      : ([path, "well_formed", "must not hold half a surrogate pair"] as const);
    if (problem) return [...problem];
  }
  return undefined;
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function join(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}
