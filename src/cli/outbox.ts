import type { Command } from "commander";
import { loadConfig } from "../config.ts";
import { EXIT } from "./exit-codes.ts";
import { findInstance } from "./instance.ts";
import { textTable } from "./text-table.ts";
import { write } from "./with-instance.ts";

/** What the table shows of a message; with --json, there is more. */
type Shown = { readonly at: string; readonly channel: string; readonly to: string; readonly subject?: string; readonly text: string };

const MOST_LETTERS = 70;

/** Registers `outbox`: what the providers that `start` plays in development have taken. */
export function registerOutbox(program: Command): void {
  const command = program
    .command("outbox")
    .description("show the messages that the providers played in development have taken, the newest last")
    .option("--channel <channel>", "only email, sms, whatsapp or push")
    .option("--json", "for programs: one JSON object a line, with all of each message");
  command.action(async ({ channel, json }: { channel?: string; json?: true }) => {
    const { dataDir } = loadConfig();
    const instance = await findInstance(dataDir);
    if (!instance) return command.error(`error: no instance runs with the data in ${dataDir}: npm start`, { exitCode: EXIT.notRunning });
    const address = instance.addresses?.outbox;
    if (address === undefined)
      return command.error("error: this instance plays no providers: all channels have accounts, or it runs in production", {
        exitCode: EXIT.failed,
      });
    const response = await fetch(address);
    if (!response.ok) throw new Error(`the outbox cannot be read: ${response.status}`);
    const messages = ((await response.json()) as Shown[]).filter((message) => channel === undefined || message.channel === channel);
    if (json) for (const message of messages) write(command, `${JSON.stringify(message)}\n`);
    else write(command, table(messages));
  });
}

function table(messages: readonly Shown[]): string {
  if (messages.length === 0) return "nothing has been sent yet\n";
  const rows = messages.map(({ at, channel, to, subject, text }) => {
    const line = [subject, text]
      .filter((part) => part !== undefined && part !== "")
      .join(": ")
      .replaceAll(/\s+/g, " ");
    return [
      at.replace("T", " ").slice(0, 19),
      channel,
      to.slice(0, 40),
      line.length > MOST_LETTERS ? `${line.slice(0, MOST_LETTERS)}…` : line,
    ];
  });
  return textTable([["AT", "CHANNEL", "TO", "TEXT"], ...rows]);
}
