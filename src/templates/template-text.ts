import Mustache from "mustache";
import type { TemplateView } from "./template-view.ts";

/** A parsed template. `missing` hears of each variable that the view has not; it becomes empty text. */
export type TemplateText = (view: TemplateView, missing: (variable: string) => void) => string;

const HTML_ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
  "`": "&#96;",
};
const ESCAPES = {
  // Not the engine's own, which turns every slash of an address into an entity.
  html: (value: unknown) => String(value).replace(/[&<>"'`]/g, (letter) => HTML_ENTITIES[letter] ?? letter),
  none: (value: unknown) => String(value),
};
const writer = new Mustache.Writer();

/** Parses a template, once for all renderings. Throws for what the templates must not use: raw values and partials. */
export function parseTemplate(source: string, escaping: keyof typeof ESCAPES): TemplateText {
  const tokens: string[][] = writer.parse(source);
  refuseRaw(tokens, source);
  const options = { escape: ESCAPES[escaping] };
  return (view, missing) => writer.renderTokens(tokens, new ReportingContext(view, missing), undefined, source, options);
}

function refuseRaw(tokens: readonly unknown[], source: string): void {
  for (const token of tokens) {
    if (!Array.isArray(token)) continue;
    const [kind, name, , , inner] = token;
    if (kind === "&" || kind === ">") throw new Error(`A template must not use the tag ${kind} ${name}: ${source.slice(0, 60)}`);
    if (Array.isArray(inner)) refuseRaw(inner, source);
  }
}

class ReportingContext extends Mustache.Context {
  readonly #missing: (variable: string) => void;

  constructor(view: unknown, missing: (variable: string) => void, parent?: Mustache.Context) {
    super(view, parent);
    this.#missing = missing;
  }

  override lookup(name: string): unknown {
    const value: unknown = super.lookup(name);
    if (value === undefined) this.#missing(name);
    return value;
  }

  override push(view: unknown): ReportingContext {
    return new ReportingContext(view, this.#missing, this);
  }
}
