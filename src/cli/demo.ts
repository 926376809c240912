import { randomBytes } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import type { DescService } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Client, createClient, type Interceptor } from "@connectrpc/connect";
import { type Command, InvalidArgumentError, Option } from "commander";
import { issueDevelopmentToken } from "../access/development-token.ts";
import { createDevelopmentKeys } from "../access/keys.ts";
import { type Config, loadConfig } from "../config.ts";
import { DeliveryProvider, OrderStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import { DeliveryService } from "../gen/ordertrail/v1/delivery_service_pb.js";
import { OperationsService } from "../gen/ordertrail/v1/operations_service_pb.js";
import type { OrderTracking } from "../gen/ordertrail/v1/order_tracking_pb.js";
import { OrderTrackingService } from "../gen/ordertrail/v1/order_tracking_service_pb.js";
import { parseIdentifier } from "./audit-arguments.ts";
import { DEMO_PROVIDERS, DEMO_RECIPIENT, type DemoClients, type DemoProvider, followCourier, requestCourier } from "./demo-delivery.ts";
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
const OPERATOR: Caller = { role: "operator", subject: "demo" };
const TOKEN_SECONDS = 300;
const STEPS_UNTIL_PICKING = 4;

type DemoOptions = { readonly order?: string; readonly pause: number; readonly courier?: DemoProvider };

/** Registers `demo`: drives an order through its life against the running instance, and shows each step. */
export function registerDemo(program: Command): void {
  const command = program
    .command("demo")
    .description("drive an order from SUBMITTED to DELIVERED against the running instance, and show each step as it happens")
    .option("--order <id>", "the order_id to use (default: a new one)", parseIdentifier)
    .option("--pause <ms>", "how long to wait between two steps, in milliseconds", wholeNumber, 300)
    .addOption(
      new Option(
        "--courier <provider>",
        "have it delivered by a provider that `start` plays on this machine, and show its driver move; takes half a minute",
      ).choices(Object.keys(DEMO_PROVIDERS)),
    );
  command.action(async ({ order: orderId = `demo-${randomBytes(4).toString("hex")}`, pause: pauseMs, courier }: DemoOptions) => {
    const config = loadConfig();
    const instance = await findInstance(config.dataDir);
    if (!instance?.addresses)
      return command.error(`error: no instance runs with the data in ${config.dataDir}: npm start`, { exitCode: EXIT.notRunning });
    if (config.production)
      return command.error("error: demo makes its own tokens, and production accepts none of those", {
        exitCode: EXIT.failed,
      });
    if (courier && (config.couriers.uber || config.couriers.doordash))
      return command.error("error: there is an account with a delivery provider, and a demonstration sends no real couriers", {
        exitCode: EXIT.failed,
      });
    const clients = await clientsOf(config, { ...instance, addresses: instance.addresses, tlsFiles: config.cliTls });
    const print = (line: string) => command.configureOutput().writeOut?.(line);
    printHead(orderId, print);
    await drive(courier ? lifeUntilPicking(orderId) : lifeOf(orderId), pauseMs, clients, print);
    if (courier) await deliver(orderId, courier, clients, print);
    print(`\nIts history: npm run -s ordertrail -- log show ${orderId}\n`);
  });
}

type Print = (line: string) => void;
type Clients = <Service extends DescService>(service: Service, by: Caller, door: Door) => Promise<Client<Service>>;

function printHead(orderId: string, print: Print): void {
  print(
    `order ${orderId}\n\n${"position".padStart(8)}  ${"took".padStart(7)}  ${"status".padEnd(24)}${"by".padEnd(20)}${"over".padEnd(9)}what\n`,
  );
}

async function drive(steps: readonly Step[], pauseMs: number, clients: Clients, print: Print): Promise<void> {
  for (const step of steps) {
    const tracking = await clients(OrderTrackingService, step.by, step.door);
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
}

/** The rest of the life of an order that is being picked, in the hands of a provider. */
async function deliver(orderId: string, provider: DemoProvider, clients: Clients, print: Print): Promise<void> {
  const line = (order: OrderTracking, by: string, what: string) =>
    print(
      `${String(order.position).padStart(8)}  ${"".padStart(7)}  ${OrderStatus[order.currentStatus].padEnd(24)}${by.padEnd(20)}${"".padEnd(9)}${what}\n`,
    );
  const asked: DemoClients = {
    operator: await clients(OperationsService, OPERATOR, "gRPC"),
    checkout: await clients(DeliveryService, CHECKOUT, "gRPC"),
    customer: await clients(OrderTrackingService, CUSTOMER, "Connect"),
  };
  const requested = await requestCourier(orderId, provider, asked);
  if (requested) line(requested, "service checkout", `a courier of ${provider} is requested`);
  const { order: ready } = await (await clients(OrderTrackingService, STORE, "gRPC")).updateStatus({
    orderId,
    status: OrderStatus.READY_FOR_PICKUP,
  });
  if (ready) line(ready, "store clerk-1", "the order is packed");
  await followCourier(orderId, asked, (order, what) => line(order, provider, what));
}

/** Clients for callers and doors. */
async function clientsOf(config: Config, instance: CalledInstance): Promise<Clients> {
  const keys = await createDevelopmentKeys(config.dataDir);
  return async (service, by, door) => {
    const token = await issueDevelopmentToken(keys, config, { ...by, expiresInSeconds: TOKEN_SECONDS });
    const authorize: Interceptor = (next) => (request) => {
      request.header.set("authorization", `Bearer ${token}`);
      return next(request);
    };
    const interceptors = [authorize];
    const transport = door === "gRPC" ? grpcTransport(instance, interceptors) : connectTransport(instance, interceptors);
    return createClient(service, transport);
  };
}

/** The first steps of a life: until its items are picked. */
function lifeUntilPicking(orderId: string): readonly Step[] {
  return lifeOf(orderId).slice(0, STEPS_UNTIL_PICKING);
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
          recipient: DEMO_RECIPIENT,
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
