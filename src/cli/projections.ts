import { toJson } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { type Client, createClient } from "@connectrpc/connect";
import type { Command } from "commander";
import {
  type ListProjectionsResponse,
  ListProjectionsResponseSchema,
  OperationsService,
  RebuildProjectionResponseSchema,
  VerifyProjectionResponseSchema,
} from "../gen/ordertrail/v1/operations_service_pb.js";
import { EXIT } from "./exit-codes.ts";
import { finish, JSON_FORMAT, showProgress, withInstance, write } from "./with-instance.ts";

type Operations = Client<typeof OperationsService>;
type Format = { readonly json?: true };

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
}

function withOperations(command: Command, use: (operations: Operations) => Promise<void>): Promise<void> {
  return withInstance(command, (transport) => use(createClient(OperationsService, transport)));
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
