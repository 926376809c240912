import { toJson } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { roleName } from "../access/claims.ts";
import { Door, OrderStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import { type ExplainedCommand, ExplainedCommandSchema } from "../gen/ordertrail/v1/audit_service_pb.js";
import { parseIdentifier } from "./audit-arguments.ts";
import { withAuditService } from "./audit-client.ts";
import { EXIT } from "./exit-codes.ts";
import { textTable } from "./text-table.ts";

type ExplainOptions = { readonly json?: true; readonly token?: string };

const PAGE_SIZE = 1000;

/** Registers `audit explain`: who did what to an order, when, from where, and through which door. */
export function registerAuditExplain(audit: Command): void {
  const command = audit
    .command("explain")
    .description(`show who did what to an order, when, from where and how; exit code ${EXIT.failed} when there is no such order`)
    .argument("<order_id>", "the order", parseIdentifier)
    .option("--json", "for programs: one JSON object a line")
    .option("--token <token>", "by whom it is asked; an auditor of the development instance, if absent");
  command.action(async (orderId: string, { json, token }: ExplainOptions) => {
    await withAuditService(command, token, async (service) => {
      const commands: ExplainedCommand[] = [];
      for (let pageToken = ""; ; ) {
        const page = await service.explainOrder({ orderId, pageSize: PAGE_SIZE, pageToken });
        commands.push(...page.commands);
        pageToken = page.nextPageToken;
        if (pageToken === "") break;
      }
      const text = json
        ? commands.map((one) => `${JSON.stringify(toJson(ExplainedCommandSchema, one, { useProtoFieldName: true }))}\n`).join("")
        : textTable([HEADS, ...commands.map(rowOf)]);
      command.configureOutput().writeOut?.(text);
    });
  });
}

const HEADS = ["version", "recorded at", "who", "from", "door", "command", "what came of it"];

function rowOf({
  version,
  recordedAt,
  actor,
  address,
  addressWithheld,
  certificateName,
  door,
  method,
  events,
}: ExplainedCommand): string[] {
  const from = address || (addressWithheld ? "(withheld)" : "");
  return [
    String(version),
    recordedAt ? timestampDate(recordedAt).toISOString() : "",
    actor ? `${roleName(actor.role)} ${actor.subject}` : "",
    [from, certificateName].filter((part) => part !== "").join(" "),
    Door[door] ?? String(door),
    method.slice(method.indexOf("/") + 1),
    events.map(({ type, status, inferred }) => `${type} → ${OrderStatus[status]}${inferred ? " (inferred)" : ""}`).join(", "),
  ];
}
