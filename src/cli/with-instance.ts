import { ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import type { Command } from "commander";
import { loadConfig } from "../config.ts";
import { EXIT } from "./exit-codes.ts";
import { findInstance } from "./instance.ts";
import { grpcTransport } from "./instance-calls.ts";
import { instanceToken } from "./instance-token.ts";

/** A token is looked at when a call begins; how long the call then takes does not matter. */
const TOKEN_SECONDS = 300;

/** All fields, named as in the protos. */
export const JSON_FORMAT = { useProtoFieldName: true, alwaysEmitImplicit: true };

/** Does something with the running instance, as an operator. What the instance refuses is the command's error. */
export async function withInstance(command: Command, use: (transport: Transport) => Promise<void>): Promise<void> {
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
    await use(grpcTransport({ ...instance, addresses: instance.addresses, tlsFiles: config.cliTls }, [authorize]));
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    clearProgress();
    command.error(`error: ${error.rawMessage}`, { exitCode: EXIT.failed });
  }
}

/** Writes to where the command's output goes. */
export function write(command: Command, text: string): void {
  command.configureOutput().writeOut?.(text);
}

/** Shows a line that the next one replaces; only where somebody watches. */
export function showProgress(line: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${line}`);
}

/** Removes the line of progress. */
export function clearProgress(): void {
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
}

/** Writes in the place of the line of progress. */
export function finish(command: Command, text: string): void {
  clearProgress();
  write(command, text);
}
