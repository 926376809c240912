import { randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Actor } from "../src/domain/caller.ts";
import { decide, evolve, type OrderCommand, type OrderState, orderStream } from "../src/domain/order.ts";
import { DriverSchema, OrderDeadlinesSchema, ProposedSubstitutionSchema } from "../src/gen/ordertrail/events/v1/order_events_pb.js";
import {
  DeliveryProvider,
  Door,
  type Item,
  ItemSchema,
  OrderStatus,
  Role,
  type Sealed,
  SealedSchema,
  SubstitutionPolicy,
} from "../src/gen/ordertrail/events/v1/values_pb.js";
import { createEntry, type EncodedEntry, encodeEntry } from "../src/log/log-entry.ts";

type Life = { readonly orderId: string; readonly steps: readonly Step[]; state: OrderState | undefined; version: number };
type Step = { readonly actor: Actor; readonly command: OrderCommand };

/** An entry, and how many events it holds. */
export type LivedEntry = { readonly encoded: EncodedEntry; readonly events: number };

const OPEN_ORDERS = 5000;
const BEGINNING_MS = Date.UTC(2025, 0, 1);
const MS_BETWEEN_ENTRIES = 5;

let drawn = Buffer.alloc(0);

const LIMITS = create(OrderDeadlinesSchema, {
  ...{ acknowledgmentSeconds: 300, substitutionsSeconds: 300, driverAssignmentSeconds: 600, pickupSeconds: 1800, escalationSeconds: 300 },
});

const SERVICE: Actor = { role: Role.SERVICE, subject: "checkout" };

/**
 * The entries of orders that live their whole lives, of eleven entries with twelve events each, some thousand of them at the same
 * time, in the order in which their commands came. The domain decides what they hold; the same entries come every time, but for their ids.
 */
export function* orderLives(entries: number): Generator<LivedEntry, void, undefined> {
  const random = createRandom(1);
  const open: Life[] = [];
  let born = 0;
  for (let count = 0; count < entries; count++) {
    const index = Math.floor(random() * OPEN_ORDERS);
    let life = open[index];
    if (!life) {
      life = bear(++born);
      open[index] = life;
    }
    yield live(life, new Date(BEGINNING_MS + count * MS_BETWEEN_ENTRIES));
    if (life.version === life.steps.length) delete open[index];
  }
}

function live(life: Life, at: Date): LivedEntry {
  const step = life.steps[life.version];
  if (!step) throw new Error(`${life.orderId} has lived its life`);
  const { actor, command } = step;
  const events = decide(life.state, command, actor);
  for (const event of events) life.state = evolve(life.state, event, { actor, recordedAt: at });
  life.version++;
  const entry = createEntry({
    entryId: someBytes(16),
    stream: orderStream(life.orderId),
    version: life.version,
    recordedAt: timestampFromDate(at),
    actor,
    door: Door.GRPC,
    method: `ordertrail.v1.OrderTrackingService/${command.type}`,
    requestId: `${life.orderId}-${life.version}`,
    correlationId: `trace-${life.orderId}-${life.version}`,
    events,
  });
  return { encoded: encodeEntry(entry, at), events: events.length };
}

function bear(number: number): Life {
  const orderId = `order-${String(number).padStart(8, "0")}`;
  const customer: Actor = { role: Role.CUSTOMER, subject: `customer-${number % 20_000}` };
  const storeId = `store-${number % 300}`;
  const store: Actor = { role: Role.STORE, subject: storeId };
  const courier: Actor = { role: Role.PARTNER, subject: "uber" };
  const move = (actor: Actor, status: OrderStatus): Step => ({ actor, command: { type: "UpdateStatus", status } });
  const items = [item(number, 1), item(number, 2), item(number, 3)];
  const substitution = create(ProposedSubstitutionSchema, {
    substitutionId: "substitution-1",
    originalItem: item(number, 2),
    replacementItem: item(number, 4),
    reason: "out of stock",
  });
  const driver = create(DriverSchema, { driverId: `driver-${number % 1000}`, vehicleType: "bicycle", personal: sealed(90) });
  const steps: readonly Step[] = [
    {
      actor: SERVICE,
      command: {
        type: "InitTracking",
        orderId,
        storeId,
        customerId: customer.subject,
        deliveryProvider: DeliveryProvider.UBER,
        items,
        recipient: sealed(160),
        metadata: { channel: "app" },
        substitutionPolicy: SubstitutionPolicy.REFUND,
        deadlines: LIMITS,
      },
    },
    move(SERVICE, OrderStatus.STORE_NOTIFIED),
    { actor: store, command: { type: "AcknowledgeOrder", accepted: true, reason: "", readyAt: new Date(BEGINNING_MS + number * 1000) } },
    move(store, OrderStatus.PICKING_IN_PROGRESS),
    { actor: store, command: { type: "ProposeSubstitutions", substitutions: [substitution] } },
    { actor: customer, command: { type: "ResolveSubstitutions", resolutions: [{ substitutionId: "substitution-1", approved: true }] } },
    move(store, OrderStatus.READY_FOR_PICKUP),
    { actor: courier, command: { type: "AssignDriver", driver, deliveryProvider: DeliveryProvider.UBER } },
    move(courier, OrderStatus.DRIVER_PICKUP_COMPLETE),
    move(courier, OrderStatus.IN_TRANSIT),
    { actor: courier, command: { type: "MarkDelivered", deliveredAt: new Date(BEGINNING_MS + number * 1000), proof: sealed(80) } },
  ];
  return { orderId, steps, state: undefined, version: 0 };
}

function item(order: number, line: number): Item {
  const itemId = `item-${(order * 7 + line) % 10_000}`;
  return create(ItemSchema, {
    itemId,
    name: `Organic groceries number ${line}`,
    quantity: line,
    unitPrice: { amountMinor: 199n + BigInt(line), currency: "EUR" },
  });
}

/** Of the size that personal data has when it is sealed; nobody opens it here. */
function sealed(bytes: number): Sealed {
  return create(SealedSchema, { keyId: someBytes(16), nonce: someBytes(12), ciphertext: someBytes(bytes) });
}

/** Random bytes, drawn in bulk: drawing a few at a time would take a fifth of all the time. */
function someBytes(count: number): Uint8Array {
  if (drawn.length < count) drawn = randomBytes(64 * 1024);
  const bytes = drawn.subarray(0, count);
  drawn = drawn.subarray(count);
  return bytes;
}

/** Numbers from 0 to 1 that look random and are the same for the same seed (the generator mulberry32). */
function createRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
