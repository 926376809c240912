import { readFileSync } from "node:fs";
import { join } from "node:path";
import { TEMPLATE_NAMES, type TemplateName } from "../domain/template-names.ts";
import { parseTemplate, type TemplateText } from "./template-text.ts";

/** The languages that every template has. The first is taken where somebody's own is not among them. */
export const TEMPLATE_LOCALES = ["en", "es"] as const;
export type TemplateLocale = (typeof TEMPLATE_LOCALES)[number];

/** What a template can be rendered for. An in-app message shows the texts of push, a store's webhook that of SMS. */
export const TEMPLATE_CHANNELS = ["email", "sms", "whatsapp", "push", "in-app"] as const;
export type TemplateChannel = (typeof TEMPLATE_CHANNELS)[number];

/** The channels that a template has texts for: by whom it is meant for. */
export function channelsOf(template: TemplateName): readonly TemplateChannel[] {
  if (template.startsWith("operator-")) return ["email"];
  if (template.startsWith("store-")) return ["email", "sms"];
  return TEMPLATE_CHANNELS;
}

/** The files that a template's folder must hold, and no others. */
export function filesOf(template: TemplateName): readonly string[] {
  return TEMPLATE_LOCALES.flatMap((locale) =>
    channelsOf(template).flatMap((channel) => FILES[channel].map((file) => fileName(file, locale))),
  );
}

const FILES: Readonly<Record<TemplateChannel, readonly string[]>> = {
  email: ["email.html", "email.txt"],
  sms: ["sms.txt"],
  whatsapp: ["whatsapp.txt"],
  push: ["push.txt"],
  "in-app": [],
};

/** The texts of one template in one language. */
export type TemplateTexts = {
  readonly email: { readonly subject: TemplateText; readonly html: TemplateText; readonly text: TemplateText };
  readonly sms?: TemplateText;
  readonly whatsapp?: { readonly parameters: readonly string[]; readonly text: TemplateText };
  readonly push?: { readonly title: TemplateText; readonly body: TemplateText };
};

export type Templates = ReadonlyMap<TemplateName, Readonly<Record<TemplateLocale, TemplateTexts>>>;

let templates: Templates | undefined;

/** All templates, read and parsed at the first call. Throws when one lacks a file or cannot be parsed, so whoever sends calls it at start. */
export function loadTemplates(): Templates {
  templates ??= new Map(
    TEMPLATE_NAMES.map((template) => [template, { en: readTexts(template, "en"), es: readTexts(template, "es") }] as const),
  );
  return templates;
}

function readTexts(template: TemplateName, locale: TemplateLocale): TemplateTexts {
  const channels = channelsOf(template);
  const file = (name: string) => read(`${template}/${fileName(name, locale)}`);
  return {
    email: readEmail(file, locale),
    ...(channels.includes("sms") && { sms: parseTemplate(file("sms.txt").trim(), "none") }),
    ...(channels.includes("whatsapp") && { whatsapp: readWhatsApp(file("whatsapp.txt")) }),
    ...(channels.includes("push") && { push: readPush(file("push.txt")) }),
  };
}

function readEmail(file: (name: string) => string, locale: TemplateLocale): TemplateTexts["email"] {
  const [subject, text] = headed(file("email.txt"), "Subject: ");
  const lay = (layout: string, body: string) =>
    read(fileName(layout, locale))
      .replace("{{>subject}}", () => subject)
      .replace("{{>body}}", () => body.trim());
  return {
    subject: parseTemplate(subject, "none"),
    html: parseTemplate(lay("layout.html", file("email.html")), "html"),
    text: parseTemplate(lay("layout.txt", text), "none"),
  };
}

function readWhatsApp(source: string): NonNullable<TemplateTexts["whatsapp"]> {
  const [parameters, text] = headed(source, "Parameters: ");
  return { parameters: parameters.split(", "), text: parseTemplate(text, "none") };
}

function readPush(source: string): NonNullable<TemplateTexts["push"]> {
  const [title, body] = headed(source, "");
  return { title: parseTemplate(title, "none"), body: parseTemplate(body, "none") };
}

/** The first line without the word that it begins with, and the rest. */
function headed(source: string, word: string): [head: string, rest: string] {
  const end = source.indexOf("\n");
  if (end < 0 || !source.startsWith(word)) throw new Error(`A template must begin with a line "${word}…": ${source.slice(0, 60)}`);
  return [source.slice(word.length, end).trim(), source.slice(end).trim()];
}

function read(path: string): string {
  return readFileSync(join(import.meta.dirname, path), "utf8").replaceAll("\r\n", "\n");
}

/** "email.html" in Spanish is "email.es.html". */
function fileName(file: string, locale: TemplateLocale): string {
  return file.replace(".", `.${locale}.`);
}
