import { createPrivateKey } from "node:crypto";
import { readFileSync } from "node:fs";
import type { ServiceAccount } from "./push-settings.ts";

const WANTED = "it must be a service account's JSON (Firebase console, Project settings, Service accounts), or the path to it";

/**
 * Reads the credentials of Firebase: a service account's JSON itself, or the path to it. Throws an Error that says what was given instead,
 * and holds nothing of it.
 */
export function parseServiceAccount(text: string): ServiceAccount {
  const given = text.trim();
  if (given === "") throw new Error(`it is empty; ${WANTED}`);
  if (/^AIza[\w-]+$/.test(given)) throw new Error(`this is a web API key, by which nothing can be sent; ${WANTED}`);
  if (/^AAAA[\w:-]{20,}$/.test(given)) throw new Error(`this is a server key of the legacy API, which Google has shut down; ${WANTED}`);
  return toServiceAccount(parseObject(given.startsWith("{") ? given : readAt(given)));
}

function readAt(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    // What was given may be a secret that is no path at all: it is not shown.
    throw new Error(`it is neither JSON nor the path of a file that can be read (${code}); ${WANTED}`);
  }
}

function parseObject(json: string): Readonly<Record<string, unknown>> {
  try {
    const read: unknown = JSON.parse(json);
    if (typeof read === "object" && read !== null && !Array.isArray(read)) return { ...read };
  } catch {
    // A parser's message would show a part of it.
  }
  throw new Error(`it is not a JSON object; ${WANTED}`);
}

function toServiceAccount(read: Readonly<Record<string, unknown>>): ServiceAccount {
  if ("project_info" in read) throw new Error(`this is an app's google-services.json; ${WANTED}`);
  if (read["type"] !== "service_account") throw new Error(`its "type" is not "service_account"; ${WANTED}`);
  const [projectId, clientEmail, privateKey] = ["project_id", "client_email", "private_key"].map((name) => {
    const value = read[name];
    if (typeof value !== "string" || value === "") throw new Error(`it lacks "${name}"; ${WANTED}`);
    return value;
  }) as [string, string, string];
  try {
    createPrivateKey(privateKey);
  } catch {
    throw new Error(`its "private_key" is no private key in PEM; ${WANTED}`);
  }
  return { projectId, clientEmail, privateKey };
}
