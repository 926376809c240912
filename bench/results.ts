import { execFileSync } from "node:child_process";
import { cpus, loadavg, release, totalmem, type } from "node:os";
import { MongoClient } from "mongodb";
import type { Bench, Row } from "./measure.ts";

/** What a run was made with, for those who compare it with another: what it is, and its value. */
export type Circumstances = Readonly<Record<string, string>>;

/** The circumstances of a run that begins now on this machine. */
export async function readCircumstances(mongodbUrl: string): Promise<Circumstances> {
  await using client = new MongoClient(mongodbUrl);
  const { version } = await client.db("admin").command({ buildInfo: 1 });
  const [cpu] = cpus();
  const changed = git("status", "--porcelain", "--", "src", "bench", "package-lock.json");
  return {
    date: `${new Date().toISOString().slice(0, 16).replace("T", " ")} UTC`,
    commit: `${git("rev-parse", "--short", "HEAD")}${changed === "" ? "" : ", with changes"}`,
    machine: `${cpus().length} × ${cpu?.model.trim() || process.arch}, ${Math.round(totalmem() / 2 ** 30)} GiB, ${type()} ${release()}`,
    "load before it began": (loadavg()[0] ?? 0).toFixed(1),
    versions: `Node.js ${process.versions.node}, mongod ${version}, a replica set of one`,
  };
}

/** The table of results as Markdown. */
export function formatTable(rows: readonly Row[]): string {
  const cells = rows.map(({ what, ours, against, figure, target, reached }) => [
    what,
    ours,
    against,
    figure,
    target,
    reached ? "ok" : "short",
  ]);
  const table = [["measure", "Ordertrail", "against", "figure", "target", ""], ...cells];
  const widths = (table[0] ?? []).map((_, column) => Math.max(3, ...table.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]) => `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`;
  const [head = [], ...body] = table;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...body.map(line)].join("\n");
}

const BEGIN = "<!-- results: written by a full run of `npm run bench` -->";
const END = "<!-- end of results -->";

/** README's text with these results in the place of those before: what was measured, the figure, and its target. */
export function withSummary(readme: string, rows: readonly Row[], { date, machine, commit }: Circumstances): string {
  const [before, rest] = readme.split(BEGIN, 2);
  const after = rest?.split(END, 2)[1];
  if (before === undefined || after === undefined)
    throw new Error(`README.md has no place for the results: add the lines\n${BEGIN}\n${END}`);
  const lines = rows.map(({ what, figure, target, reached }) => `| ${what} | ${figure} | ${target}${reached ? "" : " (short)"} |`);
  const table = ["| measure | figure | target |", "|---|---|---|", ...lines].join("\n");
  return `${before}${BEGIN}\nMeasured ${date} at ${commit}, on ${machine}:\n\n${table}\n${END}${after}`;
}

/** The page that a full run leaves behind. */
export function formatPage(
  rows: readonly Row[],
  circumstances: Circumstances,
  { rounds, longRounds }: Pick<Bench, "rounds" | "longRounds">,
): string {
  const facts = Object.entries(circumstances).map(([name, value]) => `- ${name}: ${value}`);
  return `# Results of \`npm run bench\`

Written by the benchmark itself; do not edit. Each figure is the median of ${rounds} rounds (${longRounds} where a whole log is
read or rebuilt), in which those that are compared took turns on the same mongod. Clients are processes of their own and warm up before anything is
counted. Everyone writes with \`w: majority, j: true\`. \`insertOne\` writes the same documents as the appender, into a collection with
the same indexes as the log: \`_id\`, and a unique one on (stream, version). The echo neither asks for a token nor looks at its messages.

${facts.join("\n")}

${formatTable(rows)}
`;
}

function git(...args: readonly string[]): string {
  try {
    return execFileSync("git", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"], cwd: import.meta.dirname }).trim();
  } catch {
    return "unknown";
  }
}
