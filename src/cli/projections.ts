import { toJson } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { type Client, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import type { Command } from "commander";
import { loadConfig } from "../config.ts";
import {
  type ListProjectionsResponse,
  ListProjectionsResponseSchema,
  OperationsService,
  RebuildProjectionResponseSchema,
  VerifyProjectionResponseSchema,
} from "../gen/ordertrail/v1/operations_service_pb.js";
import { EXIT, EXIT_CODES_HELP } from "./exit-codes.ts";
import { findInstance } from "./instance.ts";
import { grpcTransport } from "./instance-calls.ts";
import { instanceToken } from "./instance-token.ts";

type Operations = Client<typeof OperationsService>;
type Format = { readonly json?: true };

/** All fields, named as in the protos. */
const JSON_FORMAT = { useProtoFieldName: true, alwaysEmitImplicit: true };
/** A token is looked at when a call begins; how long the call then takes does not matter. */
const TOKEN_SECONDS = 300;

/** Registers `projections`: lists, rebuilds and verifies the projections of the running instance. */
export function registerProjections(program: Command): void {
  const command = program.command("projections").description("look after the projections of the running instance");

  const list = command.command("list").description("show how far each projection has come").option("--json", "for programs");
  list.action(({ json }: Format) =>
    withOperations(list, async (operations) => {
      const answer = await operations.listProjections({});
      write(list, json ? `${JSON.stringify(toJson(ListProjectionsResponseSchema, answer, JSON_FORMAT))}\n` : table(answer));
    }),
  );

  const rebuild = command
    .command("rebuild")
    .description("build a projection anew from the log, beside the live one, and put it in its place; goes on when you leave")
    .argument("<name>", "the projection, such as order_tracking")
    .option("--json", "for programs: one JSON object a line");
  rebuild.action((name: string, { json }: Format) =>
    withOperations(rebuild, async (operations) => {
      for await (const message of operations.rebuildProjection({ name })) {
        if (json) write(rebuild, `${JSON.stringify(toJson(RebuildProjectionResponseSchema, message, JSON_FORMAT))}\n`);
        else if (message.done) finish(rebuild, `rebuilt ${name}, up to position ${message.position}\n`);
        else showProgress(`rebuilding ${name}: position ${message.position} of ${message.target}`);
      }
    }),
  );

  const verify = command
    .command("verify")
    .description(`compare a projection with what the log says, document by document; exit code ${EXIT.failed} when they differ`)
    .argument("<name>", "the projection, such as order_tracking")
    .option("--json", "for programs: one JSON object a line");
  verify.action((name: string, { json }: Format) =>
    withOperations(verify, async (operations) => {
      for await (const message of operations.verifyProjection({ name })) {
        const { checked, different, difference, done } = message;
        if (json) write(verify, `${JSON.stringify(toJson(VerifyProjectionResponseSchema, message, JSON_FORMAT))}\n`);
        else if (difference) finish(verify, `${difference.key} is ${difference.problem}${difference.path && ` at ${difference.path}`}\n`);
        else if (done) finish(verify, `${name}: ${checked} documents checked, ${different} differ from the log\n`);
        else showProgress(`verifying ${name}: ${checked} documents checked, ${different} differ`);
        if (done && different > 0n) process.exitCode = EXIT.failed;
      }
    }),
  );

  for (const verb of command.commands) verb.addHelpText("after", EXIT_CODES_HELP);
}

/** Does something with the running instance, as an operator. What the instance refuses is the command's error. */
async function withOperations(command: Command, use: (operations: Operations) => Promise<void>): Promise<void> {
  const config = loadConfig();
  const instance = await findInstance(config.dataDir);
  if (!instance?.addresses)
    return command.error(`error: no instance runs with the data in ${config.dataDir}: npm start`, { exitCode: EXIT.notRunning });
  const token = await instanceToken(config, instance.addresses.mongodb, "operator", TOKEN_SECONDS);
  const authorize: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
  try {
    await use(
      createClient(OperationsService, grpcTransport({ ...instance, addresses: instance.addresses, tlsFiles: config.cliTls }, [authorize])),
    );
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    clearProgress();
    command.error(`error: ${error.rawMessage}`, { exitCode: EXIT.failed });
  }
}

function table({ projections, logPosition }: ListProjectionsResponse): string {
  const rows = projections.map(({ name, position, behind, runner, progressedAt, rebuilding, lastError }) => [
    name,
    String(position),
    String(behind),
    progressedAt ? timestampDate(progressedAt).toISOString() : "never",
    runner || "nobody",
    lastError || (rebuilding ? "rebuilding" : "running"),
  ]);
  const heads = ["projection", "position", "behind", "progressed at", "run by", "state"];
  const widths = heads.map((head, column) => Math.max(head.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const lines = [heads, ...rows].map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  return `${lines.join("\n")}\n\nThe log's newest position is ${logPosition}.\n`;
}

function write(command: Command, text: string): void {
  command.configureOutput().writeOut?.(text);
}

/** A line that the next one replaces; only where somebody watches. */
function showProgress(line: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${line}`);
}

function clearProgress(): void {
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
}

function finish(command: Command, text: string): void {
  clearProgress();
  write(command, text);
}
