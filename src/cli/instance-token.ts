import { randomUUID } from "node:crypto";
import { issueDevelopmentToken } from "../access/development-token.ts";
import { createDevelopmentKeys } from "../access/keys.ts";
import { createSigningKeys } from "../access/signing-keys.ts";
import type { Config } from "../config.ts";
import { createLogClient } from "../log/log-client.ts";
import { createLogger } from "../logger.ts";
import { configuredKeyWrapper } from "../privacy/configured-key-wrapper.ts";

/**
 * A token for the command line, to call the running instance in this role. In production it is signed with the instance's own key, which whoever has
 * the database and the master keys may: they could do all that an operator can.
 */
export async function instanceToken(
  config: Config,
  mongodbUrl: string,
  role: "operator" | "auditor",
  expiresInSeconds: number,
): Promise<string> {
  const who = { role, subject: "command-line" };
  if (!config.production)
    return await issueDevelopmentToken(await createDevelopmentKeys(config.dataDir), config, { ...who, expiresInSeconds });
  const clock = () => new Date();
  await using client = createLogClient(config.mongodbUrl ?? mongodbUrl, config.mongodbTls);
  const keys = createSigningKeys({
    db: client.db(config.databaseName),
    wrapping: await configuredKeyWrapper(config, clock),
    clock,
    logger: createLogger("silent"),
    isRevoked: () => false,
  });
  const claims = { iss: config.jwtIssuer, aud: config.jwtAudience, sub: who.subject, role: who.role, jti: randomUUID() };
  return await keys.sign(claims, expiresInSeconds);
}
