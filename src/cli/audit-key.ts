import type { Command } from "commander";
import { createAuditKeySource } from "../audit/audit-keys.ts";
import { loadConfig } from "../config.ts";

/** Registers `audit key`: prints the verifier key of the log, and nothing else. */
export function registerAuditKey(audit: Command): void {
  const command = audit
    .command("key")
    .description("print the key that verifies the log's checkpoints, in note form, and nothing else")
    .option("--all", "every key of the log, retired ones too, the oldest first, one a line");
  command.action(async ({ all }: { readonly all?: true }) => {
    const config = loadConfig();
    const keys = await createAuditKeySource(config).verifiers(config.auditOrigin);
    const lines = (all ? keys.toReversed() : keys.slice(0, 1)).map(({ text }) => `${text}\n`);
    command.configureOutput().writeOut?.(lines.join(""));
  });
}
