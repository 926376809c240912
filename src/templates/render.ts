import type { TemplateName } from "../domain/template-names.ts";
import { cleanLine, shorten } from "./clean-value.ts";
import type { MessageVariables } from "./message-variables.ts";
import { measureSms, type SmsLength } from "./sms-length.ts";
import { toGsm7, withoutPictures } from "./sms-letters.ts";
import { loadTemplates, TEMPLATE_LOCALES, type TemplateChannel, type TemplateLocale, type TemplateTexts } from "./template-files.ts";
import { type Bounds, type TemplateView, templateView } from "./template-view.ts";
import { UNKNOWN_WORDS } from "./unknown-words.ts";

export type RenderedEmail = { readonly subject: string; readonly html: string; readonly text: string };
export type RenderedSms = SmsLength & { readonly text: string };
export type RenderedWhatsApp = {
  /** What the approved template is called at Meta, and in which language it is asked for. */
  readonly name: string;
  readonly language: string;
  /** In the order of the approved template's placeholders. Each one line, none empty. */
  readonly parameters: readonly string[];
  /** The same as a free text. */
  readonly text: string;
};
export type RenderedPush = { readonly title: string; readonly body: string; readonly data: Readonly<Record<string, string>> };
export type RenderedInApp = { readonly title: string; readonly body: string };

/** A variable that a template names and a message has not. Holds no personal data. */
export type MissingVariable = {
  readonly template: TemplateName;
  readonly locale: TemplateLocale;
  readonly channel: TemplateChannel;
  readonly variable: string;
};

const EMAIL_BOUNDS: Bounds = { name: 80, sentence: 300, url: 2000, entries: 50, ellipsis: "…" };
const WHATSAPP_BOUNDS: Bounds = { name: 60, sentence: 150, url: 400, entries: 0, ellipsis: "…" };
const PUSH_BOUNDS: Bounds = { name: 40, sentence: 120, url: 0, entries: 0, ellipsis: "…" };
/** Tried in turn until the text fits. */
const SMS_BOUNDS: readonly [Bounds, ...Bounds[]] = [
  { name: 40, sentence: 80, url: 250, entries: 0, ellipsis: "..." },
  { name: 20, sentence: 40, url: 250, entries: 0, ellipsis: "..." },
  { name: 20, sentence: 40, url: 0, entries: 0, ellipsis: "..." },
  { name: 10, sentence: 20, url: 0, entries: 0, ellipsis: "..." },
];
const MOST_SMS_SEGMENTS = 3;
const LONGEST_SUBJECT = 150;
const LONGEST_PUSH_TITLE = 65;
const LONGEST_PUSH_BODY = 240;

const listeners = new Set<(missing: MissingVariable) => void>();

/** Tells of every variable that a template names and a message has not; it is empty text. Returns what ends that. */
export function onMissing(listener: (missing: MissingVariable) => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The language whose texts somebody with this locale gets: "es-MX" is "es", and what there is not is "en". */
export function templateLocale(locale: string): TemplateLocale {
  const language = locale.split(/[-_]/, 1)[0]?.toLowerCase();
  return TEMPLATE_LOCALES.find((known) => known === language) ?? TEMPLATE_LOCALES[0];
}

/** A subject of one line and at most 150 UTF-16 units, HTML in which every value is escaped, and the same as text. */
export function renderEmail(template: TemplateName, locale: string, variables: MessageVariables): RenderedEmail {
  const { texts, language, missing } = find(template, locale, "email");
  const view = templateView(variables, language, EMAIL_BOUNDS);
  return {
    subject: shorten(cleanLine(texts.email.subject(view, missing)), LONGEST_SUBJECT, "…"),
    html: texts.email.html(view, missing),
    text: `${tidy(texts.email.text(view, missing))}\n`,
  };
}

/**
 * A text of at most three segments, without emoji: names and reasons are shortened, and the link left out, where it would take more. It
 * is in GSM-7 wherever that has the letters or stand-ins for them.
 */
export function renderSms(template: TemplateName, locale: string, variables: MessageVariables): RenderedSms {
  const { texts, language, missing } = find(template, locale, "sms");
  const sms = required(texts.sms, template, "sms");
  const render = (bounds: Bounds) => {
    const text = toGsm7(cleanLine(sms(templateView(variables, language, bounds, withoutPictures), missing)));
    return { text, ...measureSms(text) };
  };
  let rendered = render(SMS_BOUNDS[0]);
  for (const bounds of SMS_BOUNDS.slice(1)) if (rendered.segments > MOST_SMS_SEGMENTS) rendered = render(bounds);
  return rendered;
}

/** The approved template's name, language and parameters, and the same as a free text of at most 1,024 UTF-16 units. */
export function renderWhatsApp(template: TemplateName, locale: string, variables: MessageVariables): RenderedWhatsApp {
  const { texts, language, missing } = find(template, locale, "whatsapp");
  const whatsapp = required(texts.whatsapp, template, "whatsapp");
  const view = templateView(variables, language, WHATSAPP_BOUNDS);
  const known: Record<string, unknown> = { ...view };
  for (const parameter of whatsapp.parameters) {
    if (view[parameter] === undefined) missing(parameter);
    known[parameter] = String(view[parameter] ?? "") || (UNKNOWN_WORDS[language][parameter] ?? UNKNOWN_WORDS[language].other);
  }
  return {
    name: template.replaceAll("-", "_"),
    language,
    parameters: whatsapp.parameters.map((parameter) => String(known[parameter])),
    text: tidy(whatsapp.text(known, missing)),
  };
}

/** A title of at most 65 and a body of at most 240 UTF-16 units, so that with its data it stays far below FCM's 4,096 bytes. */
export function renderPush(template: TemplateName, locale: string, variables: MessageVariables): RenderedPush {
  const { title, body, view } = renderNotice(template, locale, variables, "push");
  return { title, body, data: { template, order_id: String(view["order_id"] ?? ""), status: String(view["status"] ?? "") } };
}

/** What an app shows by itself: the texts of push. */
export function renderInApp(template: TemplateName, locale: string, variables: MessageVariables): RenderedInApp {
  const { title, body } = renderNotice(template, locale, variables, "in-app");
  return { title, body };
}

function renderNotice(template: TemplateName, locale: string, variables: MessageVariables, channel: "push" | "in-app") {
  const { texts, language, missing } = find(template, locale, channel);
  const push = required(texts.push, template, channel);
  const view: TemplateView = templateView(variables, language, PUSH_BOUNDS);
  return {
    title: shorten(cleanLine(push.title(view, missing)), LONGEST_PUSH_TITLE, "…"),
    body: shorten(cleanLine(push.body(view, missing)), LONGEST_PUSH_BODY, "…"),
    view,
  };
}

function find(template: TemplateName, locale: string, channel: TemplateChannel) {
  const language = templateLocale(locale);
  const texts = required<TemplateTexts>(loadTemplates().get(template)?.[language], template, channel);
  const missing = (variable: string) => {
    for (const listener of listeners) listener({ template, locale: language, channel, variable });
  };
  return { texts, language, missing };
}

/** What is asked for by mistake, such as a store's template by push, is a bug of the caller. */
function required<T>(texts: T | undefined, template: TemplateName, channel: TemplateChannel): T {
  if (texts === undefined) throw new Error(`The template ${template} has no texts for ${channel}.`);
  return texts;
}

/** No more than one empty line between paragraphs, none at the ends. */
function tidy(text: string): string {
  return text.replace(/\n{3,}/g, "\n\n").trim();
}
