import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { TEMPLATE_NAMES, type TemplateName } from "../../src/domain/template-names.ts";
import type { MessageVariables } from "../../src/templates/message-variables.ts";
import {
  type MissingVariable,
  onMissing,
  renderEmail,
  renderInApp,
  renderPush,
  renderSms,
  renderWhatsApp,
  templateLocale,
} from "../../src/templates/render.ts";
import { sampleVariables } from "../../src/templates/sample-variables.ts";
import { measureSms } from "../../src/templates/sms-length.ts";
import { channelsOf, TEMPLATE_LOCALES, type TemplateLocale } from "../../src/templates/template-files.ts";

let missing: MissingVariable[] = [];
const stopListening = onMissing((variable) => missing.push(variable));
beforeEach(() => {
  missing = [];
});
afterAll(stopListening);

const HOSTILE = [
  ["a script", "<script>alert(1)</script>"],
  ["a variable", "{{order_id}}{{{order_id}}}{{#items}}"],
  ["quotes", `"'\`" onload="x" '&amp;\\`],
  ["line breaks", "a\r\nBcc: x@example.com\r\n\r\nb\tc\u{2028}d\u{85}e\u{0}f\u{1b}[31m"],
  ["runs of spaces", `a${" ".repeat(20)}b\u{a0}\u{a0}\u{a0}\u{a0}\u{a0}c`],
  ["emoji", "🍎👩‍👩‍👧🇪🇸"],
  ["marks of direction", "\u{202e}evil\u{202c}\u{200f}\u{2066}x"],
  ["Hebrew", "שלום עולם"],
  ["500 letters", "x".repeat(500)],
  ["500 words in Greek letters that SMS lacks", "άλφα ".repeat(100)],
  ["500 emoji", "👩‍👩‍👧".repeat(500)],
  ["500 of what takes two places in an SMS", "€".repeat(500)],
  ["500 quotes and backslashes", `"\\`.repeat(250)],
  ["half a surrogate pair", "a\u{d83d}"],
  ["one letter of 1,000 units", `a${"\u{301}".repeat(999)}`],
  ["a script as an address", "javascript:alert(1)"],
  ["an address with all there is", `https://example.com/${"~".repeat(60)}?a="'<>\`{}|^[]&b=${"é".repeat(40)}`],
  ["an address of 3,000 letters", `https://example.com/${"a".repeat(3000)}`],
] as const;

const TEXT_VARIABLES = [
  "order_id",
  "status",
  "customer_first_name",
  "store_name",
  "driver_first_name",
  "vehicle",
  "eta",
  "due_at",
  "reason",
  "tracking_url",
  "unsubscribe_url",
] as const;
const OPTIONAL = TEXT_VARIABLES.filter((variable) => variable !== "order_id" && variable !== "status");

/** Every text variable as this, those of the lists too. */
function everywhere(variables: MessageVariables, value: string): MessageVariables {
  return {
    ...variables,
    ...Object.fromEntries(TEXT_VARIABLES.map((variable) => [variable, value])),
    items: Array.from({ length: 60 }, () => ({ name: value, quantity: value })),
    item_count: 60,
    substitutions: Array.from({ length: 60 }, () => ({ original: value, replacement: value, price: value, reason: value, answer: value })),
  };
}

/** The variables that a template's messages may come with. */
function cases(template: TemplateName, locale: TemplateLocale): [string, MessageVariables][] {
  const sample = sampleVariables(template, locale);
  return [
    ["everything", sample],
    ...OPTIONAL.map((variable): [string, MessageVariables] => [`no ${variable}`, { ...sample, [variable]: "" }]),
    ["no items", { ...sample, items: [], item_count: 0 }],
    ["one item", { ...sample, items: sample.items.slice(0, 1), item_count: 1 }],
    ["no substitutions", { ...sample, substitutions: [] }],
    ["nothing", { ...everywhere(sample, ""), items: [], item_count: 0, substitutions: [] }],
    ["empty entries", everywhere(sample, "")],
    ...HOSTILE.map(([name, value]): [string, MessageVariables] => [`${name} everywhere`, everywhere(sample, value)]),
    ...HOSTILE.flatMap(([name, value]) =>
      TEXT_VARIABLES.map((variable): [string, MessageVariables] => [`${name} as ${variable}`, { ...sample, [variable]: value }]),
    ),
  ];
}

