import type { Command } from "commander";
import type { Db } from "mongodb";
import { createRevocations } from "../access/revocations.ts";
import { createSigningKeys, MAX_LIFETIME_SECONDS, type SigningKeyState, type SigningKeys } from "../access/signing-keys.ts";
import { createLogger } from "../logger.ts";
import { configuredKeyWrapper } from "../privacy/configured-key-wrapper.ts";
import { withDatabase } from "./auth-database.ts";
import { EXIT } from "./exit-codes.ts";

const now = () => new Date();
const HOUR_MS = 3600 * 1000;

/** Registers `token-keys`: the keys with which AuthService signs tokens. */
export function registerTokenKeys(program: Command): void {
  const command = program.command("token-keys").description("the keys with which tokens are signed, published at /.well-known/jwks.json");

  const list = command
    .command("list")
    .description("show the keys, and what each is for")
    .option("--json", "for programs: one JSON object a line");
  list.action(({ json }: { readonly json?: true }) =>
    withKeys(list, async (keys) => {
      const states = await keys.list();
      write(list, json ? states.map((state) => `${JSON.stringify(jsonOf(state))}\n`).join("") : states.map(lineOf).join(""));
    }),
  );

  const rotate = command
    .command("rotate")
    .description("publish the next key, which signs in ten minutes; tokens signed by the one before stay good until they expire");
  rotate.action(() =>
    withKeys(rotate, async (keys) => {
      const next = await keys.rotate();
      write(rotate, `${next.kid} is published, and signs from ${next.signsFrom.toISOString()} on\n`);
    }),
  );

  const revoke = command
    .command("revoke")
    .description("take a key that leaked out of use at once; every token that it signed is refused within two seconds")
    .argument("<kid>", "the key, as list shows it");
  revoke.action((kid: string) =>
    withKeys(revoke, async (keys, db) => {
      const revocations = createRevocations(db, now, createLogger("silent"));
      const signing = await keys.withdraw(kid);
      if (!signing) return revoke.error(`error: there is no key ${kid}`, { exitCode: EXIT.failed });
      await revocations.revoke([`key:${kid}`], new Date(Date.now() + MAX_LIFETIME_SECONDS * 1000 + HOUR_MS));
      write(revoke, `${kid} is revoked, and so is every token that it signed; ${signing.kid} signs now\n`);
    }),
  );
}

async function withKeys(command: Command, use: (keys: SigningKeys, db: Db) => Promise<void>): Promise<void> {
  await withDatabase(command, async (db, config) => {
    const wrapping = await configuredKeyWrapper(config, now);
    const logger = createLogger("silent");
    await use(createSigningKeys({ db, wrapping, clock: now, logger, isRevoked: () => false }), db);
  });
}

function jsonOf({ kid, phase, signsFrom, createdAt }: SigningKeyState): object {
  return { kid, phase, signs_from: signsFrom, created_at: createdAt };
}

function lineOf({ kid, phase, signsFrom }: SigningKeyState): string {
  return `${kid}  ${phase.padEnd(9)}  signs from ${signsFrom.toISOString()}\n`;
}

function write(command: Command, text: string): void {
  command.configureOutput().writeOut?.(text);
}
