import { type Command, Option } from "commander";
import { CLIENT_ROLES, type Client, type Clients, createClients } from "../access/clients.ts";
import { createRevocations } from "../access/revocations.ts";
import { createSessions } from "../access/sessions.ts";
import { Refusal } from "../domain/refusal.ts";
import { createLogger } from "../logger.ts";
import { parseIdentifier } from "./audit-arguments.ts";
import { withDatabase } from "./auth-database.ts";
import { EXIT } from "./exit-codes.ts";

type CreateOptions = { readonly role: string; readonly subject?: string; readonly store?: string; readonly json?: true };

const now = () => new Date();

/** Registers `clients`: who may ask AuthService for tokens with a secret. */
export function registerClients(program: Command): void {
  const command = program.command("clients").description("who may ask for tokens with a secret: services, partners, stores");

  const create = command
    .command("create")
    .description("add a client and print its secret, which is shown this once")
    .argument("<client_id>", "its name: 1 to 64 letters, digits, _ and -", parseIdentifier)
    .addOption(new Option("--role <role>", `one of ${CLIENT_ROLES.join(", ")}`).choices(CLIENT_ROLES).makeOptionMandatory())
    .option("--subject <id>", "who its tokens name: for role partner the provider; the client_id, if not given")
    .option("--store <id>", "the store_id, for role store")
    .option("--json", "for programs: client_id and client_secret");
  create.action((clientId: string, { role, subject, store, json }: CreateOptions) =>
    withDatabase(create, async (db) => {
      const secret = await orUsage(create, createClients(db, now).create({ clientId, role, subject: subject ?? clientId, storeId: store }));
      write(
        create,
        json
          ? `${JSON.stringify({ client_id: clientId, client_secret: secret })}\n`
          : `client_id      ${clientId}\nclient_secret  ${secret}\n\nThe secret is not kept and cannot be shown again.\n`,
      );
    }),
  );

  const list = command.command("list").description("show all clients").option("--json", "for programs: one JSON object a line");
  list.action(({ json }: { readonly json?: true }) =>
    withDatabase(list, async (db) => {
      const clients = await createClients(db, now).list();
      write(list, json ? clients.map((client) => `${JSON.stringify(jsonOf(client))}\n`).join("") : table(clients));
    }),
  );

  const disable = command
    .command("disable")
    .description("give a client no more tokens, and revoke those that it has; for good")
    .argument("<client_id>", "the client", parseIdentifier);
  disable.action((clientId: string) =>
    withDatabase(disable, async (db) => {
      const clients: Clients = createClients(db, now);
      if (!(await clients.disable(clientId))) disable.error(`error: there is no client ${clientId}`, { exitCode: EXIT.failed });
      const revocations = createRevocations(db, now, createLogger("silent"));
      const ended = await createSessions(db, revocations, now).revokeAll(clientId);
      write(disable, `disabled ${clientId} and revoked the tokens of ${ended} sessions\n`);
    }),
  );
}

async function orUsage<Result>(command: Command, work: Promise<Result>): Promise<Result> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof Refusal) command.error(`error: ${error.message}`, { exitCode: EXIT.usage });
    throw error;
  }
}

function jsonOf({ clientId, role, subject, storeId, createdAt, disabledAt }: Client): object {
  return { client_id: clientId, role, subject, store_id: storeId, created_at: createdAt, disabled_at: disabledAt };
}

function table(clients: readonly Client[]): string {
  const rows = [
    ["client", "role", "subject", "store", "created at", "disabled at"],
    ...clients.map(({ clientId, role, subject, storeId, createdAt, disabledAt }) => [
      clientId,
      role,
      subject,
      storeId ?? "",
      createdAt.toISOString(),
      disabledAt?.toISOString() ?? "",
    ]),
  ];
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  const lines = rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  "));
  return lines.map((line) => `${line.trimEnd()}\n`).join("");
}

function write(command: Command, text: string): void {
  command.configureOutput().writeOut?.(text);
}
