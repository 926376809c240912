import { randomBytes } from "node:crypto";
import { Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData } from "@grpc/grpc-js";
import { serveParent } from "../child.ts";
import { ECHO_PATH } from "../grpc-caller.ts";

/** A bare grpc-js server that answers every request with the same bytes, without looking at it. Answers where it listens. */
await serveParent<{ readonly responseBytes: number }, "address", string>(async ({ responseBytes }) => {
  const response = randomBytes(responseBytes);
  const asTheyAre = (bytes: Buffer) => bytes;
  const server = new Server();
  server.addService(
    {
      echo: {
        path: ECHO_PATH,
        requestStream: false,
        responseStream: false,
        requestSerialize: asTheyAre,
        requestDeserialize: asTheyAre,
        responseSerialize: asTheyAre,
        responseDeserialize: asTheyAre,
      },
    },
    { echo: (_: ServerUnaryCall<Buffer, Buffer>, answer: sendUnaryData<Buffer>) => answer(null, response) },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound)));
  });
  return { answer: () => Promise.resolve(`127.0.0.1:${port}`), close: async () => server.forceShutdown() };
});
