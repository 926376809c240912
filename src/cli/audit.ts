import type { Command } from "commander";
import { registerAuditCheck } from "./audit-check.ts";
import { registerAuditCheckpoint } from "./audit-checkpoint.ts";
import { registerAuditExplain } from "./audit-explain.ts";
import { registerAuditExport } from "./audit-export.ts";
import { registerAuditKey } from "./audit-key.ts";
import { registerAuditProve } from "./audit-prove.ts";
import { registerAuditReplay } from "./audit-replay.ts";
import { registerAuditRotateKey } from "./audit-rotate-key.ts";
import { registerAuditVerify } from "./audit-verify.ts";

/** Registers `audit`: reads and proves what the log holds, and checks such proofs. */
export function registerAudit(program: Command): void {
  const audit = program.command("audit").description("read and prove the history, and check what others say of it");
  const verbs = [
    registerAuditKey,
    registerAuditRotateKey,
    registerAuditCheckpoint,
    registerAuditVerify,
    registerAuditProve,
    registerAuditCheck,
    registerAuditReplay,
    registerAuditExplain,
    registerAuditExport,
  ];
  for (const register of verbs) register(audit);
}
