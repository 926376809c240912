import { spawnSync } from "node:child_process";
import { Command, InvalidArgumentError } from "commander";

/** The fault campaigns at full length: tells test/faults/counts.ts how often, and runs them. */
const COUNTS = [
  ["writer-kills", "how often a writer is killed in the middle of its batches", "20"],
  ["advisory-faults", "how often the process that appends for all is killed or held, or NATS is", "21"],
  ["relay-faults", "how often a relay or NATS is killed, or NATS loses its data", "21"],
  ["timer-kills", "how often a process is killed that acts on deadlines", "20"],
  ["step-downs", "how often the primary of three members steps down", "10"],
  ["primary-kills", "how often the primary is killed", "10"],
  ["freezes", "how often the primary is frozen, and goes on later", "3"],
  ["projector-kills", "how often a projector is killed", "20"],
  ["tree-kills", "how often the keeper of the log's tree is killed", "20"],
  ["privacy-kills", "how often an erasure, and a rotation of keys, is killed", "20"],
  ["watch-restarts", "how often a server process is restarted while orders are watched", "20"],
  ["courier-kills", "how often a process is killed while it requests a courier", "20"],
  ["notifier-kills", "how often a process is killed while it plans and sends messages", "20"],
  ["malformed-requests", "how many malformed requests a running instance gets", "100000"],
] as const;

const program = new Command("npm run test:faults --")
  .description(
    "Kills writers and members of the database under load, and checks that nothing acknowledged is lost or doubled; sends malformed requests.",
  )
  .argument("[vitest...]", "arguments for vitest, after a further --");
for (const [name, description, byDefault] of COUNTS) program.option(`--${name} <n>`, description, wholeNumber, byDefault);
program.option("--seed <n>", "repeats the moments of an earlier run, which printed it", wholeNumber);
program.parse();

const environment = Object.entries(program.opts<Record<string, string>>()).map(([name, value]) => {
  const variable = `FAULTS_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
  return [variable, value];
});
const { status } = spawnSync("vitest", ["run", "test/faults", ...program.args], {
  stdio: "inherit",
  env: { ...process.env, ...Object.fromEntries(environment) },
});
process.exitCode = status ?? 1;

function wholeNumber(text: string): string {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("It must be a whole number.");
  return text;
}
