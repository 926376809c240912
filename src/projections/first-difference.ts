import { Binary } from "mongodb";

/**
 * The path of the first part in which two values differ, such as "status_history[2].note"; undefined when they are equal.
 * For values as the driver reads them. Objects may name their fields in any order.
 */
export function firstDifference(expected: unknown, actual: unknown, path = ""): string | undefined {
  if (Object.is(expected, actual)) return undefined;
  if (expected instanceof Date && actual instanceof Date) return expected.getTime() === actual.getTime() ? undefined : path;
  if (expected instanceof Binary && actual instanceof Binary)
    return Buffer.compare(expected.value(), actual.value()) === 0 ? undefined : path;
  if (Array.isArray(expected) && Array.isArray(actual)) {
    const length = Math.max(expected.length, actual.length);
    return firstOf(
      Array.from({ length }, (_, index) => index),
      (index) => firstDifference(expected[index], actual[index], `${path}[${index}]`),
    );
  }
  if (!isPlain(expected) || !isPlain(actual)) return path;
  const fields = new Set([...Object.keys(expected), ...Object.keys(actual)]);
  return firstOf(fields, (field) => {
    const inside = path === "" ? field : `${path}.${field}`;
    return Object.hasOwn(expected, field) === Object.hasOwn(actual, field)
      ? firstDifference(expected[field], actual[field], inside)
      : inside;
  });
}

function firstOf<Part>(parts: Iterable<Part>, difference: (part: Part) => string | undefined): string | undefined {
  for (const part of parts) {
    const found = difference(part);
    if (found !== undefined) return found;
  }
  return undefined;
}

function isPlain(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}
