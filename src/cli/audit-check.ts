import { readFile } from "node:fs/promises";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { roleName } from "../access/claims.ts";
import { openBundle, type ProvenOrder } from "../audit/proof-bundle.ts";
import type { VerifierKey } from "../audit/signed-note.ts";
import { eventType } from "../log/log-entry.ts";
import { keyOption } from "./audit-source.ts";
import { EXIT } from "./exit-codes.ts";

/** Registers `audit check`: checks a file of `audit prove` by the log's key alone. */
export function registerAuditCheck(audit: Command): void {
  const command = audit
    .command("check")
    .description("check a file that `audit prove` has written, with the log's key and no server, and show what it proves")
    .argument("<file>", "the file")
    .addOption(keyOption("the log's verifier key in note form; may be given several times").makeOptionMandatory());
  command.action(async (file: string, { key }: { readonly key: readonly VerifierKey[] }) => {
    const text = await readFile(file, "utf8");
    let proven: ProvenOrder;
    try {
      proven = openBundle(text, key);
    } catch (error) {
      return command.error(`error: NOT PROVED: ${(error as Error).message}`, { exitCode: EXIT.failed });
    }
    command.configureOutput().writeOut?.(tell(proven));
  });
}

function tell({ orderId, origin, size, entries }: ProvenOrder): string {
  const lines = entries.map(({ position, entry }) => {
    const at = entry.recordedAt ? timestampDate(entry.recordedAt).toISOString() : "";
    const by = entry.actor ? `${roleName(entry.actor.role)} ${entry.actor.subject}` : "";
    return `${String(position).padStart(10)}  ${at}  ${entry.events.map(eventType).join(", ")}  by ${by}\n`;
  });
  return `proved: these ${entries.length} entries of order ${orderId} are in the log ${origin} of ${size} entries\n${lines.join("")}`;
}
