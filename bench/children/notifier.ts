import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { MongoClient } from "mongodb";
import { issueDevelopmentToken } from "../../src/access/development-token.ts";
import { createDevelopmentKeys } from "../../src/access/keys.ts";
import { createApp } from "../../src/app.ts";
import { type AppConfig, loadConfig } from "../../src/config.ts";
import { NotificationChannel } from "../../src/gen/ordertrail/events/v1/notification_events_pb.js";
import { NotificationService } from "../../src/gen/ordertrail/v1/notification_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { createLogger, logTo } from "../../src/logger.ts";
import { serveParent } from "../child.ts";

/** To submit orders of customers who like email or SMS; orders one after the other; to tell how many emails were accepted. */
export type NotifierTask =
  | { readonly submit: { readonly email: number; readonly sms: number } }
  | { readonly pace: number; readonly everyMs: number }
  | "accepted";

export type NotifierAnswer = {
  readonly events: readonly { readonly reference: string; readonly atMs: number }[];
  readonly accepted: number;
  /** When the first email was planned and the last one accepted, by the log. */
  readonly firstMs: number;
  readonly lastMs: number;
};

const CUSTOMERS = 100;
const AT_ONCE = 64;
const NOTHING: NotifierAnswer = { events: [], accepted: 0, firstMs: 0, lastMs: 0 };

/** Ordertrail in a process of its own, as the environment says. */
await serveParent<Record<string, string>, NotifierTask, NotifierAnswer>(async (environment) => {
  const read = loadConfig(environment);
  const config: AppConfig = { ...read, mongodbUrl: read.mongodbUrl ?? "" };
  const app = await createApp(config, createLogger(config.logLevel, logTo(join(config.dataDir, "ordertrail.log"))));
  const keys = await createDevelopmentKeys(config.dataDir);
  const token = await issueDevelopmentToken(keys, config, { role: "service", subject: "bench", expiresInSeconds: 3600 });
  const mongo = await new MongoClient(config.mongodbUrl).connect();
  const log = mongo.db(config.databaseName).collection("events", { readConcern: { level: "majority" } });
  const transport = createGrpcTransport({
    baseUrl: `http://${app.addresses.grpc}`,
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${token}`);
        return next(request);
      },
    ],
  });
  const orders = createClient(OrderTrackingService, transport);
  const notifications = createClient(NotificationService, transport);
  let made = 0;

  async function makeCustomers(): Promise<void> {
    const each = async (name: string, channel: NotificationChannel) => {
      for (let index = 0; index < CUSTOMERS; index++)
        await notifications.updatePreferences({
          ...{ customerId: `${name}-${index}`, channels: [channel], email: `${name}-${index}@example.com` },
          phone: `+4915123${String(index + 100_000)}`,
        });
    };
    await each("email", NotificationChannel.EMAIL);
    await each("sms", NotificationChannel.SMS);
  }

  const submit = (customer: string) =>
    orders.initTracking({
      orderId: `order-${made++}`,
      storeId: "store-1",
      customerId: `${customer}-${made % CUSTOMERS}`,
      recipient: { name: "Ada Example" },
    });

  return {
    async answer(task) {
      if (task === "accepted") {
        const own = (types: string) => log.find({ stream: /^notification-/, types }, { projection: { at: 1 } });
        // A message in the app is accepted in the entry that plans it; an email in one of its own.
        const accepted = await log.countDocuments({ stream: /^notification-/, types: ["NotificationAccepted"] });
        const [first] = await own("NotificationPlanned").sort({ _id: 1 }).limit(1).toArray();
        const [last] = await log
          .find({ stream: /^notification-/, types: ["NotificationAccepted"] })
          .sort({ _id: -1 })
          .limit(1)
          .toArray();
        return { ...NOTHING, accepted, firstMs: first?.["at"].getTime() ?? 0, lastMs: last?.["at"].getTime() ?? 0 };
      }
      if (made === 0) await makeCustomers();
      if ("pace" in task) {
        const events = [];
        for (let index = 0; index < task.pace; index++) {
          const { order } = await submit("email");
          if (order?.createdAt)
            events.push({ reference: `${order.position}.customer.email`, atMs: timestampDate(order.createdAt).getTime() });
          await pause(task.everyMs);
        }
        return { ...NOTHING, events };
      }
      // One kind after the other in turn, so that both wait together.
      const names = Array.from({ length: Math.max(task.submit.email, task.submit.sms) }, (_, index) => [
        ...(index < task.submit.email ? ["email"] : []),
        ...(index < task.submit.sms ? ["sms"] : []),
      ]).flat();
      const lane = async () => {
        for (let name = names.shift(); name !== undefined; name = names.shift()) await submit(name);
      };
      await Promise.all(Array.from({ length: AT_ONCE }, lane));
      await pause(500);
      return NOTHING;
    },
    async close() {
      await app.stop();
      await mongo.close();
    },
  };
});
