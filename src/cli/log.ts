import { toJson } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { type Command, InvalidArgumentError } from "commander";
import { roleName } from "../access/claims.ts";
import { loadConfig } from "../config.ts";
import { orderStream } from "../domain/order.ts";
import { LogEntrySchema } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { Door } from "../gen/ordertrail/events/v1/values_pb.js";
import { createLogClient } from "../log/log-client.ts";
import { eventType, type RecordedEntry } from "../log/log-entry.ts";
import { createLogReader, type LogReader } from "../log/reader.ts";
import { parseIdentifier } from "./audit-arguments.ts";
import { EXIT } from "./exit-codes.ts";
import { findInstance } from "./instance.ts";

type TailOptions = { readonly lines: number; readonly follow?: true; readonly json?: true };

const DEFAULT_LINES = 20;
const MOST_LINES = 1_000_000;

/** Registers `log`: shows the log of the running instance as it stands in its database. Sealed data stays sealed. */
export function registerLog(program: Command): void {
  const command = program.command("log").description("look at the log of the running instance");

  const tail = command
    .command("tail")
    .description("show the newest entries, oldest first")
    .option("-n, --lines <n>", "how many", lineCount, DEFAULT_LINES)
    .option("-f, --follow", "go on with what comes, until Ctrl-C")
    .option("--json", "for programs: one JSON object a line");
  tail.action(({ lines, follow, json }: TailOptions) =>
    withReader(tail, async (reader) => {
      const print = printer(tail, json);
      const newest = await readNewest(reader, lines);
      print(newest);
      if (follow) await followFrom(newest.at(-1)?.position ?? (await reader.head()), reader, print);
    }),
  );

  const show = command
    .command("show")
    .description(`show every entry of an order, oldest first; exit code ${EXIT.failed} when there is no such order`)
    .argument("<order_id>", "the order", parseIdentifier)
    .option("--json", "for programs: one JSON object a line");
  show.action((id: string, { json }: { readonly json?: true }) =>
    withReader(show, async (reader) => {
      const entries = await reader.readStream(orderStream(id), 0);
      if (entries.length === 0) show.error(`error: there is no order ${id}`, { exitCode: EXIT.failed });
      printer(show, json)(entries);
    }),
  );
}

async function withReader(command: Command, use: (reader: LogReader) => Promise<void>): Promise<void> {
  const { dataDir, databaseName, mongodbUrl, mongodbTls } = loadConfig();
  const instance = await findInstance(dataDir);
  if (!instance?.addresses)
    return command.error(`error: no instance runs with the data in ${dataDir}: npm start`, { exitCode: EXIT.notRunning });
  // The instance's own address is known without the password, of which there is none for a mongod of its own.
  await using client = createLogClient(mongodbUrl ?? instance.addresses.mongodb, mongodbTls);
  await use(createLogReader(client.db(databaseName)));
}

async function readNewest(reader: LogReader, count: number): Promise<RecordedEntry[]> {
  const newest: RecordedEntry[] = [];
  if (count === 0) return newest;
  for await (const batch of reader.readBackward({ batchSize: Math.min(count, 1000) })) {
    newest.push(...batch.slice(0, count - newest.length));
    if (newest.length === count) break;
  }
  return newest.reverse();
}

async function followFrom(after: number, reader: LogReader, print: (entries: readonly RecordedEntry[]) => void): Promise<void> {
  const interrupted = new AbortController();
  const stop = () => interrupted.abort();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, stop);
  try {
    for await (const { entries } of reader.follow({ after, signal: interrupted.signal })) print(entries);
  } catch (error) {
    if (!interrupted.signal.aborted) throw error;
  }
}

/** What prints entries, batch after batch: lines of JSON, or a table whose first batch brings the head. */
function printer(command: Command, json: true | undefined): (entries: readonly RecordedEntry[]) => void {
  const write = (text: string) => command.configureOutput().writeOut?.(text);
  if (json) return (entries) => write(entries.map((entry) => `${JSON.stringify(jsonOf(entry))}\n`).join(""));
  let widths: readonly number[] | undefined;
  return (entries) => {
    const rows = entries.map(rowOf);
    const lines = widths ? rows : [COLUMNS, ...rows];
    widths ??= COLUMNS.map((_, column) => Math.max(...lines.map((row) => row[column]?.length ?? 0)));
    for (const row of lines)
      write(
        `${row
          .map((cell, column) => cell.padEnd(widths?.[column] ?? 0))
          .join("  ")
          .trimEnd()}\n`,
      );
  };
}

/** The entry as proto3 JSON, its fields named as in the proto, and its position. */
function jsonOf({ position, entry }: RecordedEntry): object {
  return { position, ...(toJson(LogEntrySchema, entry, { useProtoFieldName: true }) as object) };
}

const COLUMNS: readonly string[] = ["position", "recorded at", "stream", "version", "events", "actor", "door"];

function rowOf({ position, entry }: RecordedEntry): string[] {
  const { recordedAt, stream, version, events, actor, door } = entry;
  const cells = [
    String(position),
    recordedAt ? timestampDate(recordedAt).toISOString() : "",
    stream,
    String(version),
    events.map(eventType).join(", "),
    actor ? `${roleName(actor.role)} ${actor.subject}` : "",
    Door[door] ?? String(door),
  ];
  // Another writer may have recorded what a terminal would take for commands.
  return cells.map((cell) => cell.replace(/\p{Cc}/gu, "\u{fffd}"));
}

function lineCount(text: string): number {
  const count = Number(text);
  if (!/^\d+$/.test(text) || count > MOST_LINES) throw new InvalidArgumentError(`It must be a whole number from 0 to ${MOST_LINES}.`);
  return count;
}
