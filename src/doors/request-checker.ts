import { create, type DescMessage, type DescMethod, type DescService, isMessage, type Message } from "@bufbuild/protobuf";
import { pathToString, type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import { createValidator, type Validator } from "@bufbuild/protovalidate";
import { Refusal, type Violation } from "../domain/refusal.ts";
import { hasOnlyGoodPoints } from "../services/point-rules.ts";
import { checkRequest } from "../services/request-rules.ts";
import { violationsMessage } from "./errors.ts";

/** A request as a door read it. */
export type Decoded = {
  readonly message: Message;
  /** What the door found broken already; what could be read is in the message. */
  readonly violations?: readonly Violation[];
};

export type RequestChecker = {
  /** The request, if it breaks no rule. Throws a Refusal VALIDATION_FAILED with all that it breaks, up to a hundred. */
  check(method: DescMethod, request: Decoded): Message;
  /** Which rules a message of a stream breaks. */
  violations(method: DescMethod, message: Message): readonly Violation[];
};

/** A request of a megabyte can break tens of thousands of rules; a caller learns no more from those. */
const MAX_VIOLATIONS = 100;

/** Checks requests by the rules of their schema, and by those that a schema cannot say. */
export function createRequestChecker(services: readonly DescService[], clock: () => Date): RequestChecker {
  const validator = createWarmValidator(services);
  const findAll = (method: DescMethod, message: Message) => [
    ...checkSchema(validator, method, message),
    ...checkTimes(method.input, message),
    ...checkRequest(message, clock()),
  ];
  return {
    violations: (method, message) => (hasOnlyGoodPoints(message) ? [] : findAll(method, message)),
    check(method, { message, violations: known = [] }) {
      const broken = [...known, ...newViolations(known, findAll(method, message))];
      if (broken.length > 0) throw new Refusal("VALIDATION_FAILED", violationsMessage(broken), {}, broken.slice(0, MAX_VIOLATIONS));
      return message;
    },
  };
}

/** The first validation of a message compiles its rules, which takes milliseconds that no call should pay. */
function createWarmValidator(services: readonly DescService[]): Validator {
  const validator = createValidator({ regexMatch: createRegexMatcher() });
  for (const { methods } of services) for (const { input } of methods) validator.validate(input, create(input));
  return validator;
}

/** Halves the time of a validation. The library's own engine guards against hostile patterns; ours come from our schema. */
function createRegexMatcher(): (pattern: string, against: string) => boolean {
  const compiled = new Map<string, RegExp>();
  return (pattern, against) => {
    const known = compiled.get(pattern) ?? new RegExp(pattern, "u");
    compiled.set(pattern, known);
    return known.test(against);
  };
}

function checkSchema(validator: Validator, { input }: DescMethod, message: Message): Violation[] {
  const result = validator.validate(input, message);
  if (result.kind === "error") throw result.error;
  if (result.kind === "valid") return [];
  return result.violations.map(({ field, ruleId, message: detail }) => {
    const [ruleField = "", ...rule] = ruleId.split(".");
    // A rule of the whole message is named "<field>.<rule>".
    return field.length > 0 ? { field: pathToString(field), rule: ruleId, detail } : { field: ruleField, rule: rule.join("."), detail };
  });
}

const timed = new Map<DescMessage, boolean>();

/** Whether a message of this kind may hold a time. */
function mayHoldTimes(desc: DescMessage): boolean {
  const known = timed.get(desc);
  if (known !== undefined) return known;
  // For a kind that holds itself: it is found by its other fields.
  timed.set(desc, false);
  const found = desc.typeName === TimestampSchema.typeName || desc.fields.some(({ message }) => message && mayHoldTimes(message));
  timed.set(desc, found);
  return found;
}

/** Times whose fraction of a second is none: protobuf carries them, and they would silently become other times. */
function checkTimes(desc: DescMessage, message: Message): Violation[] {
  return mayHoldTimes(desc) ? findBrokenTimes(reflect(desc, message), "") : [];
}

function findBrokenTimes(message: ReflectMessage, path: string): Violation[] {
  return message.fields.flatMap((field) => {
    if (!field.message || !mayHoldTimes(field.message) || !message.isSet(field)) return [];
    const at = path === "" ? field.name : `${path}.${field.name}`;
    if (field.fieldKind === "list")
      return [...message.get(field)].flatMap((element, index) => findBrokenTimes(element as ReflectMessage, `${at}[${index}]`));
    if (field.fieldKind !== "message") return [];
    const value = message.get(field);
    if (!isMessage(value.message, TimestampSchema)) return findBrokenTimes(value, at);
    const { nanos } = value.message;
    return nanos >= 0 && nanos < 1e9 ? [] : [{ field: at, rule: "timestamp.nanos", detail: "must have nanos from 0 to 999999999" }];
  });
}

/** Leaves out what follows from a violation found earlier: a field that could not be read also looks empty. */
function newViolations(known: readonly Violation[], found: readonly Violation[]): readonly Violation[] {
  if (known.length === 0) return found;
  return found.filter(({ field }) => !known.some((earlier) => isWithin(field, earlier.field) || isWithin(earlier.field, field)));
}

function isWithin(path: string, outer: string): boolean {
  return path.startsWith(outer) && (path.length === outer.length || path[outer.length] === "." || path[outer.length] === "[");
}
