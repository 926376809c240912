import type { Command } from "commander";
import { TEMPLATE_NAMES, type TemplateName } from "../domain/template-names.ts";
import { renderEmail, renderInApp, renderPush, renderSms, renderWhatsApp, templateLocale } from "../templates/render.ts";
import { sampleVariables } from "../templates/sample-variables.ts";
import { channelsOf, TEMPLATE_LOCALES, type TemplateChannel, type TemplateLocale } from "../templates/template-files.ts";
import { EXIT } from "./exit-codes.ts";
import { textTable } from "./text-table.ts";
import { write } from "./with-instance.ts";

type PreviewOptions = { readonly locale: string; readonly channel: string; readonly html?: true; readonly json?: true };

/** A rendered message: its fields for programs, and as people read it. */
type Preview = { readonly fields: object; readonly text: string };

const EXAMPLES = `
Examples:
  ordertrail notifications preview
  ordertrail notifications preview order-on-the-way
  ordertrail notifications preview order-on-the-way --locale es --channel sms
  ordertrail notifications preview substitutions-needed --html > preview.html`;

/** Registers `notifications`: shows what the messages of a template say. Needs no running instance. */
export function registerNotifications(program: Command): void {
  const notifications = program.command("notifications").description("look at what customers, stores and operators are told");
  const preview = notifications
    .command("preview")
    .description("show a template with made-up values, or list all templates")
    .argument("[template]", "such as order-on-the-way; without it, all templates are listed")
    .option("--locale <locale>", `one of ${TEMPLATE_LOCALES.join(", ")}, or with a region, such as es-MX`, TEMPLATE_LOCALES[0])
    .option("--channel <channel>", "email, sms, whatsapp, push or in-app", "email")
    .option("--html", "the HTML of an email, and nothing else")
    .option("--json", "for programs")
    .addHelpText("after", EXAMPLES);
  preview.action((template: string | undefined, options: PreviewOptions) =>
    write(preview, template === undefined ? listTemplates(options) : showTemplate(preview, template, options)),
  );
}

function listTemplates({ json }: PreviewOptions): string {
  const rows = TEMPLATE_NAMES.map((template) => ({ template, channels: channelsOf(template), locales: TEMPLATE_LOCALES }));
  if (json) return `${JSON.stringify(rows)}\n`;
  return textTable([
    ["template", "channels", "locales"],
    ...rows.map(({ template, channels, locales }) => [template, channels.join(", "), locales.join(", ")]),
  ]);
}

function showTemplate(command: Command, name: string, options: PreviewOptions): string {
  const usage = (message: string) => command.error(`error: ${message}`, { exitCode: EXIT.usage });
  const template =
    TEMPLATE_NAMES.find((known) => known === name) ?? usage(`there is no template ${name}; there are ${TEMPLATE_NAMES.join(", ")}`);
  const locale = templateLocale(options.locale);
  if (options.locale.split(/[-_]/, 1)[0]?.toLowerCase() !== locale)
    usage(`there is no locale ${options.locale}; there are ${TEMPLATE_LOCALES.join(", ")}`);
  const channel =
    channelsOf(template).find((known) => known === options.channel) ??
    usage(`${template} has no texts for ${options.channel}; it has them for ${channelsOf(template).join(", ")}`);
  if (options.html && channel !== "email") usage("--html goes with --channel email only");
  if (options.html && options.json) usage("--html and --json do not go together");
  if (options.html) return renderEmail(template, locale, sampleVariables(template, locale)).html;
  const { fields, text } = previewOf(template, locale, channel);
  return options.json ? `${JSON.stringify({ template, channel, locale, ...fields })}\n` : text;
}

function previewOf(template: TemplateName, locale: TemplateLocale, channel: TemplateChannel): Preview {
  const variables = sampleVariables(template, locale);
  switch (channel) {
    case "email": {
      const fields = renderEmail(template, locale, variables);
      return { fields, text: `Subject: ${fields.subject}\n\n${fields.text}` };
    }
    case "sms": {
      const fields = renderSms(template, locale, variables);
      const { text, encoding, segments } = fields;
      return { fields, text: `${text}\n\n${encoding}, ${segments} ${segments === 1 ? "segment" : "segments"}\n` };
    }
    case "whatsapp": {
      const fields = renderWhatsApp(template, locale, variables);
      const parameters = fields.parameters.map((parameter, index) => `  {{${index + 1}}} ${parameter}\n`).join("");
      return { fields, text: `${fields.text}\n\nApproved template: ${fields.name} (${fields.language})\n${parameters}` };
    }
    case "push": {
      const fields = renderPush(template, locale, variables);
      const data = Object.entries(fields.data).map(([key, value]) => `  ${key}: ${value}\n`);
      return { fields, text: `${fields.title}\n${fields.body}\n\nData:\n${data.join("")}` };
    }
    case "in-app": {
      const fields = renderInApp(template, locale, variables);
      return { fields, text: `${fields.title}\n${fields.body}\n` };
    }
  }
}
