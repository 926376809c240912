import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import { BSON } from "mongodb";
import { describe, expect, it } from "vitest";
import type { OrderState } from "../../src/domain/order.ts";
import { DeliveryJobSchema, DriverSchema, OrderDeadlinesSchema } from "../../src/gen/ordertrail/events/v1/order_events_pb.js";
import {
  Deadline,
  DeliveryProvider,
  DriverMilestone,
  ItemSchema,
  MoneySchema,
  OrderStatus,
  Role,
  SealedSchema,
  SubstitutionPolicy,
  SubstitutionStatus,
} from "../../src/gen/ordertrail/events/v1/values_pb.js";
import type { Snapshot } from "../../src/log/transact.ts";
import { fromDocument, type OrderDocument, toChanges, toDocument } from "../../src/projections/order-tracking-document.ts";

/** Values of an enum, and one that only a newer writer knows. */
const anyOf = <Value extends number>(names: Readonly<Record<string, Value | string>>) =>
  fc.constantFrom(...Object.values(names).filter((value) => typeof value === "number"), 99 as Value);
const maybe = <Value>(value: fc.Arbitrary<Value>) => fc.option(value, { nil: undefined });
const text = fc.string({ unit: "binary", maxLength: 20 });
const date = fc.date({ noInvalidDate: true, min: new Date("2000-01-01"), max: new Date("2100-01-01") });
const bytes = fc.uint8Array({ maxLength: 40 });
const sealed = fc.record({ keyId: bytes, nonce: bytes, ciphertext: bytes }).map((parts) => create(SealedSchema, parts as never));
const money = fc
  .record({ amountMinor: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), currency: text })
  .map((parts) => create(MoneySchema, parts));
const quantity = fc.double({ noNaN: true, noDefaultInfinity: true });
const item = fc
  .record({ itemId: text, name: text, quantity, unitPrice: fc.option(money, { nil: undefined }) })
  .map(({ unitPrice, ...parts }) => create(ItemSchema, { ...parts, ...(unitPrice && { unitPrice }) }));
const actor = fc.record({ role: anyOf(Role), subject: text });
const status = anyOf(OrderStatus);
const driver = fc
  .record({ driverId: text, vehicleType: text, personal: maybe(sealed) })
  .map(({ personal, ...parts }) => create(DriverSchema, { ...parts, ...(personal && { personal }) }));
const attempt = fc.integer({ min: 0, max: 1000 });
const delivery = fc
  .record({ providerDeliveryId: text, trackingUrl: text, attempt, fee: maybe(money) })
  .map(({ fee, ...parts }) => create(DeliveryJobSchema, { ...parts, ...(fee && { fee }) }));
const job = fc.record({
  provider: anyOf(DeliveryProvider),
  attempt,
  status: fc.constantFrom(...(["REQUESTED", "ACCEPTED", "DECLINED", "CALLED_OFF", "ENDED"] as const)),
  quoteId: text,
  quotedFee: maybe(money),
  alternatives: fc.array(anyOf(DeliveryProvider), { maxLength: 3 }),
  requestedAt: date,
  delivery: maybe(delivery),
  reason: text,
  overruled: fc.boolean(),
  unanswered: fc.array(fc.record({ provider: anyOf(DeliveryProvider), attempt }), { maxLength: 2 }),
});
const step = fc.record({ status, previousStatus: status, at: date, actor, note: maybe(sealed), inferred: fc.boolean() });
const substitution = fc.record({
  substitutionId: text,
  originalItem: maybe(item),
  replacementItem: maybe(item),
  reason: text,
  status: anyOf(SubstitutionStatus),
  proposedAt: date,
  resolvedAt: maybe(date),
  resolvedBy: maybe(actor),
});
const seconds = fc.nat(1_000_000);
const limits = fc
  .record({
    ...{ acknowledgmentSeconds: seconds, substitutionsSeconds: seconds, driverAssignmentSeconds: seconds, pickupSeconds: seconds },
    ...{ escalationSeconds: seconds, cancelUnacknowledged: fc.boolean() },
  })
  .map((parts) => create(OrderDeadlinesSchema, parts));
