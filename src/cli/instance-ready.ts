import { get as getInTheClear } from "node:http";
import { get as getByTls } from "node:https";
import { type ClientTlsFiles, readClientTls } from "../tls-files.ts";
import type { InstanceAddresses, ServerNames } from "./instance.ts";

/** A running instance, and with which files it is called where it speaks TLS. */
export type CalledInstance = {
  readonly addresses: InstanceAddresses;
  readonly serverNames?: ServerNames | undefined;
  readonly tlsFiles: ClientTlsFiles;
};

const READY_TIMEOUT_MS = 3_000;

/** Asks the instance itself, which then asks its database. */
export function isReady({ addresses, serverNames, tlsFiles }: CalledInstance): Promise<boolean> {
  const serverName = serverNames?.http;
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const url = new URL("/readyz", addresses.http);
  const signal = AbortSignal.timeout(READY_TIMEOUT_MS);
  const asked = serverName === undefined ? getInTheClear(url, { signal }) : getByTls(url, { signal, ...tlsOptions(serverName, tlsFiles) });
  asked.on("response", (response) => {
    response.resume();
    resolve(response.statusCode === 200);
  });
  asked.on("error", () => resolve(false));
  return promise;
}

/** For calls by TLS. The instance runs on this machine, at an address that its certificate need not name. */
export function tlsOptions(serverName: string, tlsFiles: ClientTlsFiles) {
  return { ...readClientTls(tlsFiles), ...(serverName !== "" && { servername: serverName }) };
}
