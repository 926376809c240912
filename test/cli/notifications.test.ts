import { Command, type CommanderError } from "commander";
import { describe, expect, it } from "vitest";
import { registerNotifications } from "../../src/cli/notifications.ts";
import { TEMPLATE_NAMES } from "../../src/domain/template-names.ts";
import { channelsOf, TEMPLATE_LOCALES } from "../../src/templates/template-files.ts";

/** Runs `ordertrail notifications preview` with these arguments. */
async function preview(...args: string[]): Promise<{ out: string; err: string; exitCode: number }> {
  let out = "";
  let err = "";
  const program = new Command().exitOverride().configureOutput({ writeOut: (text) => (out += text), writeErr: (text) => (err += text) });
  registerNotifications(program);
  const exitCode = await program.parseAsync(["notifications", "preview", ...args], { from: "user" }).then(
    () => 0,
    (error: CommanderError) => error.exitCode,
  );
  return { out, err, exitCode };
}

describe("ordertrail notifications preview", () => {
  it("shows an email, as text", async () => {
    const { out, err, exitCode } = await preview("order-delivered", "--locale", "es", "--channel", "email");
    expect({ err, exitCode }).toEqual({ err: "", exitCode: 0 });
    expect(out).toMatch(/^Subject: Tu pedido de Mercado Ejemplo está entregado\n\nHola, Inés:\n\n/);
  });

  it("shows the HTML of an email, and nothing else", async () => {
    const { out, exitCode } = await preview("order-delivered", "--html");
    expect(exitCode).toBe(0);
    expect(out).toMatch(/^<!doctype html>\n<html lang="en">.*<\/html>\n$/s);
  });

  it("shows an SMS with its encoding and segments", async () => {
    const { out } = await preview("order-on-the-way", "--locale", "es-MX", "--channel", "sms");
    expect(out).toBe(
      "Mercado Ejemplo: Tu pedido va en camino con Raul (bicicleta azul). Hora prevista: 18:35. https://orders.example.com/o/1042\n\nGSM-7, 1 segment\n",
    );
  });

  it("shows a WhatsApp message with the approved template and its parameters", async () => {
    const { out } = await preview("order-received", "--channel", "whatsapp");
    expect(out).toMatch(
      /^Hello Sam, thank you! .*\n\nApproved template: order_received \(en\)\n {2}\{\{1\}\} Sam\n {2}\{\{2\}\} Sample Market\n/s,
    );
  });

  it("shows a push message with its data, and what an app shows", async () => {
    expect((await preview("driver-arrived", "--channel", "push")).out).toBe(
      "Your order is here\nAlex (blue bicycle) has arrived. Please come and take your order.\n\nData:\n  template: driver-arrived\n  order_id: sample-1042\n  status: IN_TRANSIT\n",
    );
    expect((await preview("driver-arrived", "--channel", "in-app")).out).toBe(
      "Your order is here\nAlex (blue bicycle) has arrived. Please come and take your order.\n",
    );
  });

  it("shows every template in every language on every channel, for programs", async () => {
    for (const template of TEMPLATE_NAMES)
      for (const locale of TEMPLATE_LOCALES)
        for (const channel of channelsOf(template)) {
          const { out, exitCode } = await preview(template, "--locale", locale, "--channel", channel, "--json");
          expect(exitCode).toBe(0);
          expect(JSON.parse(out)).toMatchObject({ template, locale, channel });
        }
  });

  it("lists all templates with their channels and languages", async () => {
    const { out, exitCode } = await preview();
    expect(exitCode).toBe(0);
    expect(out.split("\n")).toHaveLength(TEMPLATE_NAMES.length + 2);
    expect(out).toMatch(/^store-reminder +email, sms +en, es$/m);
    const listed: unknown = JSON.parse((await preview("--json")).out);
    expect(listed).toHaveLength(TEMPLATE_NAMES.length);
    expect(listed).toContainEqual({ template: "operator-escalation", channels: ["email"], locales: ["en", "es"] });
  });

  it.each([
    [["order-lost"], "error: there is no template order-lost; there are order-received, order-confirmed, "],
    [["order-received", "--locale", "fr"], "error: there is no locale fr; there are en, es\n"],
    [
      ["order-received", "--channel", "fax"],
      "error: order-received has no texts for fax; it has them for email, sms, whatsapp, push, in-app\n",
    ],
    [["store-reminder", "--channel", "push"], "error: store-reminder has no texts for push; it has them for email, sms\n"],
    [["order-received", "--channel", "sms", "--html"], "error: --html goes with --channel email only\n"],
    [["order-received", "--html", "--json"], "error: --html and --json do not go together\n"],
  ])("refuses %j, with exit code 2, and says what there is", async (args, message) => {
    const { out, err, exitCode } = await preview(...args);
    expect({ out, exitCode }).toEqual({ out: "", exitCode: 2 });
    expect(err.slice(0, message.length)).toBe(message);
  });

  it("explains itself by examples", async () => {
    const { out, exitCode } = await preview("--help");
    expect(exitCode).toBe(0);
    expect(out).toContain("ordertrail notifications preview order-on-the-way --locale es --channel sms\n");
  });
});
