import { Client, credentials, Metadata } from "@grpc/grpc-js";
import type { LoadFigures } from "./load.ts";

/** The path of the only method of an echo. */
export const ECHO_PATH = "/bench.Echo/Echo";

/** What came of a load of calls, with the mean sizes of their messages. */
export type CallFigures = LoadFigures & { readonly requestBytes: number; readonly responseBytes: number };

/** Calls methods of a gRPC server over one connection, in bytes: what encoding and decoding costs a client is not what is measured. */
export type GrpcCaller = {
  /** Resolves to the response; rejects when the status is not OK. */
  call(path: string, request: Uint8Array): Promise<Uint8Array>;
  /** The mean sizes of all requests and responses so far. */
  meanSizes(): { readonly requestBytes: number; readonly responseBytes: number };
  close(): void;
};

/** A caller that shows the token, if there is one, with each call; of several, one after the other. */
export function createGrpcCaller(address: string, token?: string | readonly string[]): GrpcCaller {
  const client = new Client(address, credentials.createInsecure());
  const tokens = typeof token === "string" ? [token] : (token ?? []);
  const metadata = tokens.length === 0 ? [new Metadata()] : tokens.map(authorizationOf);
  const asTheyAre = (bytes: Buffer) => bytes;
  let begun = 0;
  let calls = 0;
  let requestBytes = 0;
  let responseBytes = 0;
  return {
    call(path, request) {
      return new Promise((resolve, reject) => {
        client.makeUnaryRequest(
          path,
          asTheyAre,
          asTheyAre,
          Buffer.from(request.buffer, request.byteOffset, request.length),
          metadata[begun++ % metadata.length] as Metadata,
          (error, response) => {
            if (error || !response) return reject(error ?? new Error(`${path} was answered with nothing`));
            calls++;
            requestBytes += request.length;
            responseBytes += response.length;
            resolve(response);
          },
        );
      });
    },
    meanSizes: () => ({ requestBytes: Math.round(requestBytes / calls), responseBytes: Math.round(responseBytes / calls) }),
    close: () => client.close(),
  };
}

function authorizationOf(token: string): Metadata {
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  return metadata;
}
