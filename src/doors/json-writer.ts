import { type DescField, type DescMessage, type JsonObject, type JsonValue, type Message, toJson } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import { bareName } from "./enum-names.ts";

/**
 * A message as REST writes it: proto3 JSON by the proto's field names, with bare enum names. Lists, numbers and booleans
 * are always there; empty strings and unspecified enum values are left out.
 */
export function writeMessage(desc: DescMessage, message: Message): JsonValue {
  return present(desc, toJson(desc, message, { useProtoFieldName: true, alwaysEmitImplicit: true }));
}

function present(desc: DescMessage, json: JsonValue): JsonValue {
  if (!isObject(json) || desc.typeName.startsWith("google.protobuf.")) return json;
  return Object.fromEntries(
    desc.fields.flatMap((field) => {
      const value = json[field.name];
      return value === undefined || (field.presence === FeatureSet_FieldPresence.IMPLICIT && saysNothing(field, value))
        ? []
        : [[field.name, presentField(field, value)]];
    }),
  );
}

function saysNothing(field: DescField, value: JsonValue): boolean {
  return value === "" || (field.fieldKind === "enum" && value === field.enum.values[0]?.name);
}

function presentField(field: DescField, value: JsonValue): JsonValue {
  if (field.fieldKind === "list" && Array.isArray(value)) return value.map((element) => presentSingular(field, element));
  if (field.fieldKind === "map" && isObject(value))
    return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, presentSingular(field, member)]));
  return presentSingular(field, value);
}

function presentSingular(field: DescField, value: JsonValue): JsonValue {
  if (field.message) return present(field.message, value);
  const known = field.enum?.values.find(({ name }) => name === value);
  return known ? bareName(known) : value;
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
