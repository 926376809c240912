import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, verify } from "node:crypto";
import type { PushSettings, ServiceAccount } from "../channels/push-settings.ts";
import type { Outbox } from "./outbox.ts";
import { type Answered, type Asked, type SandboxApi, startSandboxServer } from "./sandbox-server.ts";

type Fields = Readonly<Record<string, unknown>>;

/** Firebase Cloud Messaging, played on this machine, with Google's tokens. */
export type FcmSandbox = AsyncDisposable & { readonly settings: Omit<PushSettings, "timeoutMs"> & { readonly baseUrl: string } };

export type FcmSandboxOptions = { readonly outbox: Outbox; readonly port?: number };

const TOKEN_SECONDS = 3600;
const MAX_PAYLOAD_BYTES = 4096;
const SCOPE = "https://www.googleapis.com/auth/firebase.messaging";
/** Google's words for a status. */
const STATUSES: ReadonlyMap<number, string> = new Map([
  ...([
    [400, "INVALID_ARGUMENT"],
    [401, "UNAUTHENTICATED"],
    [403, "PERMISSION_DENIED"],
    [404, "NOT_FOUND"],
  ] as const),
  ...([
    [429, "RESOURCE_EXHAUSTED"],
    [500, "INTERNAL"],
    [503, "UNAVAILABLE"],
  ] as const),
]);
/** With what status FCM's own errors come. */
const FCM_ERRORS: ReadonlyMap<string, number> = new Map([
  ...([
    ["UNREGISTERED", 404],
    ["INVALID_ARGUMENT", 400],
    ["SENDER_ID_MISMATCH", 403],
    ["QUOTA_EXCEEDED", 429],
  ] as const),
  ...([
    ["UNAVAILABLE", 503],
    ["INTERNAL", 500],
    ["THIRD_PARTY_AUTH_ERROR", 401],
  ] as const),
]);

/**
 * Starts it, with a service account made up for the occasion. Tokens are taken, but those that begin with "dead" (unregistered) or
 * "invalid" (no tokens at all), and those of which POST /__sandbox/tokens {token, error} says otherwise.
 */
export async function startFcmSandbox({ outbox, port }: FcmSandboxOptions): Promise<FcmSandbox> {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const projectId = "sandbox-project";
  const serviceAccount = {
    ...{ projectId, clientEmail: `sandbox@${projectId}.iam.gserviceaccount.com` },
    privateKey: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  };
  const server = await startSandboxServer(
    createFcmSandbox(serviceAccount, createPublicKey(privateKey), outbox),
    undefined,
    undefined,
    port,
  );
  return { settings: { serviceAccount, baseUrl: server.url }, [Symbol.asyncDispose]: () => server.stop() };
}

