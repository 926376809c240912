import { writeFile } from "node:fs/promises";
import type { Command } from "commander";
import { createAuditKeySource } from "../audit/audit-keys.ts";
import { openBundle, writeBundle } from "../audit/proof-bundle.ts";
import type { VerifierKey } from "../audit/signed-note.ts";
import { loadConfig } from "../config.ts";
import { parseIdentifier } from "./audit-arguments.ts";
import { withAuditService } from "./audit-client.ts";
import { keyOption } from "./audit-source.ts";
import { EXIT } from "./exit-codes.ts";

type ProveOptions = { readonly output: string; readonly key?: readonly VerifierKey[]; readonly token?: string };

/** Registers `audit prove`: writes a file that proves an order's history to anybody who has the log's key. */
export function registerAuditProve(audit: Command): void {
  const command = audit
    .command("prove")
    .description("write a file with an order's entries, the proofs that they are in the log, and the signed checkpoint")
    .argument("<order_id>", "the order", parseIdentifier)
    .requiredOption("-o, --output <file>", "where to write it")
    .addOption(keyOption("the log's verifier key in note form, where its keys are not configured here; may be given several times"))
    .option("--token <token>", "a token of role auditor or operator, where the instance does not issue its own");
  command.action((id: string, { output, key, token }: ProveOptions) =>
    withAuditService(command, token, async (service) => {
      const config = loadConfig();
      const keys = key ?? (await createAuditKeySource(config).verifiers(config.auditOrigin));
      const { checkpoint, entries } = await service.getInclusionProof({ entry: { case: "orderId", value: id } });
      if (!checkpoint) return command.error("error: the answer holds no checkpoint", { exitCode: EXIT.failed });
      const bundle = writeBundle(id, checkpoint.signed, entries);
      try {
        openBundle(bundle, keys);
      } catch (error) {
        return command.error(`error: NOT PROVED, nothing is written: ${(error as Error).message}`, { exitCode: EXIT.failed });
      }
      await writeFile(output, bundle);
      command
        .configureOutput()
        .writeOut?.(`${entries.length} entries of order ${id}, proved by a checkpoint over ${checkpoint.size}: ${output}\n`);
    }),
  );
}
