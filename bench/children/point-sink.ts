import { Server, ServerCredentials, type ServerReadableStream, type sendUnaryData } from "@grpc/grpc-js";
import { serveParent } from "../child.ts";
import { SINK_PATH } from "./send-points.ts";

/** A bare grpc-js server that takes every message of a client stream without looking at it, and answers when there are no more. Answers where it listens. */
await serveParent<object, "address", string>(async () => {
  const asTheyAre = (bytes: Buffer) => bytes;
  const server = new Server();
  server.addService(
    {
      sink: {
        path: SINK_PATH,
        requestStream: true,
        responseStream: false,
        requestSerialize: asTheyAre,
        requestDeserialize: asTheyAre,
        responseSerialize: asTheyAre,
        responseDeserialize: asTheyAre,
      },
    },
    {
      sink(call: ServerReadableStream<Buffer, Buffer>, answer: sendUnaryData<Buffer>) {
        let taken = 0;
        call.on("data", () => taken++);
        call.on("end", () => answer(null, Buffer.from(String(taken))));
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound)));
  });
  return { answer: () => Promise.resolve(`127.0.0.1:${port}`), close: async () => server.forceShutdown() };
});
