import { readFile, writeFile } from "node:fs/promises";
import { VARIABLES } from "../src/config.ts";

const BEGIN = "<!-- configuration: made by `node tools/configuration-table.ts` -->";
const END = "<!-- end of configuration -->";

/** The section of README.md that lists every variable, with the comments that mark its place. */
export function configurationTable(): string {
  const rows = VARIABLES.map(({ name, description, default: byDefault, secret, requiredInProduction }) => {
    const marks = [...(requiredInProduction ? ["required in production"] : []), ...(secret ? ["secret"] : [])];
    const remark = marks.length > 0 ? ` (${marks.join(", ")})` : "";
    return `| \`${name}\` | ${byDefault ? `\`${byDefault}\`` : "–"} | ${description}${remark} |`;
  });
  return [BEGIN, "| variable | default | what |", "|---|---|---|", ...rows, END].join("\n");
}

if (import.meta.main) {
  const readme = new URL("../README.md", import.meta.url);
  const text = await readFile(readme, "utf8");
  const [before, rest] = text.split(BEGIN, 2);
  const after = rest?.split(END, 2)[1];
  if (before === undefined || after === undefined) throw new Error(`README.md has no place for the table: add the lines\n${BEGIN}\n${END}`);
  await writeFile(readme, `${before}${configurationTable()}${after}`);
}
