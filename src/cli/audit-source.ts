import { type Command, InvalidArgumentError, Option } from "commander";
import { createAuditKeySource } from "../audit/audit-keys.ts";
import { parseVerifierKey, type VerifierKey } from "../audit/signed-note.ts";
import { logAtUrl, logInFolder, type PublishedLog } from "../audit/tile-source.ts";
import { type Config, loadCliTls, loadConfig } from "../config.ts";
import { readClientTls } from "../tls-files.ts";
import { EXIT } from "./exit-codes.ts";
import { findInstance, type InstanceAddresses } from "./instance.ts";
import { type CalledInstance, tlsOptions } from "./instance-ready.ts";
import { instanceToken } from "./instance-token.ts";

/** Where a log is that is to be looked at: an address, a folder, or, without either, the running instance. */
export type SourceOptions = { readonly url?: URL; readonly dir?: string; readonly key?: readonly VerifierKey[]; readonly token?: string };

/** A log, and the keys by which to verify it. */
export type AuditSource = { readonly log: PublishedLog; readonly keys: readonly VerifierKey[] };

/** How long before its end a token is not used any more, and how long one lasts. */
const TOKEN_SECONDS = 600;
const TOKEN_USED_MS = (TOKEN_SECONDS * 1000) / 2;

/** Adds the options that say where the log is. */
export function addSourceOptions(command: Command): Command {
  return command
    .addOption(new Option("--url <url>", "the address below which the log is published, such as https://host/audit").argParser(parseUrl))
    .addOption(new Option("--dir <folder>", "a folder with a checkpoint and tiles").conflicts("url"))
    .addOption(keyOption("the log's verifier key in note form; may be given several times. Needed with --url and --dir"))
    .option("--token <token>", "a token of role auditor or operator, where the log is not public");
}

/** The option that takes verifier keys. */
export function keyOption(description: string): Option {
  return new Option("--key <key>", description).argParser((text: string, before: readonly VerifierKey[] | undefined) => {
    try {
      return [...(before ?? []), parseVerifierKey(text)];
    } catch (error) {
      throw new InvalidArgumentError((error as Error).message);
    }
  });
}

/** The log that the options name. Ends the command when there is none. */
export async function openSource(command: Command, { url, dir, key, token }: SourceOptions): Promise<AuditSource> {
  if (url || dir !== undefined) {
    if (!key)
      return command.error("error: --key is needed: whoever publishes a log must not also say by which key to believe it", {
        exitCode: EXIT.usage,
      });
    const given = token === undefined ? undefined : async () => token;
    return { log: url ? logAtUrl(url, { token: given, tls: readClientTls(loadCliTls()) }) : logInFolder(dir ?? ""), keys: key };
  }
  const { config, called } = await runningInstance(command);
  const { addresses, serverNames, tlsFiles } = called;
  const tokens = token === undefined ? auditorTokens(config, addresses) : async () => token;
  const own = key ?? (await createAuditKeySource(config).signers(config.auditOrigin)).map(({ verifier }) => verifier);
  const tls = serverNames?.http === undefined ? {} : tlsOptions(serverNames.http, tlsFiles);
  return { log: logAtUrl(new URL("/audit", addresses.http), { token: tokens, tls }), keys: own };
}

/** The instance that runs with the data in DATA_DIR. Ends the command when none does. */
export async function runningInstance(command: Command): Promise<{ readonly config: Config; readonly called: CalledInstance }> {
  const config = loadConfig();
  const instance = await findInstance(config.dataDir);
  if (!instance?.addresses)
    return command.error(`error: no instance runs with the data in ${config.dataDir}: npm start`, { exitCode: EXIT.notRunning });
  return { config, called: { ...instance, addresses: instance.addresses, tlsFiles: config.cliTls } };
}

/** Tokens of role auditor for the running instance, each as long as it is good. */
export function auditorTokens(config: Config, { mongodb }: InstanceAddresses): () => Promise<string> {
  let token: Promise<string> | undefined;
  let until = 0;
  return () => {
    if (!token || performance.now() > until) {
      until = performance.now() + TOKEN_USED_MS;
      token = instanceToken(config, mongodb, "auditor", TOKEN_SECONDS);
    }
    return token;
  };
}

function parseUrl(text: string): URL {
  if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol)) throw new InvalidArgumentError("must be an http or https address");
  return new URL(text);
}
