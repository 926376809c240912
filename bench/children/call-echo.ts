import { randomBytes } from "node:crypto";
import { serveParent } from "../child.ts";
import { type CallFigures, createGrpcCaller, ECHO_PATH } from "../grpc-caller.ts";
import { drive, type Load } from "../load.ts";

/** Calls an echo with requests of one size. */
await serveParent<{ readonly address: string; readonly requestBytes: number }, Load, CallFigures>(async ({ address, requestBytes }) => {
  const caller = createGrpcCaller(address);
  const request = randomBytes(requestBytes);
  return {
    answer: async (load) => ({ ...(await drive(() => caller.call(ECHO_PATH, request), load)), ...caller.meanSizes() }),
    close: async () => caller.close(),
  };
});
