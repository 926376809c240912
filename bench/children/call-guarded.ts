import { serveParent } from "../child.ts";
import { type CallFigures, createGrpcCaller } from "../grpc-caller.ts";
import { drive, type Load } from "../load.ts";
import { createOrderCalls } from "../order-calls.ts";
import type { Guarded } from "./guarded-server.ts";

/** Reads one order by GetTracking, as one caller after the other. */
await serveParent<Guarded, Load, CallFigures>(async ({ address, tokens }) => {
  const caller = createGrpcCaller(address, tokens);
  const calls = createOrderCalls(caller);
  return {
    answer: async (load) => ({ ...(await drive(() => calls.getTracking("order-1"), load)), ...caller.meanSizes() }),
    close: async () => caller.close(),
  };
});
