import type { Interceptor, Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { type CalledInstance, tlsOptions } from "./instance-ready.ts";

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
