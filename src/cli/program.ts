import { Command, CommanderError } from "commander";
import { ConfigError } from "../config.ts";
import { registerAudit } from "./audit.ts";
import { registerClients } from "./clients.ts";
import { registerDemo } from "./demo.ts";
import { EXIT, EXIT_CODES_HELP } from "./exit-codes.ts";
import { registerKeys } from "./keys.ts";
import { registerLog } from "./log.ts";
import { registerNotifications } from "./notifications.ts";
import { registerOutbox } from "./outbox.ts";
import { registerPrivacy } from "./privacy.ts";
import { registerProjections } from "./projections.ts";
import { registerStart } from "./start.ts";
import { registerStatus } from "./status.ts";
import { registerToken } from "./token.ts";
import { registerTokenKeys } from "./token-keys.ts";
import { registerWatch } from "./watch.ts";

const program = new Command("ordertrail")
  .description("Order tracking for grocery delivery: the whole story of every order.")
  .helpCommand(false)
  .configureOutput({
    outputError: (text, write) =>
      write(text.startsWith("error: unknown option") ? `${text.trimEnd()} (a name that begins with - comes after --)\n` : text),
  })
  .exitOverride();

for (const register of [
  registerStart,
  registerStatus,
  registerToken,
  registerClients,
  registerTokenKeys,
  registerDemo,
  registerWatch,
  registerNotifications,
  registerOutbox,
  registerProjections,
  registerPrivacy,
  registerKeys,
  registerLog,
  registerAudit,
])
  register(program);
program.addHelpText("afterAll", EXIT_CODES_HELP);

// Whoever reads may have seen enough: `log tail | head -1`. A server goes on with nobody reading.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  if (process.argv[2] !== "start") process.exit();
});

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = exitCodeOf(error);
}

function exitCodeOf(error: unknown): number {
  // commander has told what is wrong. Mistakes in the arguments have codes of their own; "commander.error" are the verbs' errors.
  if (error instanceof CommanderError) return error.exitCode === 0 || error.code === "commander.error" ? error.exitCode : EXIT.usage;
  process.stderr.write(`error: ${error instanceof Error ? error.message : String(error)}\n`);
  return error instanceof ConfigError ? EXIT.usage : EXIT.failed;
}