const all = TEMPLATE_NAMES.flatMap((template) => TEMPLATE_LOCALES.map((locale) => [template, locale] as const));
const on = (channel: "email" | "sms" | "whatsapp" | "push") => all.filter(([template]) => channelsOf(template).includes(channel));

/** Renders all cases and gathers what is wrong with any of them: thousands of renderings, each held to a dozen rules. */
function wrongIn(
  template: TemplateName,
  locale: TemplateLocale,
  rulesOf: (variables: MessageVariables) => { readonly texts: readonly string[]; readonly rules: Readonly<Record<string, boolean>> },
): string[] {
  return cases(template, locale).flatMap(([name, variables]) => {
    const { texts, rules } = rulesOf(variables);
    const all: Readonly<Record<string, boolean>> = {
      ...rules,
      "no tag of the engine is left, but for one that a value has brought": name.startsWith("a variable") || !texts.join().includes("{{"),
      "every value is text": !/undefined|\bnull\b|\bNaN\b|\[object/.test(texts.join()),
      "no half of a surrogate pair": texts.join().isWellFormed(),
    };
    return Object.entries(all).flatMap(([rule, holds]) => (holds ? [] : [`${name}: not so: ${rule}: ${texts.join("\n").slice(0, 2000)}`]));
  });
}

/** Without line breaks, or anything else that is not seen but what joins emoji. */
function isOneLine(text: string): boolean {
  return !/[\p{Cc}\u{2028}\u{2029}\u{200e}\u{200f}\u{202a}-\u{202e}\u{2066}-\u{2069}]|\s\s/u.test(text) && text.trim() === text;
}

describe("an email", () => {
  it.each(on("email"))("is rendered safely from whatever comes: %s, %s", (template, locale) => {
    const wrong = wrongIn(template, locale, (variables) => {
      const { subject, html, text } = renderEmail(template, locale, variables);
      const addresses = [...html.matchAll(/href="([^"]*)"/g)].map(([, address = ""]) => address);
      return {
        texts: [subject, html, text],
        rules: {
          "the subject is one line": isOneLine(subject),
          "the subject has 10 to 150 letters": subject.length >= 10 && subject.length <= 150,
          "no script": !/<script|<[^>]*\son\w+=/i.test(html),
          "addresses are of the web": addresses.every((address) => /^https?:\/\/[^\s<>'`]+$/.test(address)),
          "all but the tags is escaped": !/[<>"']/.test(html.replace(/<!doctype html>|<\/?[a-z]+( [a-z]+="[^"<>]*")*>/g, "")),
          "the text has no control characters, and one empty line at most": !/[^\n\P{Cc}]|\n{3}/u.test(text),
          "no value begins a line of its own": !/^Bcc:/m.test(text),
        },
      };
    });
    expect(wrong).toEqual([]);
    expect(missing).toEqual([]);
  });

  it("takes nothing in a value for a variable", () => {
    const variables = { ...sampleVariables("order-received", "en"), store_name: "{{order_id}}{{{reason}}}" };
    expect(renderEmail("order-received", "en", variables).subject).toBe("We have your order from {{order_id}}{{{reason}}}");
  });

  it("has HTML whose tags are all closed", () => {
    for (const [template, locale] of on("email")) {
      const { html } = renderEmail(template, locale, sampleVariables(template, locale));
      const open: string[] = [];
      for (const [, slash, tag = ""] of html.matchAll(/<(\/?)([a-z]+)/g)) {
        if (tag === "meta") continue;
        if (slash) expect(open.pop(), `${template} ${locale}`).toBe(tag);
        else open.push(tag);
      }
      expect(open).toEqual([]);
      expect(html).toContain(`<html lang="${locale}">`);
    }
  });

  it("has a link to unsubscribe, and to the order, only where there is one", () => {
    const sample = sampleVariables("order-received", "en");
    const full = renderEmail("order-received", "en", sample);
    expect(full.html).toContain(`href="${sample.unsubscribe_url}"`);
    expect(full.html).toContain(`href="${sample.tracking_url}"`);
    expect(full.text).toContain(`Unsubscribe from these emails:\n${sample.unsubscribe_url}\n`);
    const bare = renderEmail("order-received", "en", { ...sample, unsubscribe_url: "", tracking_url: "" });
    expect(bare.html + bare.text).not.toMatch(/href|https?:|unsubscribe|Follow/i);
  });

  it("lists items, at most 50, and tells of the rest", () => {
    const items = Array.from({ length: 53 }, (_, index) => ({ name: `Item ${index + 1} & more`, quantity: "1" }));
    const { html, text } = renderEmail("store-new-order", "en", { ...sampleVariables("store-new-order", "en"), items, item_count: 53 });
    expect(html.match(/<li>/g)).toHaveLength(51);
    expect(html).toContain("<li>Item 50 &amp; more: 1</li>");
    expect(text).toContain("- Item 50 & more: 1\n- and 3 more\n");
  });

  it("tells the store what was answered to each substitution", () => {
    const { text } = renderEmail("store-substitutions-answered", "en", sampleVariables("store-substitutions-answered", "en"));
    expect(text).toContain("- Oat milk: approved: pack Soy milk\n- Bananas: declined: leave it out, the item is refunded\n");
  });
});

describe("an SMS", () => {
  it.each(on("sms"))("fits three segments, whatever comes: %s, %s", (template, locale) => {
    const wrong = wrongIn(template, locale, (variables) => {
      const { text, encoding, segments } = renderSms(template, locale, variables);
      const measured = measureSms(text);
      return {
        texts: [text],
        rules: {
          "it is one line": isOneLine(text),
          "three segments at most": segments <= 3,
          "the length is told as it is": measured.encoding === encoding && measured.segments === segments,
          "it says something": text.length > 20,
          "no emoji": !/\p{Extended_Pictographic}/u.test(text),
        },
      };
    });
    expect(wrong).toEqual([]);
    expect(missing).toEqual([]);
  });

  it.each(on("sms"))("is one segment of GSM-7 as a rule: %s, %s", (template, locale) => {
    expect(renderSms(template, locale, sampleVariables(template, locale))).toMatchObject({ encoding: "GSM-7", segments: 1 });
  });

  it("ends with the whole link, and does not escape", () => {
    const variables = {
      ...sampleVariables("order-confirmed", "en"),
      store_name: "Fish & Chips",
      tracking_url: "https://example.com/o?a=1&b=`",
    };
    expect(renderSms("order-confirmed", "en", variables).text).toBe(
      "Fish & Chips: Your order is confirmed. Expected at 18:35. https://example.com/o?a=1&b=%60",
    );
  });

  it("keeps the accents where it cannot be in GSM-7 anyway", () => {
    const variables = { ...sampleVariables("delivery-failed", "es"), store_name: "שוק" };
    expect(renderSms("delivery-failed", "es", variables)).toMatchObject({
      encoding: "UCS-2",
      text: expect.stringContaining("no había nadie en casa"),
    });
  });
});

describe("a WhatsApp message", () => {
  it.each(on("whatsapp"))("has parameters that Meta takes, whatever comes: %s, %s", (template, locale) => {
    const wrong = wrongIn(template, locale, (variables) => {
      const { name, language, parameters, text } = renderWhatsApp(template, locale, variables);
      return {
        texts: [text, ...parameters],
        rules: {
          "it has the template's name and language": name === template.replaceAll("-", "_") && language === locale,
          "parameters are one line each, and none is empty": parameters.every((parameter) => isOneLine(parameter) && parameter !== ""),
          "the text says the same": parameters.every((parameter) => text.includes(parameter)),
          "1,024 letters at most": text.length <= 1024,
        },
      };
    });
    expect(wrong).toEqual([]);
    expect(missing).toEqual([]);
  });

  it("says in words what is not known", () => {
    const variables = {
      ...sampleVariables("order-on-the-way", "en"),
      customer_first_name: "",
      driver_first_name: "",
      eta: "",
      tracking_url: "",
    };
    expect(renderWhatsApp("order-on-the-way", "en", variables)).toEqual({
      name: "order_on_the_way",
      language: "en",
      parameters: ["there", "Sample Market", "your driver", "not known yet", "ask the store", "sample-1042"],
      text: "Hello there, your order from Sample Market is on its way with your driver.\n\nExpected: not known yet\nWhere it is: ask the store\n\nYour order number is sample-1042, should you need it.",
    });
  });
});

describe("a push message", () => {
  it.each(on("push"))("fits its payload, whatever comes: %s, %s", (template, locale) => {
    const wrong = wrongIn(template, locale, (variables) => {
      const push = renderPush(template, locale, variables);
      const { title, body } = renderInApp(template, locale, variables);
      return {
        texts: [push.title, push.body],
        rules: {
          "title and body are one line each": isOneLine(push.title) && isOneLine(push.body),
          "they are bounded": push.title.length <= 65 && push.body.length <= 240,
          "they say something": push.title.length > 8 && push.body.length > 20,
          "less than 4,096 bytes": Buffer.byteLength(JSON.stringify(push)) < 4096,
          "an app shows the same": title === push.title && body === push.body,
        },
      };
    });
    expect(wrong).toEqual([]);
    expect(missing).toEqual([]);
  });

  it("tells the app which order it is about", () => {
    expect(renderPush("order-on-the-way", "en", sampleVariables("order-on-the-way", "en")).data).toEqual({
      template: "order-on-the-way",
      order_id: "sample-1042",
      status: "IN_TRANSIT",
    });
  });
});

describe("a reason", () => {
  it("that the system gave is put in words of the reader's language", () => {
    const body = (locale: string, reason: string) =>
      renderPush("order-cancelled", locale, { ...sampleVariables("order-cancelled", "en"), reason }).body;
    expect(body("en", "store_did_not_acknowledge")).toContain("Reason: the store did not confirm it in time.");
    expect(body("es", "store_did_not_acknowledge")).toContain("Motivo: la tienda no lo confirmó a tiempo.");
    expect(body("es", "ACKNOWLEDGMENT")).toContain("Motivo: la tienda no ha confirmado el pedido.");
  });

  it("that somebody wrote stays as it is, and ends with one full stop", () => {
    const variables = { ...sampleVariables("order-cancelled", "en"), reason: "We moved. Sorry..." };
    expect(renderPush("order-cancelled", "en", variables).body).toBe(
      "Your order from Sample Market will not be delivered. Reason: We moved. Sorry.",
    );
  });
});

describe("a message of which something is not there", () => {
  it.each([
    ["es", "es"],
    ["es-MX", "es"],
    ["ES_ar", "es"],
    ["en-GB", "en"],
    ["fr", "en"],
    ["", "en"],
    ["constructor", "en"],
  ])("falls back from the locale %s to %s", (locale, language) => {
    expect(templateLocale(locale)).toBe(language);
    const variables = sampleVariables("order-received", "es");
    expect(renderEmail("order-received", locale, variables)).toEqual(renderEmail("order-received", language, variables));
  });

  it("says nothing for a missing variable, and tells of it", () => {
    const { customer_first_name: _, items: __, ...rest } = sampleVariables("order-received", "en");
    const { text } = renderEmail("order-received", "en", rest as MessageVariables);
    expect(text).toMatch(/^Hello,\n/);
    expect(missing).toContainEqual({ template: "order-received", locale: "en", channel: "email", variable: "customer_first_name" });
    expect(missing).toContainEqual({ template: "order-received", locale: "en", channel: "email", variable: "has_items" });
    expect(renderWhatsApp("order-received", "en", rest as MessageVariables).parameters[0]).toBe("there");
    expect(missing).toContainEqual({ template: "order-received", locale: "en", channel: "whatsapp", variable: "customer_first_name" });
  });

  it("throws for a channel that the template is not for", () => {
    const variables = sampleVariables("store-reminder", "en");
    expect(() => renderPush("store-reminder", "en", variables)).toThrow("The template store-reminder has no texts for push.");
    expect(() => renderInApp("store-reminder", "en", variables)).toThrow("has no texts for in-app");
    expect(() => renderWhatsApp("store-reminder", "en", variables)).toThrow("has no texts for whatsapp");
    expect(() => renderSms("operator-escalation", "en", variables)).toThrow("has no texts for sms");
  });
});
