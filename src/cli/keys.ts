import { toJson } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import type { Command } from "commander";
import { loadConfig } from "../config.ts";
import { OperationsService, type RotateKeysResponse, RotateKeysResponseSchema } from "../gen/ordertrail/v1/operations_service_pb.js";
import { addMasterKey, developmentMasterKeyFile } from "../privacy/master-key.ts";
import { EXIT } from "./exit-codes.ts";
import { finish, JSON_FORMAT, showProgress, withInstance, write } from "./with-instance.ts";

/** Registers `keys`: looks after the master keys, under which the keys of personal data are wrapped. */
export function registerKeys(program: Command): void {
  const command = program.command("keys").description("look after the master keys, under which the keys of personal data are wrapped");

  const add = command
    .command("add")
    .description("put a new master key first in the file of master keys: MASTER_KEYS_FILE, or that of the development instance");
  add.action(async () => {
    const config = loadConfig();
    if (config.masterKeys) {
      return add.error("error: the master keys are in MASTER_KEYS: put the new one first there, and start anew", { exitCode: EXIT.failed });
    }
    const path = config.masterKeysFile ?? developmentMasterKeyFile(config.dataDir);
    const { newest } = await addMasterKey(path);
    write(add, `master key ${newest.id} is first in ${path}; running processes use it within a minute: then ordertrail keys rotate\n`);
  });

  const rotate = command
    .command("rotate")
    .description(`wrap all personal keys under the newest master key, while all goes on; exit code ${EXIT.failed} when some are left`)
    .option("--json", "for programs: one JSON object a line");
  rotate.action(({ json }: { readonly json?: true }) =>
    withInstance(rotate, async (transport) => {
      for await (const message of createClient(OperationsService, transport).rotateKeys({})) {
        if (json) write(rotate, `${JSON.stringify(toJson(RotateKeysResponseSchema, message, JSON_FORMAT))}\n`);
        else if (message.done) finish(rotate, outcome(message));
        else showProgress(`rotating: ${message.rewrapped} wrapped anew, ${leftOf(message)} left`);
        if (message.done && message.left.length > 0) process.exitCode = EXIT.failed;
      }
    }),
  );
}

function outcome(message: RotateKeysResponse): string {
  const { masterKeyId, rewrapped, left } = message;
  const lines = [`${rewrapped} personal keys wrapped anew under master key ${masterKeyId}, ${leftOf(message)} left`];
  for (const use of left)
    lines.push(`  ${use.personalKeys} under master key ${use.masterKeyId}: is it given, and are they whole? Then rotate again`);
  if (left.length === 0) lines.push("no other master key is needed any more, but for backups of before");
  return `${lines.join("\n")}\n`;
}

function leftOf({ left }: RotateKeysResponse): bigint {
  return left.reduce((sum, { personalKeys }) => sum + personalKeys, 0n);
}
