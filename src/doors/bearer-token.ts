import { Refusal } from "../domain/refusal.ts";

/** The token of an Authorization header. Throws a Refusal UNAUTHENTICATED when there is none. */
export function bearerToken(authorization: string | undefined): string {
  const token = authorization === undefined ? undefined : /^Bearer +([^\s]+)$/i.exec(authorization)?.[1];
  if (token === undefined) throw new Refusal("UNAUTHENTICATED", "a token is required: send the header Authorization: Bearer <token>");
  return token;
}
