import { get as getInTheClear, type IncomingMessage } from "node:http";
import { get as getByTls } from "node:https";
import type { ConnectionOptions } from "node:tls";
import { readAtMost } from "../read-at-most.ts";

/** What a server is shown and held to by TLS, where that is not what Node does by itself. */
export type TlsSettings = Pick<ConnectionOptions, "ca" | "cert" | "key" | "servername">;

export type HttpAnswer = { readonly status: number; readonly location: string | undefined; readonly body: Uint8Array };

/**
 * Gets what is at an http or https address; redirections are not followed. Throws an Error that says why nothing was to be had: the address
 * cannot be reached, its certificate is not good, the answer was not there after `timeoutMs`, or is larger than `maxBytes`.
 */
export async function httpGet(
  url: URL,
  {
    headers,
    tls,
    timeoutMs,
    maxBytes,
  }: {
    readonly headers: Readonly<Record<string, string>>;
    readonly tls: TlsSettings;
    readonly timeoutMs: number;
    readonly maxBytes: number;
  },
): Promise<HttpAnswer> {
  const options = { headers, signal: AbortSignal.timeout(timeoutMs) };
  try {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const asked = url.protocol === "https:" ? getByTls(url, { ...options, ...tls }) : getInTheClear(url, options);
      asked.on("response", resolve).on("error", reject);
    });
    const body = await readAtMost(response, maxBytes);
    return { status: response.statusCode ?? 0, location: response.headers.location, body };
  } catch (error) {
    throw new Error(`${url.origin} cannot be read: ${reasonOf(error)}`, { cause: error });
  }
}

/** A name with several addresses fails with one error for each, and what the signal ends with its reason as cause. */
function reasonOf(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(reasonOf).join(", ");
  if (!(error instanceof Error)) return String(error);
  return error.name === "AbortError" && error.cause instanceof Error ? error.cause.message : error.message;
}
