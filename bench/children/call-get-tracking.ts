import { serveParent } from "../child.ts";
import { type CallFigures, createGrpcCaller } from "../grpc-caller.ts";
import { drive, type Load } from "../load.ts";
import { createOrderCalls, WALK } from "../order-calls.ts";
import { createIdentifiers } from "../small-entry.ts";
import type { Connection } from "./app.ts";

const ORDERS = 500;

/** Reads orders at all stages of their lives by GetTracking, with items, recipient, driver and history, one after the other. */
await serveParent<Connection, Load, CallFigures>(async ({ address, token }) => {
  const caller = createGrpcCaller(address, token);
  const opener = createGrpcCaller(address, token);
  const opening = createOrderCalls(opener);
  const identifier = createIdentifiers();
  const orderIds = await Promise.all(
    Array.from({ length: ORDERS }, async (_, index) => {
      const orderId = identifier();
      await opening.open(orderId);
      for (const status of WALK.slice(0, index % (WALK.length + 1))) await opening.updateStatus(orderId, status);
      return orderId;
    }),
  );
  opener.close();
  const calls = createOrderCalls(caller);
  let read = 0;
  return {
    answer: async (load) => ({
      ...(await drive(() => calls.getTracking(orderIds[read++ % ORDERS] as string), load)),
      ...caller.meanSizes(),
    }),
    close: async () => caller.close(),
  };
});
