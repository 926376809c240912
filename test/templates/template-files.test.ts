import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { TEMPLATE_NAMES } from "../../src/domain/template-names.ts";
import { channelsOf, filesOf, TEMPLATE_LOCALES } from "../../src/templates/template-files.ts";
import { parseTemplate } from "../../src/templates/template-text.ts";

const FOLDER = join(import.meta.dirname, "../../src/templates");
const read = (path: string) => readFileSync(join(FOLDER, path), "utf8");

describe("the folders of the templates", () => {
  it("are as many as there are names", () => {
    const folders = readdirSync(FOLDER, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    expect(folders.map(({ name }) => name).sort()).toEqual([...TEMPLATE_NAMES].sort());
  });

  it.each(TEMPLATE_NAMES)("%s has every file that it must have, and no other", (template) => {
    expect(readdirSync(join(FOLDER, template)).sort()).toEqual([...filesOf(template)].sort());
  });

  it("lay emails out in every language", () => {
    const layouts = readdirSync(FOLDER).filter((name) => name.startsWith("layout."));
    expect(layouts.sort()).toEqual(TEMPLATE_LOCALES.flatMap((locale) => [`layout.${locale}.html`, `layout.${locale}.txt`]).sort());
  });
});

describe("the texts of the templates", () => {
  it.each(TEMPLATE_NAMES)("%s says nothing in Spanish that it says in English", (template) => {
    for (const file of filesOf(template).filter((name) => name.includes(".en."))) {
      const english = new Set(phrases(read(`${template}/${file}`)));
      expect(english.size, file).toBeGreaterThan(0);
      expect(
        phrases(read(`${template}/${file.replace(".en.", ".es.")}`)).filter((phrase) => english.has(phrase)),
        file,
      ).toEqual([]);
    }
  });

  it.each(TEMPLATE_NAMES)("%s has no character that is not seen, and ends every file with a line's end", (template) => {
    for (const file of filesOf(template)) {
      const text = read(`${template}/${file}`);
      expect(text, file).not.toMatch(/[^\n\P{C}]|[^\S\n ]|\u{a0}/u);
      expect(text.endsWith("\n"), file).toBe(true);
    }
  });

  it("have no raw values and no partials", () => {
    expect(() => parseTemplate("<p>{{{reason}}}</p>", "html")).toThrow("must not use the tag & reason");
    expect(() => parseTemplate("{{#reason}}{{&reason}}{{/reason}}", "html")).toThrow("must not use the tag & reason");
    expect(() => parseTemplate("{{>layout}}", "none")).toThrow("must not use the tag > layout");
  });
});

describe("the approved texts for WhatsApp", () => {
  const files = TEMPLATE_NAMES.filter((template) => channelsOf(template).includes("whatsapp")).flatMap((template) =>
    TEMPLATE_LOCALES.map((locale) => `${template}/whatsapp.${locale}.txt`),
  );

  it.each(files)("%s is what Meta takes: plain variables, each listed, neither first nor last", (file) => {
    const [head = "", empty, ...lines] = read(file).trimEnd().split("\n");
    const text = lines.join("\n");
    const variables = [...text.matchAll(/\{\{(.*?)\}\}/g)].map(([, variable]) => variable);
    expect(empty).toBe("");
    expect(head.replace("Parameters: ", "").split(", ")).toEqual([...new Set(variables)]);
    expect(variables.join(" ")).toMatch(/^[a-z_ ]+$/);
    expect(text).toMatch(/^[^{].*[^}]$/su);
    expect(text).not.toMatch(/\}\}\s*\{\{|\n{3}/);
  });

  it("say the same in every language", () => {
    const parameters = (file: string) => read(file).split("\n", 1)[0]?.replace("Parameters: ", "").split(", ").sort();
    for (const file of files) expect(parameters(file), file).toEqual(parameters(file.replace(".es.", ".en.")));
  });
});

/** What is said, without tags and variables, in pieces that are long enough not to be the same by chance. */
function phrases(text: string): string[] {
  return text
    .replace(/^Parameters: .*$/m, "")
    .split(/<[^>]*>|\{\{[^}]*\}\}|[\n.:,!?¡¿]+/)
    .map((phrase) => phrase.replace(/^Subject$/, "").trim())
    .filter((phrase) => /\p{L}{3}/u.test(phrase));
}
