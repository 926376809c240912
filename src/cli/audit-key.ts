import type { Command } from "commander";
import { createAuditKeySource } from "../audit/audit-keys.ts";
import { loadConfig } from "../config.ts";
import { withAuditService } from "./audit-client.ts";

/** Registers `audit key`: prints the verifier key of the log, and nothing else. */
export function registerAuditKey(audit: Command): void {
  const command = audit
    .command("key")
    .description("print the key that verifies the log's checkpoints, in note form, and nothing else")
    .option("--all", "every key that has ever signed, the oldest first, one a line, as the running instance knows them")
    .option("--token <token>", "with --all: a token of role auditor or operator, where the instance does not issue its own");
  command.action(async ({ all, token }: { readonly all?: true; readonly token?: string }) => {
    const write = (lines: readonly string[]) => command.configureOutput().writeOut?.(lines.map((line) => `${line}\n`).join(""));
    if (all) {
      await withAuditService(command, token, async (audit) => write((await audit.getCheckpoint({})).checkpoint?.verifierKeys ?? []));
    } else {
      const config = loadConfig();
      const [newest] = await createAuditKeySource(config).signers(config.auditOrigin);
      write(newest ? [newest.verifier.text] : []);
    }
  });
}
