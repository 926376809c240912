import { callerOf } from "./claims.ts";
import type { DevelopmentKeys } from "./keys.ts";

/** For whom a development token is. */
export type TokenRequest = {
  /** As tokens name it, such as "customer". */
  readonly role: string;
  readonly subject: string;
  /** Required for role store. */
  readonly storeId?: string | undefined;
  readonly expiresInSeconds: number;
};

/** Makes a token that the instance with these keys accepts. Throws a Refusal that says why it would not. */
export async function issueDevelopmentToken(
  keys: DevelopmentKeys,
  server: { readonly jwtIssuer: string; readonly jwtAudience: string },
  { role, subject, storeId, expiresInSeconds }: TokenRequest,
): Promise<string> {
  const claims = {
    iss: server.jwtIssuer,
    aud: server.jwtAudience,
    sub: subject,
    role,
    ...(storeId !== undefined && { store_id: storeId }),
  };
  callerOf(claims);
  return keys.sign(claims, { expiresInSeconds });
}
