import { create } from "@bufbuild/protobuf";
import type { DeliveryRequest } from "../../src/couriers/courier.ts";
import { createDoorDash } from "../../src/couriers/doordash.ts";
import { createInHouse } from "../../src/couriers/in-house.ts";
import { createUber } from "../../src/couriers/uber.ts";
import { MoneySchema } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import type { Stage } from "../../src/sandbox/delivery-engine.ts";
import { type Sandbox, type SandboxOptions, startSandbox } from "../../src/sandbox/sandbox.ts";
import type { Fault } from "../../src/sandbox/sandbox-server.ts";

export const TIMEOUT_MS = 400;

/** What a test asks a provider for. */
export const REQUEST: DeliveryRequest = {
  orderId: "order-1",
  attempt: 1,
  storeId: "store-1",
  pickup: {
    name: "Market",
    phone: "+4930654321",
    address: { lines: ["Marktplatz 1"], city: "Berlin", region: "", postalCode: "10117", country: "DE" },
    latitude: 52.52,
    longitude: 13.41,
    instructions: "",
  },
  dropoff: {
    name: "Ada Example",
    phone: "+4930123456",
    address: { lines: ["Lindenstraße 1", "3rd floor"], city: "Berlin", region: "", postalCode: "10969", country: "DE" },
    instructions: "Ring twice",
  },
  items: [
    { name: "Milk", quantity: 2 },
    { name: "Bananas", quantity: 1.2 },
  ],
  value: create(MoneySchema, { amountMinor: 1299n, currency: "USD" }),
};

/** The real couriers, and the sandbox that they speak to. */
export async function startSandboxed(options: SandboxOptions = {}, clock = () => new Date()) {
  const sandbox: Sandbox = await startSandbox(options);
  return {
    sandbox,
    uber: createUber({ ...sandbox.uber.settings, timeoutMs: TIMEOUT_MS }, clock),
    doordash: createDoorDash({ ...sandbox.doordash.settings, timeoutMs: TIMEOUT_MS }, clock),
    inHouse: createInHouse({ feeMinor: 0, currency: "EUR" }, clock),
    [Symbol.asyncDispose]: () => sandbox[Symbol.asyncDispose](),
  };
}

/** Has the sandbox do something, by its own paths. */
export async function control(baseUrl: string, method: string, path: string, body?: object): Promise<unknown> {
  const response = await fetch(`${baseUrl}/__sandbox/${path}`, { method, ...(body && { body: JSON.stringify(body) }) });
  if (!response.ok) throw new Error(`${path}: ${await response.text()}`);
  return await response.json();
}

export const fail = (baseUrl: string, operation: string, fault: Fault["fault"], times = 1) =>
  control(baseUrl, "POST", "faults", { operation, fault, times });

export const advance = (baseUrl: string, key: string, to: Stage, reason?: string) =>
  control(baseUrl, "POST", `deliveries/${key}/advance`, { to, reason });
