import { OrderStatus } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { serveParent } from "../child.ts";
import { type CallFigures, createGrpcCaller } from "../grpc-caller.ts";
import { drive, type Load } from "../load.ts";
import { createOrderCalls, movedOrder, WALK } from "../order-calls.ts";
import { createIdentifiers } from "../small-entry.ts";
import type { Connection } from "./app.ts";

/** How many orders are under way at a time. */
const UNDER_WAY = 1000;
/** More than any machine is expected to make: for so many, orders are opened before a load begins. */
const MOVES_PER_SECOND = 8000;
const OPENING_IN_FLIGHT = 64;

type Walking = { readonly orderId: string; readonly moved: number };

/** Moves orders along their lives by UpdateStatus, one at random of those under way each time; every call is a real move. */
await serveParent<Connection, Load, CallFigures>(async ({ address, token }) => {
  const caller = createGrpcCaller(address, token);
  const opener = createGrpcCaller(address, token);
  const calls = createOrderCalls(caller);
  const opening = createOrderCalls(opener);
  const identifier = createIdentifiers();
  const fresh: string[] = [];
  const underWay: Walking[] = [];
  let newest = 0n;

  /** Opens orders until there are so many fresh ones. */
  async function open(count: number): Promise<void> {
    async function keepOpening(): Promise<void> {
      while (count-- > 0) {
        const orderId = identifier();
        await opening.open(orderId);
        fresh.push(orderId);
      }
    }
    count -= fresh.length;
    await Promise.all(Array.from({ length: OPENING_IN_FLIGHT }, keepOpening));
  }

  async function moveOne(): Promise<void> {
    const index = Math.floor(Math.random() * underWay.length);
    const { orderId, moved } = underWay[index] as Walking;
    underWay[index] = underWay.at(-1) as Walking;
    underWay.pop();
    const response = await calls.updateStatus(orderId, WALK[moved] as OrderStatus);
    if (moved + 1 < WALK.length) {
      underWay.push({ orderId, moved: moved + 1 });
      return;
    }
    const order = movedOrder(response);
    if (order.currentStatus !== OrderStatus.DELIVERED) throw new Error(`${orderId} was moved to the end and is not DELIVERED`);
    newest = order.position;
    const follower = fresh.pop();
    if (follower === undefined) throw new Error("the orders that were opened have all been delivered: open more");
    underWay.push({ orderId: follower, moved: 0 });
  }

  await open(UNDER_WAY);
  await Promise.all(
    fresh.splice(0).map(async (orderId, index) => {
      const moved = index % WALK.length;
      for (const status of WALK.slice(0, moved)) await opening.updateStatus(orderId, status);
      underWay.push({ orderId, moved });
    }),
  );

  return {
    async answer(load) {
      await open(Math.ceil((MOVES_PER_SECOND * (load.warmUpMs + load.measureMs)) / 1000 / WALK.length));
      const figures = await drive(moveOne, load);
      await opening.untilProjected(newest);
      return { ...figures, ...caller.meanSizes() };
    },
    async close() {
      caller.close();
      opener.close();
    },
  };
});
