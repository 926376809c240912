import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, it } from "vitest";
import { OrderStatus, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { eventually } from "../support/eventually.ts";
import { startNotifying } from "./notifying.ts";

const SERVICE = { role: Role.SERVICE, subject: "checkout" };
const OPERATOR = { role: Role.OPERATOR, subject: "operator-1" };

describe("a store", () => {
  it("with a system of its own is called there, signed, and the order moves when it has taken the news", async () => {
    await using parts = await startNotifying();
    const { app } = parts;
    await using system = await startSystem();
    const { store } = await app
      .client(OperationsService, "grpc", OPERATOR)
      .putStore({ storeId: "s", name: "Corner shop", webhookUrl: system.url });
    const secret = store?.webhookSecret ?? "";
    expect(secret).toMatch(/^whsec_/);
    const orders = app.client(OrderTrackingService, "grpc", SERVICE);
    await orders.initTracking({ orderId: "o-1", storeId: "s", customerId: "ada" });
    await eventually(async () => {
      const { order } = await orders.getTracking({ orderId: "o-1" });
      expect(order?.statusHistory.map(({ status, actor }) => [status, actor?.role])).toEqual([
        [OrderStatus.SUBMITTED, Role.SERVICE],
        [OrderStatus.STORE_NOTIFIED, Role.SYSTEM],
      ]);
    });
    expect(system.calls).toHaveLength(1);
    const [{ headers, body } = { headers: {}, body: "" }] = system.calls;
    expect(JSON.parse(body)).toMatchObject({ order_id: "o-1" });
    const signed = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`;
    const mac = createHmac("sha256", Buffer.from(secret.slice("whsec_".length), "base64"))
      .update(signed)
      .digest("base64");
    expect(headers["webhook-signature"]).toBe(`v1,${mac}`);
  });

  it("without settings is moved by its integrator, as before", async () => {
    await using parts = await startNotifying();
    const { app, outbox } = parts;
    const orders = app.client(OrderTrackingService, "grpc", SERVICE);
    await orders.initTracking({ orderId: "o-1", storeId: "s", customerId: "ada" });
    const { order } = await orders.updateStatus({ orderId: "o-1", status: OrderStatus.STORE_NOTIFIED });
    expect(order?.currentStatus).toBe(OrderStatus.STORE_NOTIFIED);
    expect(outbox.all()).toEqual([]);
  });
});

async function startSystem() {
  const calls: { readonly headers: IncomingHttpHeaders; readonly body: string }[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      calls.push({ headers: request.headers, body: Buffer.concat(chunks).toString() });
      response.end();
    });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/orders`,
    calls,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
    },
  };
}
