import { fromBinary, toJson } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { roleName } from "../access/claims.ts";
import { LogEntrySchema } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { OrderStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import { type ReplayOrderResponse, ReplayOrderResponseSchema } from "../gen/ordertrail/v1/audit_service_pb.js";
import { type Place, parseIdentifier, parsePlace } from "./audit-arguments.ts";
import { withAuditService } from "./audit-client.ts";
import { EXIT } from "./exit-codes.ts";
import { textTable } from "./text-table.ts";

type ReplayOptions = { readonly asOf?: Place; readonly json?: true; readonly token?: string };

/** Registers `audit replay`: an order's life, event by event, up to a time or version. */
export function registerAuditReplay(audit: Command): void {
  const command = audit
    .command("replay")
    .description(`show an order's life again, event by event; exit code ${EXIT.failed} when there was no such order`)
    .argument("<order_id>", "the order", parseIdentifier)
    .option("--as-of <time>", "up to this time, such as 2026-06-01T12:00:00Z, or up to this version", parsePlace)
    .option("--json", "for programs: one JSON object a line, with the order after each event")
    .option("--token <token>", "by whom it is asked; an auditor of the development instance, if absent");
  command.action(async (orderId: string, { asOf, json, token }: ReplayOptions) => {
    const write = (text: string) => command.configureOutput().writeOut?.(text);
    await withAuditService(command, token, async (service) => {
      const until = !asOf
        ? undefined
        : "time" in asOf
          ? { case: "time" as const, value: asOf.time }
          : { case: "version" as const, value: asOf.number };
      const rows = [HEADS];
      let last: ReplayOrderResponse | undefined;
      for await (const message of service.replayOrder({ orderId, ...(until && { asOf: until }) })) {
        if (json) write(`${JSON.stringify(toJson(ReplayOrderResponseSchema, message, { useProtoFieldName: true }))}\n`);
        else rows.push(rowOf(message));
        last = message;
      }
      if (json || !last?.order) return;
      write(`${textTable(rows)}\norder ${orderId} was then ${OrderStatus[last.order.currentStatus]}, at version ${last.order.version}\n`);
    });
  });
}

const HEADS = ["version", "position", "recorded at", "by", "event", "status"];

function rowOf({ entry, type, order }: ReplayOrderResponse): string[] {
  const { version, recordedAt, actor } = fromBinary(LogEntrySchema, entry?.body ?? new Uint8Array());
  return [
    String(version),
    String(entry?.position ?? ""),
    recordedAt ? timestampDate(recordedAt).toISOString() : "",
    actor ? `${roleName(actor.role)} ${actor.subject}` : "",
    type,
    OrderStatus[order?.currentStatus ?? 0] ?? String(order?.currentStatus),
  ];
}
