import { type DescField, type DescMessage, getOption, hasOption, type JsonObject, type JsonValue, ScalarType } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import { type FieldRules, field as fieldRulesOption, Ignore } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { bareNames } from "./enum-names.ts";

/** JSON schemas of messages, as REST reads and writes them. */
export type Schemas = {
  /** A reference to the message's schema, which is added to `components` with all that it refers to. */
  refTo(desc: DescMessage): JsonObject;
  /** The schema of an object with these fields of a message. */
  objectOf(fields: readonly DescField[]): JsonObject;
  schemaOf(field: DescField): JsonObject;
  readonly components: JsonObject;
};

/** Collects the schemas that an OpenAPI document needs. */
export function createSchemas(): Schemas {
  const components: JsonObject = {};
  const owners = new Map<string, string>();

  /** Adds a component under its short name. */
  function refTo({ name, typeName }: { readonly name: string; readonly typeName: string }, describe: () => JsonObject): JsonObject {
    const owner = owners.get(name);
    if (owner !== undefined && owner !== typeName) throw new Error(`${owner} and ${typeName} would be one schema in the OpenAPI document`);
    if (owner === undefined) {
      owners.set(name, typeName);
      components[name] = describe();
    }
    return { $ref: `#/components/schemas/${name}` };
  }

  function objectOf(fields: readonly DescField[]): JsonObject {
    const required = fields.filter(isRequired).map(({ name }) => name);
    return {
      type: "object",
      properties: Object.fromEntries(fields.map((field) => [field.name, schemaOf(field)])),
      ...(required.length > 0 && { required }),
    };
  }

  function schemaOf(field: DescField): JsonObject {
    const rules = rulesOf(field);
    switch (field.fieldKind) {
      case "list": {
        const list = rules?.type.case === "repeated" ? rules.type.value : undefined;
        return {
          type: "array",
          items: singular(field, list?.items),
          ...given({
            minItems: list?.minItems || undefined,
            maxItems: list?.maxItems || undefined,
            uniqueItems: list?.unique || undefined,
          }),
        };
      }
      case "map":
        return { type: "object", additionalProperties: singular(field, undefined) };
      default:
        return singular(field, rules);
    }
  }

  function singular(field: DescField, rules: FieldRules | undefined): JsonObject {
    const { message, enum: enumDesc } = field;
    if (enumDesc) return refTo(enumDesc, () => ({ type: "string", enum: bareNames(enumDesc) }));
    if (message) return WELL_KNOWN[message.typeName] ?? refTo(message, () => objectOf(message.fields));
    return scalarSchema(field.scalar, rules);
  }

  return { refTo: (desc) => refTo(desc, () => objectOf(desc.fields)), objectOf, schemaOf, components };
}

const WELL_KNOWN: Readonly<Record<string, JsonObject>> = {
  "google.protobuf.Timestamp": { type: "string", format: "date-time" },
  "google.protobuf.Duration": { type: "string", pattern: "^-?\\d+(\\.\\d+)?s$" },
  "google.protobuf.Struct": { type: "object", additionalProperties: true },
};

function scalarSchema(scalar: ScalarType | undefined, rules: FieldRules | undefined): JsonObject {
  switch (scalar) {
    case ScalarType.STRING: {
      const string = rules?.type.case === "string" ? rules.type.value : undefined;
      return {
        type: "string",
        ...given({ minLength: string?.minLen || undefined, maxLength: string?.maxLen || undefined, pattern: string?.pattern || undefined }),
      };
    }
    case ScalarType.BYTES:
      return { type: "string", contentEncoding: "base64" };
    case ScalarType.BOOL:
      return { type: "boolean" };
    case ScalarType.DOUBLE:
      return { type: "number", format: "double", ...bounds(rules) };
    case ScalarType.FLOAT:
      return { type: "number", format: "float", ...bounds(rules) };
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      // Written as strings, as proto3 JSON does; small ones are read as numbers, too.
      return { type: ["string", "integer"], format: "int64", pattern: "^-?\\d+$", ...bounds(rules) };
    default:
      return { type: "integer", format: "int32", ...bounds(rules) };
  }
}

function bounds(rules: FieldRules | undefined): JsonObject {
  switch (rules?.type.case) {
    case "double":
    case "float":
    case "int32":
    case "uint32":
    case "int64":
    case "uint64": {
      const { greaterThan, lessThan } = rules.type.value;
      return given({
        minimum: greaterThan.case === "gte" ? greaterThan.value : undefined,
        exclusiveMinimum: greaterThan.case === "gt" ? greaterThan.value : undefined,
        maximum: lessThan.case === "lte" ? lessThan.value : undefined,
        exclusiveMaximum: lessThan.case === "lt" ? lessThan.value : undefined,
      });
    }
    default:
      return {};
  }
}

function rulesOf(field: DescField): FieldRules | undefined {
  return hasOption(field, fieldRulesOption) ? getOption(field, fieldRulesOption) : undefined;
}

/** Whether a request without the field breaks its rules. */
function isRequired(field: DescField): boolean {
  const rules = rulesOf(field);
  if (!rules) return false;
  if (rules.required) return true;
  if (rules.ignore !== Ignore.UNSPECIFIED) return false;
  switch (rules.type.case) {
    case "string":
      return rules.type.value.minLen > 0n || (rules.type.value.pattern !== "" && !new RegExp(rules.type.value.pattern, "u").test(""));
    case "enum":
      return rules.type.value.notIn.includes(0);
    case "double":
      return (
        field.presence === FeatureSet_FieldPresence.IMPLICIT &&
        rules.type.value.greaterThan.case === "gt" &&
        rules.type.value.greaterThan.value >= 0
      );
    case "repeated":
      return rules.type.value.minItems > 0n;
    default:
      return false;
  }
}

/** The keywords that are given, with whole numbers as JSON has them. */
function given(keywords: Readonly<Record<string, JsonValue | bigint | undefined>>): JsonObject {
  return Object.fromEntries(
    Object.entries(keywords).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, typeof value === "bigint" ? Number(value) : value]],
    ),
  );
}
