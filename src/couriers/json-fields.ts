/** A JSON object of a provider, of which nothing is taken for granted. */
export type JsonFields = {
  /** A text; empty when there is none. */
  text(name: string): string;
  number(name: string): number | undefined;
  /** A time as RFC 3339, or in milliseconds. */
  time(name: string): Date | undefined;
  flag(name: string): boolean;
  /** An object inside; one without fields when there is none. */
  inside(name: string): JsonFields;
  has(name: string): boolean;
};

/** Reads the fields of what a provider sent. What is not of the type that is asked for counts as absent. */
export function fieldsOf(value: unknown): JsonFields {
  const fields: Readonly<Record<string, unknown>> = typeof value === "object" && value !== null ? { ...value } : {};
  return {
    text: (name) => (typeof fields[name] === "string" ? fields[name] : ""),
    number: (name) => (typeof fields[name] === "number" && Number.isFinite(fields[name]) ? fields[name] : undefined),
    time(name) {
      const given = fields[name];
      const time = typeof given === "string" || typeof given === "number" ? new Date(given) : undefined;
      return time && !Number.isNaN(time.getTime()) ? time : undefined;
    },
    flag: (name) => fields[name] === true,
    inside: (name) => fieldsOf(fields[name]),
    has: (name) => fields[name] !== undefined && fields[name] !== null,
  };
}