const waiting = fc.record({
  ...{ deadline: anyOf(Deadline), since: date, dueAt: date, escalatesAt: date },
  ...{ remindedAt: maybe(date), escalatedAt: maybe(date) },
});
const key = fc.stringMatching(/^[A-Za-z0-9_-]{1,10}$/);
const { metadata } = fc.letrec<{ value: unknown; metadata: Record<string, never> }>((tie) => ({
  value: fc.oneof(fc.constant(null), fc.boolean(), quantity, text, fc.array(tie("value"), { maxLength: 3 }), tie("metadata")),
  metadata: fc.dictionary(key, tie("value") as fc.Arbitrary<never>, { maxKeys: 4, noNullPrototype: true }),
}));

const order: fc.Arbitrary<Snapshot<OrderState>> = fc.record({
  version: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
  position: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  state: fc.record({
    orderId: text,
    storeId: text,
    customerId: text,
    status,
    deliveryProvider: anyOf(DeliveryProvider),
    history: fc.array(step, { maxLength: 5 }),
    milestones: fc.array(fc.record({ milestone: anyOf(DriverMilestone), at: date }), { maxLength: 4 }),
    driver: maybe(driver),
    delivery: maybe(delivery),
    job: maybe(job),
    eta: maybe(date),
    readyAt: maybe(date),
    substitutions: fc.array(substitution, { maxLength: 3 }),
    items: fc.array(item, { maxLength: 5 }),
    recipient: maybe(sealed),
    metadata: maybe(metadata),
    cancellation: maybe(fc.record({ reason: text, actor, at: date, previousStatus: status })),
    proof: maybe(fc.record({ deliveredAt: date, details: maybe(sealed) })),
    lateReports: fc.array(status, { maxLength: 3 }),
    substitutionPolicy: anyOf(SubstitutionPolicy),
    deadlines: maybe(limits),
    waiting: maybe(waiting),
    createdAt: date,
    updatedAt: date,
  }),
});

const stored = (document: OrderDocument) => BSON.deserialize(BSON.serialize(document)) as OrderDocument;

describe("a document of order_tracking", () => {
  it("loses nothing of its order on the way to the database and back", () => {
    fc.assert(
      fc.property(order, (snapshot) => {
        expect(fromDocument(stored(toDocument(snapshot)))).toEqual(snapshot);
      }),
      { numRuns: 300 },
    );
  });

  it("is brought to what the order has become by what has changed alone", () => {
    const parts = Object.keys(fc.sample(order, 1)[0]?.state ?? {});
    fc.assert(
      fc.property(order, order, fc.subarray(parts), (before, other, changed) => {
        const picked = Object.fromEntries(Object.entries(other.state).filter(([part]) => changed.includes(part)));
        const after = { ...other, state: { ...before.state, ...picked } };
        const changes = toChanges(before, after);
        expect({ ...toDocument(before), ...changes }).toEqual(toDocument(after));
        expect(Object.keys(changes).length).toBeLessThanOrEqual(changed.length + 2);
      }),
    );
  });

  it("names statuses, roles and providers as people do, and amounts as 64-bit integers", () => {
    const [snapshot] = fc.sample(order, 1);
    if (!snapshot) throw new Error("there is no sample");
    const price = create(MoneySchema, { amountMinor: 129n, currency: "EUR" });
    const document = toDocument({
      ...snapshot,
      state: {
        ...snapshot.state,
        status: OrderStatus.STORE_NOTIFIED,
        deliveryProvider: DeliveryProvider.UNSPECIFIED,
        items: [create(ItemSchema, { itemId: "milk", unitPrice: price })],
        history: [
          {
            status: OrderStatus.SUBMITTED,
            previousStatus: 0,
            at: new Date(0),
            actor: { role: Role.SERVICE, subject: "s" },
            inferred: false,
          },
        ],
      },
    });
    expect(document.current_status).toBe("STORE_NOTIFIED");
    expect(document.delivery_provider).toBeNull();
    expect(document.status_history[0]).toMatchObject({
      status: "SUBMITTED",
      previous_status: null,
      actor: { role: "SERVICE" },
      note: null,
    });
    expect(BSON.EJSON.stringify(document.items[0]?.unit_price, { relaxed: false })).toBe(
      '{"amount_minor":{"$numberLong":"129"},"currency":"EUR"}',
    );
  });
});
