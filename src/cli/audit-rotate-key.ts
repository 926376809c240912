import type { Command } from "commander";
import { createAuditKeySource } from "../audit/audit-keys.ts";
import { loadConfig } from "../config.ts";

/** Registers `audit rotate-key`: gives the log a new key. */
export function registerAuditRotateKey(audit: Command): void {
  const command = audit
    .command("rotate-key")
    .description(
      "give the log a new key and print it as `audit key` does; the old ones go on signing beside it until --retire. A running instance takes it up with its next checkpoint",
    )
    .option("--retire", "let the old keys go: they sign no more, and of them only the public halves are kept");
  command.action(async ({ retire = false }: { readonly retire?: boolean }) => {
    const config = loadConfig();
    const keys = createAuditKeySource(config);
    await keys.rotate(config.auditOrigin, { retire });
    const [newest] = await keys.signers(config.auditOrigin);
    command.configureOutput().writeOut?.(`${newest?.verifier.text}\n`);
  });
}
