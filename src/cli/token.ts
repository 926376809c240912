import { type Command, Option } from "commander";
import { roleName, TOKEN_ROLES } from "../access/claims.ts";
import { issueDevelopmentToken } from "../access/development-token.ts";
import { createDevelopmentKeys } from "../access/keys.ts";
import { loadConfig } from "../config.ts";
import { Refusal } from "../domain/refusal.ts";

type TokenOptions = { readonly role: string; readonly subject: string; readonly store?: string; readonly expiresIn: string };

const FAILED = 1;
const USAGE = 2;

/** Registers `token`: prints a token of the development instance in DATA_DIR, and nothing else. */
export function registerToken(program: Command): void {
  const command = program
    .command("token")
    .description("print a token for the development instance in DATA_DIR, and nothing else")
    .addOption(new Option("--role <role>", `one of ${TOKEN_ROLES.map(roleName).join(", ")}`).makeOptionMandatory())
    .requiredOption("--subject <id>", "who calls: the customer_id, the driver_id, the provider (for role partner), or any identifier")
    .option("--store <id>", "the store_id, for role store")
    .option("--expires-in <time>", "how long it is valid, such as 90s, 15m, 12h or 7d", "12h");
  command.action(async (options: TokenOptions) => {
    const token = await makeToken(command, options);
    command.configureOutput().writeOut?.(`${token}\n`);
  });
}

async function makeToken(command: Command, { role, subject, store, expiresIn }: TokenOptions): Promise<string> {
  const usage = (message: string) => command.error(`error: ${message}`, { exitCode: USAGE });
  if (!TOKEN_ROLES.map(roleName).includes(role)) usage(`--role must be one of ${TOKEN_ROLES.map(roleName).join(", ")}`);
  if (role === "store" && store === undefined) usage("role store needs --store with the store_id");
  if (role !== "store" && store !== undefined) usage("--store goes with role store only");
  const expiresInSeconds =
    parseSeconds(expiresIn) ?? usage("--expires-in must be a number with s, m, h or d, such as 12h, and at most 365d");
  const config = loadConfig();
  if (config.production) {
    command.error(
      "error: in production tokens come from AuthService/IssueToken (see `ordertrail clients create`) or an issuer of TOKEN_ISSUERS",
      {
        exitCode: FAILED,
      },
    );
  }
  try {
    return await issueDevelopmentToken(await createDevelopmentKeys(config.dataDir), config, {
      role,
      subject,
      storeId: store,
      expiresInSeconds,
    });
  } catch (error) {
    if (error instanceof Refusal) usage(error.message);
    throw error;
  }
}

const UNIT_SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };
const LONGEST_SECONDS = 365 * 86_400;

function parseSeconds(text: string): number | undefined {
  const [, amount, unit = ""] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  const seconds = Number(amount) * (UNIT_SECONDS[unit] ?? 0);
  return seconds >= 1 && seconds <= LONGEST_SECONDS ? seconds : undefined;
}
