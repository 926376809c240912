import type { Command } from "commander";
import { loadConfig } from "../config.ts";
import { EXIT } from "./exit-codes.ts";
import { findInstance, type InstanceAddresses } from "./instance.ts";
import { askReadiness, type InstanceReadiness } from "./instance-ready.ts";

/** What `status` tells; with --json, exactly these fields. */
type Status = Partial<InstanceAddresses> & { readonly pid: number } & InstanceReadiness;

/** Registers `status`: where the running instance is reached, and whether it can do its work. */
export function registerStatus(program: Command): void {
  const command = program
    .command("status")
    .description(
      `show the running instance of DATA_DIR; exit code ${EXIT.failed} when it is not ready, ${EXIT.notRunning} when there is none`,
    )
    .option("--json", "for programs: grpc, http, mongodb, nats, redis, outbox, pid, ready, failing");
  command.action(async ({ json }: { json?: true }) => {
    const { dataDir, cliTls } = loadConfig();
    const instance = await findInstance(dataDir);
    if (!instance) return command.error(`error: no instance runs with the data in ${dataDir}: npm start`, { exitCode: EXIT.notRunning });
    const { pid, addresses, serverNames } = instance;
    const status: Status = {
      ...addresses,
      pid,
      ...(addresses ? await askReadiness({ addresses, serverNames, tlsFiles: cliTls }) : { ready: false, failing: [] }),
    };
    command.configureOutput().writeOut?.(json ? `${JSON.stringify(status)}\n` : table(status));
    if (!status.ready) process.exitCode = EXIT.failed;
  });
}

function table({ ready, failing, ...rest }: Status): string {
  const rows = { ...rest, ready: ready ? "yes" : "no", ...(failing.length > 0 && { failing: failing.join(", ") }) };
  return Object.entries(rows)
    .map(([name, value]) => `${name.padEnd(8)} ${value}\n`)
    .join("");
}
