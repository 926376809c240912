import { once } from "node:events";
import { fromBinary } from "@bufbuild/protobuf";
import { Client, credentials, Metadata } from "@grpc/grpc-js";
import { StreamLocationsResponseSchema } from "../../src/gen/ordertrail/v1/driver_location_service_pb.js";
import { serveParent } from "../child.ts";
import { createGrpcCaller } from "../grpc-caller.ts";
import { createOrderCalls } from "../order-calls.ts";
import type { Connection } from "./app.ts";
import { ordersUnderWay, pointsMessage } from "./drivers.ts";

/** The path of the only method of a sink. */
export const SINK_PATH = "/bench.Sink/Sink";

/** So many messages on one stream, as fast as they are taken, with so many points each. */
export type PointLoad = { readonly messages: number; readonly pointsEach: number; readonly to: "ordertrail" | "sink" };

export type PointFigures = { readonly perSecond: number };

const ORDERS = 100;
const STREAM_PATH = "/ordertrail.v1.DriverLocationService/StreamLocations";

if (process.argv[1] === import.meta.filename)
  /** Sends points of a hundred orders, encoded beforehand, and measures until all are answered for. */
  await serveParent<Connection & { readonly sinkAddress: string }, PointLoad, PointFigures>(async ({ address, token, sinkAddress }) => {
    const caller = createGrpcCaller(address, token);
    const client = new Client(address, credentials.createInsecure());
    const sink = new Client(sinkAddress, credentials.createInsecure());
    const metadata = new Metadata();
    metadata.set("authorization", `Bearer ${token}`);
    const asTheyAre = (bytes: Buffer) => bytes;
    const orderIds = await ordersUnderWay(createOrderCalls(caller), ORDERS);
    let newestMs = 0;

    function messagesOf({ messages, pointsEach }: PointLoad): Buffer[] {
      let from = Math.max(newestMs + 1, Date.now() - 200_000);
      return Array.from({ length: messages }, (_, n) => {
        const first = (n * pointsEach) % ORDERS;
        if (first === 0) newestMs = ++from;
        return pointsMessage(orderIds.slice(first, first + pointsEach), from);
      });
    }

    async function answer(load: PointLoad): Promise<PointFigures> {
      const messages = messagesOf(load);
      const points = load.messages * load.pointsEach;
      const { promise: taken, resolve, reject } = Promise.withResolvers<number>();
      const started = performance.now();
      const call =
        load.to === "sink"
          ? sink.makeClientStreamRequest(SINK_PATH, asTheyAre, asTheyAre, new Metadata(), (error, answer) =>
              error ? reject(error) : resolve(Number(answer) * load.pointsEach),
            )
          : client
              .makeBidiStreamRequest(STREAM_PATH, asTheyAre, asTheyAre, metadata)
              .on("data", (bytes: Buffer) => {
                const response = fromBinary(StreamLocationsResponseSchema, bytes);
                if (response.final) resolve(Number(response.taken));
              })
              .on("error", reject);
      for (const message of messages) if (!call.write(message)) await once(call, "drain");
      call.end();
      if ((await taken) !== points) throw new Error(`of ${points} points ${await taken} were taken`);
      return { perSecond: (points * 1000) / (performance.now() - started) };
    }

    return {
      answer,
      close: async () => {
        caller.close();
        client.close();
        sink.close();
      },
    };
  });
