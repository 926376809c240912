import type { Db } from "mongodb";
import { createRevocations, type Revocations } from "../../src/access/revocations.ts";
import { createSessions, type Sessions } from "../../src/access/sessions.ts";
import { createLogger } from "../../src/logger.ts";

/** One process's sessions and revocations, with a clock of its own. */
export type AuthProcess = AsyncDisposable & { readonly sessions: Sessions; readonly revocations: Revocations };

/** Opens what a process knows of tokens, on a database that others may have open. */
export async function openAuth(db: Db, clock: () => Date = () => new Date()): Promise<AuthProcess> {
  const revocations = createRevocations(db, clock, createLogger("silent"));
  await revocations.start();
  const sessions = createSessions(db, revocations, clock);
  await sessions.ensureIndexes();
  return { sessions, revocations, [Symbol.asyncDispose]: () => revocations.stop() };
}
