import { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import type { Command } from "commander";
import { loadConfig } from "../config.ts";
import { LogEntrySchema } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import type { AuditService, ReadLogRequestSchema } from "../gen/ordertrail/v1/audit_service_pb.js";
import { type Place, parseIdentifier, parsePlace } from "./audit-arguments.ts";
import { withAuditService } from "./audit-client.ts";
import { cloudEventsOf } from "./cloud-event.ts";
import { EXIT } from "./exit-codes.ts";
import { openExportFile } from "./export-file.ts";

type ExportOptions = {
  readonly from?: Place;
  readonly to?: Place;
  readonly after?: Place;
  readonly order?: string;
  readonly type?: readonly string[];
  readonly follow?: true;
  readonly output?: string;
  readonly source?: string;
  readonly token?: string;
};
type ReadLogRequest = Exclude<MessageInitShape<typeof ReadLogRequestSchema>, { readonly $typeName: string }>;
type Write = (text: string) => Promise<void>;

const MOST_BREAKS = 10;
const BREAK_MS = 500;

/** Registers `audit export`: the log's events as CloudEvents, one JSON object a line. */
export function registerAuditExport(audit: Command): void {
  const command = audit
    .command("export")
    .description("write the log's events as CloudEvents 1.0, one JSON object a line; progress goes to stderr")
    .option("--from <place>", "from this position on, or from this time on, such as 2026-06-01T12:00:00Z", parsePlace)
    .option("--to <place>", "up to this position, or up to before this time", parsePlace)
    .option("--after <position>", "go on after this position, as a run that broke off told it", parsePlace)
    .option("--order <order_id>", "only what happened to this order", parseIdentifier)
    .option("--type <type...>", "only entries with events of these types, such as OrderCancelled")
    .option("--follow", "go on with what comes, until Ctrl-C")
    .option("--output <file>", "write into this file; if it holds an export already, go on after its last entry")
    .option("--source <uri>", "what the events name as their source (default: /ordertrail/ and the database's name)")
    .option("--token <token>", "by whom it is asked; an auditor of the development instance, if absent");
  command.action(async (options: ExportOptions) => {
    if (options.follow && options.to) command.error("error: --follow has no end, so it goes not with --to", { exitCode: EXIT.usage });
    if (options.after && "time" in options.after) command.error("error: --after must be a position", { exitCode: EXIT.usage });
    const source = options.source ?? `/ordertrail/${loadConfig().databaseName}`;
    await withAuditService(command, options.token, async (service) => {
      await using file = options.output === undefined ? undefined : await openExportFile(options.output);
      const request = requestOf(options, file?.after ?? 0);
      await exportAll(service, request, source, file?.write ?? writeOut);
    });
  });
}

function requestOf({ from, to, after: told, order, type, follow }: ExportOptions, written: number): ReadLogRequest {
  const first = from && "number" in from ? from.number - 1 : 0;
  return {
    afterPosition: BigInt(Math.max(first, written, told && "number" in told ? told.number : 0)),
    ...(from && "time" in from && { recordedFrom: from.time }),
    ...(to && ("time" in to ? { recordedBefore: to.time } : { toPosition: BigInt(to.number) })),
    ...(order !== undefined && { stream: `order-${order}` }),
    ...(type && { types: [...type] }),
    ...(follow && { follow }),
  };
}

/** Reads on after a break, where it stopped. What the server refuses, and a break too many, is thrown. */
async function exportAll(service: Client<typeof AuditService>, request: ReadLogRequest, source: string, write: Write): Promise<void> {
  const interrupted = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => interrupted.abort());
  let position = request.afterPosition ?? 0n;
  let events = 0;
  for (let breaks = 0; ; ) {
    let moved = false;
    try {
      for await (const message of service.readLog({ ...request, afterPosition: position }, { signal: interrupted.signal })) {
        const lines = message.entries.flatMap((entry) => cloudEventsOf(entry.position, fromBinary(LogEntrySchema, entry.body), source));
        if (lines.length > 0) await write(lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
        events += lines.length;
        moved ||= message.position > position;
        if (moved) breaks = 0;
        position = message.position;
        if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${events} events, position ${position} of ${message.target}`);
      }
      break;
    } catch (error) {
      if (interrupted.signal.aborted) break;
      breaks++;
      const { code } = ConnectError.from(error);
      // The token was good when the stream began: there may be a newer one.
      const passes = code === Code.Unavailable || (code === Code.Unauthenticated && moved);
      if (!passes || breaks > MOST_BREAKS) {
        tell(`${events} events written, up to position ${position}; to go on: --after ${position}`);
        throw error;
      }
      await pause(BREAK_MS * breaks, undefined, { signal: interrupted.signal });
    }
  }
  tell(`${events} events written, up to position ${position}`);
  if (interrupted.signal.aborted && !request.follow) process.exitCode = EXIT.failed;
}

/** No faster than it is read. */
async function writeOut(text: string): Promise<void> {
  if (!process.stdout.write(text)) await once(process.stdout, "drain");
}

function tell(line: string): void {
  process.stderr.write(`${process.stderr.isTTY ? "\r\x1b[K" : ""}${line}\n`);
}
