import { randomBytes } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Client, createClient, type Interceptor } from "@connectrpc/connect";
import { type Command, InvalidArgumentError } from "commander";
import { issueDevelopmentToken } from "../access/development-token.ts";
import { createDevelopmentKeys } from "../access/keys.ts";
import { type Config, loadConfig } from "../config.ts";
import { DeliveryProvider, OrderStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import type { OrderTracking } from "../gen/ordertrail/v1/order_tracking_pb.js";
import { OrderTrackingService } from "../gen/ordertrail/v1/order_tracking_service_pb.js";
import { parseIdentifier } from "./audit-arguments.ts";
import { EXIT } from "./exit-codes.ts";
import { findInstance } from "./instance.ts";
import { connectTransport, grpcTransport } from "./instance-calls.ts";
import type { CalledInstance } from "./instance-ready.ts";

type Caller = { readonly role: string; readonly subject: string; readonly storeId?: string };
type Door = "gRPC" | "Connect";
type Tracking = Client<typeof OrderTrackingService>;
type Step = {
  readonly what: string;
  readonly by: Caller;
  readonly door: Door;
  readonly take: (tracking: Tracking) => Promise<{ readonly order?: OrderTracking | undefined }>;
};

const CHECKOUT: Caller = { role: "service", subject: "checkout" };
const STORE: Caller = { role: "store", subject: "clerk-1", storeId: "store-1" };
const CUSTOMER: Caller = { role: "customer", subject: "customer-1" };
const UBER: Caller = { role: "partner", subject: "uber" };
const DRIVER: Caller = { role: "driver", subject: "driver-1" };
const TOKEN_SECONDS = 300;

/** Registers `demo`: drives an order through its life against the running instance, and shows each step. */
export function registerDemo(program: Command): void {
  const command = program
    .command("demo")
    .description("drive an order from SUBMITTED to DELIVERED against the running instance, and show each step as it happens")
    .option("--order <id>", "the order_id to use (default: a new one)", parseIdentifier)
    .option("--pause <ms>", "how long to wait between two steps, in milliseconds", wholeNumber, 300);
  command.action(
    async ({ order: orderId = `demo-${randomBytes(4).toString("hex")}`, pause: pauseMs }: { order?: string; pause: number }) => {
      const config = loadConfig();
      const instance = await findInstance(config.dataDir);
      if (!instance?.addresses)
        return command.error(`error: no instance runs with the data in ${config.dataDir}: npm start`, { exitCode: EXIT.notRunning });
      if (config.production)
        return command.error("error: demo makes its own tokens, and production accepts none of those", {
          exitCode: EXIT.failed,
        });
      await drive(
        orderId,
        pauseMs,
        await clientsOf(config, { ...instance, addresses: instance.addresses, tlsFiles: config.cliTls }),
        (line) => command.configureOutput().writeOut?.(line),
      );
    },
  );
}

async function drive(
  orderId: string,
  pauseMs: number,
  clients: (step: Step) => Promise<Tracking>,
  print: (line: string) => void,
): Promise<void> {
  print(
    `order ${orderId}\n\n${"position".padStart(8)}  ${"took".padStart(7)}  ${"status".padEnd(24)}${"by".padEnd(20)}${"over".padEnd(9)}what\n`,
  );
  for (const step of lifeOf(orderId)) {
    const tracking = await clients(step);
    const startedAt = performance.now();
    const { order } = await step.take(tracking);
    if (!order) throw new Error(`the answer to ${step.what} holds no order`);
    const took = `${(performance.now() - startedAt).toFixed(1)} ms`;
    const by = `${step.by.role} ${step.by.subject}`;
    print(
      `${String(order.position).padStart(8)}  ${took.padStart(7)}  ${OrderStatus[order.currentStatus].padEnd(24)}${by.padEnd(20)}${step.door.padEnd(9)}${step.what}\n`,
    );
    await pause(pauseMs);
  }
  print(`\nIts history: npm run -s ordertrail -- log show ${orderId}\n`);
}

/** A client for the caller and the door of a step. */
async function clientsOf(config: Config, instance: CalledInstance): Promise<(step: Step) => Promise<Tracking>> {
  const keys = await createDevelopmentKeys(config.dataDir);
  return async ({ by, door }) => {
    const token = await issueDevelopmentToken(keys, config, { ...by, expiresInSeconds: TOKEN_SECONDS });
    const authorize: Interceptor = (next) => (request) => {
      request.header.set("authorization", `Bearer ${token}`);
      return next(request);
    };
    const interceptors = [authorize];
    const transport = door === "gRPC" ? grpcTransport(instance, interceptors) : connectTransport(instance, interceptors);
    return createClient(OrderTrackingService, transport);
  };
}

function lifeOf(orderId: string): Step[] {
  const apples = { itemId: "apples", name: "Apples", quantity: 1.5, unitPrice: { amountMinor: 349n, currency: "EUR" } };
  const pears = { itemId: "pears", name: "Pears", quantity: 1.5, unitPrice: { amountMinor: 399n, currency: "EUR" } };
  const move = (what: string, by: Caller, status: OrderStatus): Step => ({
    what,
    by,
    door: "gRPC",
    take: (tracking) => tracking.updateStatus({ orderId, status }),
  });
  return [
    {
      what: "the customer checks out",
      by: CHECKOUT,
      door: "gRPC",
      take: (tracking) =>
        tracking.initTracking({
          orderId,
          storeId: "store-1",
          customerId: "customer-1",
          deliveryProvider: DeliveryProvider.UBER,
          items: [apples],
          recipient: { name: "Ada Example", phone: "+4930123456", address: { lines: ["Lindenstraße 1"], city: "Berlin", country: "DE" } },
        }),
    },
    move("the store is told", CHECKOUT, OrderStatus.STORE_NOTIFIED),
    { what: "the store accepts", by: STORE, door: "Connect", take: (tracking) => tracking.acknowledgeOrder({ orderId }) },
    move("picking begins", STORE, OrderStatus.PICKING_IN_PROGRESS),
    {
      what: "apples are sold out: pears instead?",
      by: STORE,
      door: "Connect",
      take: (tracking) =>
        tracking.updateSubstitutions({
          orderId,
          substitutions: [{ substitutionId: "s-1", originalItem: apples, replacementItem: pears, reason: "sold out" }],
        }),
    },
    {
      what: "the customer agrees",
      by: CUSTOMER,
      door: "Connect",
      take: (tracking) => tracking.resolveSubstitutions({ orderId, resolutions: [{ substitutionId: "s-1", approved: true }] }),
    },
    {
      what: "a driver is booked early",
      by: UBER,
      door: "gRPC",
      take: (tracking) => tracking.assignDriver({ orderId, driverDetails: { driverId: "driver-1", name: "Kim", vehicleType: "bicycle" } }),
    },
    move("the order is packed, and goes to the driver", STORE, OrderStatus.READY_FOR_PICKUP),
    move("the driver has the goods", DRIVER, OrderStatus.DRIVER_PICKUP_COMPLETE),
    move("the driver sets out", DRIVER, OrderStatus.IN_TRANSIT),
    {
      what: "the driver is seen on the way",
      by: DRIVER,
      door: "Connect",
      take: (tracking) =>
        tracking.updateLocation({ orderId, latitude: 52.51, longitude: 13.39, speedMps: 4.2, recordedAt: timestampFromMs(Date.now()) }),
    },
    {
      what: "the goods are handed over",
      by: DRIVER,
      door: "gRPC",
      take: (tracking) => tracking.markDelivered({ orderId, proofOfDelivery: { recipientName: "Ada Example", note: "at the door" } }),
    },
  ];
}

function wholeNumber(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError("must be a whole number of milliseconds");
  return Number(text);
}