function createFcmSandbox({ projectId, clientEmail }: ServiceAccount, publicKey: KeyObject, outbox: Outbox): SandboxApi {
  const accessTokens = new Set<string>();
  const tokenErrors = new Map<string, string>();
  const path = `/v1/projects/${projectId}/messages:send`;

  function issue({ body = {} }: Asked): Answered {
    const claims = claimsOf(String(body["assertion"]), publicKey);
    const isGood = claims?.["iss"] === clientEmail && claims["scope"] === SCOPE && Number(claims["exp"]) * 1000 > Date.now();
    if (body["grant_type"] !== "urn:ietf:params:oauth:grant-type:jwt-bearer" || !isGood)
      return { status: 400, body: { error: "invalid_grant" } };
    const token = `ya29.${randomBytes(24).toString("base64url")}`;
    accessTokens.add(token);
    return { status: 200, body: { access_token: token, expires_in: TOKEN_SECONDS, token_type: "Bearer" } };
  }

  function errorOf(token: string): string | undefined {
    if (tokenErrors.has(token)) return tokenErrors.get(token);
    return token.startsWith("dead") ? "UNREGISTERED" : token.startsWith("invalid") ? "INVALID_TOKEN" : undefined;
  }

  function take({ body = {} }: Asked): Answered {
    const message = (body["message"] ?? {}) as Fields;
    const wrong = violationOf(message);
    if (wrong !== undefined) return badRequest(wrong, `Invalid value at '${wrong}'`);
    const token = String(message["token"]);
    const error = errorOf(token);
    if (error === "INVALID_TOKEN") return badRequest("message.token", "The registration token is not a valid FCM registration token");
    if (error !== undefined) return failed(FCM_ERRORS.get(error) ?? 500, error);
    const name = `projects/${projectId}/messages/0:${randomBytes(8).toString("hex")}`;
    const { title = "", body: text = "" } = (message["notification"] ?? {}) as Readonly<Record<string, string>>;
    const data = (message["data"] ?? {}) as Readonly<Record<string, string>>;
    const reference = data["message_id"];
    if (body["validate_only"] !== true)
      outbox.add({ channel: "push", id: name, to: token, subject: title, text, data, ...(reference && { reference }), at: new Date() });
    return { status: 200, body: { name } };
  }

  return {
    outbox,
    operationOf: (asked) => (asked.path === path ? "send" : asked.path === "/token" ? "token" : undefined),
    answer(asked) {
      if (asked.method === "POST" && asked.path === "/token") return issue(asked);
      if (!accessTokens.has(asked.authorization.replace(/^Bearer /, ""))) return failed(401);
      if (asked.method === "POST" && asked.path === path) return take(asked);
      return failed(asked.path.startsWith("/v1/projects/") ? 403 : 404);
    },
    fault: (status, code) => failed(status, code === undefined ? undefined : String(code)).body,
    control({ method, path: controlled, body = {} }) {
      if (method !== "POST" || controlled !== "/__sandbox/tokens") return undefined;
      const { token, error } = body;
      if (typeof error === "string") tokenErrors.set(String(token), error);
      else tokenErrors.delete(String(token));
      return { status: 200, body: {} };
    },
  };
}

/** The claims of a JWT that this key has signed. */
function claimsOf(jwt: string, key: KeyObject): Fields | undefined {
  const [header = "", claims = "", signature = ""] = jwt.split(".");
  if (!verify("RSA-SHA256", Buffer.from(`${header}.${claims}`), key, Buffer.from(signature, "base64url"))) return undefined;
  return JSON.parse(Buffer.from(claims, "base64url").toString()) as Fields;
}

/** The field of a message that is not as it must be. */
function violationOf(message: Fields): string | undefined {
  const { data = {}, android = {}, apns = {} } = message as { data?: Fields; android?: Fields; apns?: { headers?: Fields } };
  if (typeof message["token"] !== "string" || message["token"] === "") return "message";
  if (!Object.values(data).every((value) => typeof value === "string")) return "message.data";
  if (Buffer.byteLength(JSON.stringify([message["notification"], data])) > MAX_PAYLOAD_BYTES) return "message.data";
  if (android["ttl"] !== undefined && !/^\d+(\.\d+)?s$/.test(String(android["ttl"]))) return "message.android.ttl";
  if (Buffer.byteLength(String(apns.headers?.["apns-collapse-id"] ?? "")) > 64) return "message.apns.headers";
  return undefined;
}

function badRequest(field: string, message: string): Answered {
  const violations = { "@type": "type.googleapis.com/google.rpc.BadRequest", fieldViolations: [{ field, description: message }] };
  return failed(400, "INVALID_ARGUMENT", message, [violations]);
}

/** An error as Google tells it; `errorCode` is FCM's own. */
function failed(status: number, errorCode?: string, message = "This is the sandbox.", more: readonly object[] = []): Answered {
  const own = errorCode === undefined ? [] : [{ "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", errorCode }];
  return { status, body: { error: { code: status, message, status: STATUSES.get(status) ?? "UNKNOWN", details: [...own, ...more] } } };
}
