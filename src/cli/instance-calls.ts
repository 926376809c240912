import { get as getInTheClear } from "node:http";
import { get as getByTls } from "node:https";
import type { Interceptor, Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { type ClientTlsFiles, readClientTls } from "../tls-files.ts";
import type { InstanceAddresses, ServerNames } from "./instance.ts";

/** A running instance, and with which files it is called where it speaks TLS. */
export type CalledInstance = {
  readonly addresses: InstanceAddresses;
  readonly serverNames?: ServerNames | undefined;
  readonly tlsFiles: ClientTlsFiles;
};

/** A way to the gRPC port of an instance. */
export function grpcTransport({ addresses, serverNames, tlsFiles }: CalledInstance, interceptors: Interceptor[]): Transport {
  const serverName = serverNames?.grpc;
  return serverName === undefined
    ? createGrpcTransport({ baseUrl: `http://${addresses.grpc}`, interceptors })
    : createGrpcTransport({ baseUrl: `https://${addresses.grpc}`, interceptors, nodeOptions: tlsOptions(serverName, tlsFiles) });
}

/** A way to the HTTP port of an instance, by Connect. */
export function connectTransport({ addresses, serverNames, tlsFiles }: CalledInstance, interceptors: Interceptor[]): Transport {
  const options = { baseUrl: addresses.http, httpVersion: "1.1", interceptors } as const;
  const serverName = serverNames?.http;
  return createConnectTransport(serverName === undefined ? options : { ...options, nodeOptions: tlsOptions(serverName, tlsFiles) });
}

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

/** The instance runs on this machine, at an address that its certificate need not name. */
function tlsOptions(serverName: string, tlsFiles: ClientTlsFiles) {
  return { ...readClientTls(tlsFiles), ...(serverName !== "" && { servername: serverName }) };
}
