import { createPrivateKey } from "node:crypto";
import { type Credential, cert } from "firebase-admin/app";
import { SignJWT } from "jose";
import { readAtMost } from "../read-at-most.ts";
import type { PushSettings } from "./push-settings.ts";

const SCOPE = "https://www.googleapis.com/auth/firebase.messaging";
const AUDIENCE = "https://oauth2.googleapis.com/token";
const MAX_BODY_BYTES = 64 * 1024;

/** The credential by which the library gets its tokens. Its own cannot be led to another server than Google's. */
export function createFcmCredential({ serviceAccount, baseUrl, timeoutMs }: PushSettings): Credential {
  if (baseUrl === undefined) return cert({ ...serviceAccount });
  const { clientEmail, privateKey } = serviceAccount;
  const key = createPrivateKey(privateKey);
  return {
    async getAccessToken() {
      const assertion = await new SignJWT({ scope: SCOPE })
        .setProtectedHeader({ alg: "RS256", typ: "JWT" })
        .setIssuer(clientEmail)
        .setAudience(AUDIENCE)
        .setIssuedAt()
        .setExpirationTime("1h")
        .sign(key);
      const body = new URLSearchParams({ grant_type: "urn:ietf:params:oauth:grant-type:jwt-bearer", assertion });
      const response = await fetch(`${baseUrl}/token`, { method: "POST", body, signal: AbortSignal.timeout(timeoutMs) });
      const read = JSON.parse((await readAtMost(response.body ?? [], MAX_BODY_BYTES)).toString()) as Record<string, unknown>;
      const { access_token, expires_in } = read;
      if (typeof access_token !== "string" || typeof expires_in !== "number") throw new Error("there is no token for this service account");
      return { access_token, expires_in };
    },
  };
}
