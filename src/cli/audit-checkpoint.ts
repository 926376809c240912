import type { Command } from "commander";
import { openCheckpoint } from "../audit/checkpoint.ts";
import { addSourceOptions, openSource, type SourceOptions } from "./audit-source.ts";

/** Registers `audit checkpoint`: prints the newest checkpoint, once its signature has been verified. */
export function registerAuditCheckpoint(audit: Command): void {
  const command = addSourceOptions(
    audit.command("checkpoint").description("print the newest signed checkpoint of the log, once its signature has been verified"),
  );
  command.action(async (options: SourceOptions) => {
    const { log, keys } = await openSource(command, options);
    const signed = await log.checkpoint();
    openCheckpoint(signed, keys);
    command.configureOutput().writeOut?.(signed);
  });
}
