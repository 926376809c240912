import { get as getInTheClear } from "node:http";
import { get as getByTls } from "node:https";
import { json } from "node:stream/consumers";
import { type ClientTlsFiles, readClientTls } from "../tls-files.ts";
import type { InstanceAddresses, ServerNames } from "./instance.ts";

/** A running instance, and with which files it is called where it speaks TLS. */
export type CalledInstance = {
  readonly addresses: InstanceAddresses;
  readonly serverNames?: ServerNames | undefined;
  readonly tlsFiles: ClientTlsFiles;
};

const READY_TIMEOUT_MS = 3_000;

/** What an instance says of itself. */
export type InstanceReadiness = {
  readonly ready: boolean;
  /** The names of the checks that fail; some do not keep it from being ready. */
  readonly failing: readonly string[];
};

/** Whether the instance can do its work. */
export async function isReady(instance: CalledInstance): Promise<boolean> {
  return (await askReadiness(instance)).ready;
}

/** Asks the instance itself, which then asks its database. */
export function askReadiness({ addresses, serverNames, tlsFiles }: CalledInstance): Promise<InstanceReadiness> {
  const serverName = serverNames?.http;
  const { promise, resolve } = Promise.withResolvers<InstanceReadiness>();
  const url = new URL("/readyz", addresses.http);
  const signal = AbortSignal.timeout(READY_TIMEOUT_MS);
  const asked = serverName === undefined ? getInTheClear(url, { signal }) : getByTls(url, { signal, ...tlsOptions(serverName, tlsFiles) });
  asked.on("response", (response) => {
    const ready = response.statusCode === 200;
    json(response).then(
      (report) => resolve({ ready, failing: failingOf(report) }),
      () => resolve({ ready, failing: [] }),
    );
  });
  asked.on("error", () => resolve({ ready: false, failing: [] }));
  return promise;
}

function failingOf(report: unknown): string[] {
  const checks = (report as { checks?: Readonly<Record<string, unknown>> } | null)?.checks ?? {};
  return Object.keys(checks).filter((name) => checks[name] !== "ok");
}

/** For calls by TLS. The instance runs on this machine, at an address that its certificate need not name. */
export function tlsOptions(serverName: string, tlsFiles: ClientTlsFiles) {
  return { ...readClientTls(tlsFiles), ...(serverName !== "" && { servername: serverName }) };
}
