import { fromBinary, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decide, type OrderCommand, type OrderState } from "../../src/domain/order.ts";
import { UNANSWERED } from "../../src/domain/order-delivery.ts";
import { isFinal, MOVES } from "../../src/domain/order-moves.ts";
import { Refusal } from "../../src/domain/refusal.ts";
import { type Event, EventSchema } from "../../src/gen/ordertrail/events/v1/log_entry_pb.js";
import { DeliveryProvider, OrderStatus, Role, SubstitutionStatus } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import {
  acknowledge,
  actor,
  answer,
  assign,
  cancel,
  check,
  deliver,
  delivery,
  fold,
  go,
  INIT,
  LATER,
  NOW,
  propose,
  ROLES,
  refusal,
  STATUSES,
  sealed,
} from "./order-fixtures.ts";

const ids = fc.uniqueArray(fc.constantFrom("s-1", "s-2", "s-3", "s-4"), { minLength: 1, maxLength: 3 });
const providers = fc.constantFrom(DeliveryProvider.UBER, DeliveryProvider.DOORDASH);
const attempts = fc.integer({ min: 1, max: 4 });
const deliveryCommand: fc.Arbitrary<OrderCommand> = fc.oneof(
  fc
    .record({ deliveryProvider: providers, quoteId: fc.constantFrom("", "q-1"), alternatives: fc.array(providers, { maxLength: 2 }) })
    .map((more): OrderCommand => ({ type: "RequestDelivery", ...more })),
  fc
    .record({
      attempt: attempts,
      providerDeliveryId: fc.constantFrom("del-1", "del-2"),
      trackingUrl: fc.constantFrom("", "https://t.example"),
    })
    .map((more): OrderCommand => ({ type: "AcceptDelivery", ...more })),
  fc
    .record({ attempt: attempts, reason: fc.constantFrom("address_undeliverable", UNANSWERED), failOver: fc.boolean() })
    .map((more): OrderCommand => ({ type: "DeclineDelivery", ...more })),
  attempts.map((attempt): OrderCommand => ({ type: "CallOffDelivery", attempt })),
);
const command: fc.Arbitrary<OrderCommand> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .tuple(fc.constantFrom(...STATUSES), fc.option(fc.constant(sealed("note")), { nil: undefined }))
      .map(([status, note]) => go(status, note)),
  },
  { weight: 1, arbitrary: fc.boolean().map((accepted) => acknowledge(accepted, LATER)) },
  { weight: 6, arbitrary: ids.map((chosen) => propose(...chosen)) },
  { weight: 4, arbitrary: fc.tuple(fc.boolean(), ids).map(([approved, chosen]) => answer(approved, ...chosen)) },
  {
    weight: 2,
    arbitrary: fc
      .record({
        id: fc.constantFrom("d-1", "d-2"),
        deliveryProvider: fc.constantFrom(DeliveryProvider.UNSPECIFIED, DeliveryProvider.IN_HOUSE),
        delivery: fc.option(fc.constantFrom(delivery("job-1"), delivery("job-1", 1), delivery("job-2", 2)), { nil: undefined }),
        eta: fc.option(fc.constant(LATER), { nil: undefined }),
      })
      .map(({ id, ...more }) => assign(id, more)),
  },
  { weight: 1, arbitrary: fc.constant(deliver(LATER, sealed("proof"))) },
  { weight: 1, arbitrary: fc.constant(cancel()) },
  { weight: 3, arbitrary: fc.integer({ min: 0, max: 600 }).map((seconds) => check(new Date(NOW.getTime() + seconds * 1000))) },
  { weight: 6, arbitrary: deliveryCommand },
);
/** Those who do most of the work come more often. */
const role = fc.oneof(
  { weight: 2, arbitrary: fc.constantFrom(Role.OPERATOR, Role.PARTNER) },
  { weight: 1, arbitrary: fc.constantFrom(...ROLES) },
);

type Step = (order: OrderState) => readonly [Role, OrderCommand];
const ONWARDS: ReadonlyMap<OrderStatus, OrderCommand> = new Map<OrderStatus, OrderCommand>([
  [OrderStatus.SUBMITTED, go(OrderStatus.STORE_NOTIFIED)],
  [OrderStatus.STORE_NOTIFIED, acknowledge(true)],
  [OrderStatus.STORE_ACKNOWLEDGED, go(OrderStatus.PICKING_IN_PROGRESS)],
  [OrderStatus.PICKING_IN_PROGRESS, go(OrderStatus.READY_FOR_PICKUP)],
  [OrderStatus.SUBSTITUTIONS_NEEDED, go(OrderStatus.READY_FOR_PICKUP)],
  [OrderStatus.READY_FOR_PICKUP, assign("d-1")],
  [OrderStatus.DRIVER_ASSIGNED, go(OrderStatus.DRIVER_PICKUP_COMPLETE)],
  [OrderStatus.DRIVER_PICKUP_COMPLETE, go(OrderStatus.IN_TRANSIT)],
  [OrderStatus.IN_TRANSIT, go(OrderStatus.RETURNING)],
  [OrderStatus.RETURNING, assign("d-2")],
]);
/** Anything at all, or the usual next thing, without which few orders would get anywhere. */
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.tuple(role, command).map((any) => () => any),
  fc.constant((order: OrderState) => [Role.OPERATOR, ONWARDS.get(order.status) ?? cancel()] as const),
);
const life = fc.array(step, { minLength: 10, maxLength: 40 });

const EDGES = new Set(
  MOVES.flatMap(({ from, to }) => (from.length > 0 ? from : [OrderStatus.UNSPECIFIED]).map((before) => `${before}>${to}`)),
);

/** Lives an order's life, refusals left out; `check` sees the state before and after each command that was taken. */
function live(
  steps: readonly Step[],
  check: (step: { before: OrderState; after: OrderState; role: Role; command: OrderCommand; events: Event[] }) => void,
) {
  let order = fold(undefined, decide(undefined, INIT, actor(Role.SERVICE)), Role.SERVICE);
  for (const choose of steps) {
    const [by, asked] = choose(order);
    let events: Event[];
    try {
      events = decide(freeze(order), asked, actor(by));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      continue;
    }
    const after = events.length > 0 ? fold(order, events, by) : order;
    check({ before: order, after, role: by, command: asked, events });
    order = after;
  }
}

function freeze<T>(value: T): T {
  if (typeof value === "object" && value !== null && !ArrayBuffer.isView(value) && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const part of Object.values(value)) freeze(part);
  }
  return value;
}

describe("whatever is asked of an order, in whatever sequence", () => {
  const always = (check: Parameters<typeof live>[1]) =>
    fc.assert(
      fc.property(life, (steps) => live(steps, check)),
      { numRuns: 200 },
    );

  it("the same command a second time brings nothing about", () => {
    always(({ after, role: by, command: asked }) => expect(decide(after, asked, actor(by))).toEqual([]));
  });

  it("its history is one chain that ends in its status", () => {
    always(({ after }) => {
      expect(after.history.map(({ previousStatus }) => previousStatus)).toEqual([
        OrderStatus.UNSPECIFIED,
        ...after.history.slice(0, -1).map(({ status }) => status),
      ]);
      expect(after.history.at(-1)?.status).toBe(after.status);
    });
  });

  it("it goes along the edges of the table", () => {
    always(({ after }) => {
      for (const { previousStatus, status } of after.history) expect(EDGES).toContain(`${previousStatus}>${status}`);
    });
  });

  it("what is final stays final, and late reports change nothing else", () => {
    always(({ before, after, events }) => {
      if (isFinal(before.status)) expect(after.status).toBe(before.status);
      if (events.some(({ kind }) => kind.case === "courierReportRecorded"))
        expect({ ...after, lateReports: before.lateReports }).toEqual(before);
      expect(new Set(after.lateReports).size).toBe(after.lateReports.length);
    });
  });

  it("it is in SUBSTITUTIONS_NEEDED exactly while a proposal is open", () => {
    always(({ after }) => {
      const open = after.substitutions.some(({ status }) => status === SubstitutionStatus.PROPOSED);
      expect(after.status === OrderStatus.SUBSTITUTIONS_NEEDED).toBe(open);
      expect(new Set(after.substitutions.map(({ substitutionId }) => substitutionId)).size).toBe(after.substitutions.length);
    });
  });

  it("no role steps beyond what the table gives it, but that a courier's report implies steps of others", () => {
    always(({ role: by, events }) => {
      for (const { kind, inferred } of events) {
        const expiry =
          kind.case === "substitutionsResolved" && kind.value.resolutions.every(({ status }) => status === SubstitutionStatus.EXPIRED);
        if (!inferred && !expiry) expect(MOVES.some((move) => move.event === kind.case && move.roles.includes(by))).toBe(true);
      }
    });
  });

  it("a note stands on one event that somebody reported", () => {
    always(({ command: asked, events }) => {
      const noted = events.filter(({ note }) => note !== undefined);
      expect(noted.every(({ inferred }) => !inferred)).toBe(true);
      if (events.length > 0) expect(noted.length).toBe(asked.type === "UpdateStatus" && asked.note ? 1 : 0);
    });
  });

  it("its events, read from their bytes, make up the same order", () => {
    fc.assert(
      fc.property(life, (steps) => {
        const bytes: { by: Role; encoded: Uint8Array }[] = [];
        let last: OrderState | undefined;
        live(steps, ({ role: by, events, after }) => {
          for (const event of events) bytes.push({ by, encoded: toBinary(EventSchema, event) });
          last = after;
        });
        let again = fold(undefined, decide(undefined, INIT, actor(Role.SERVICE)), Role.SERVICE);
        for (const { by, encoded } of bytes) again = fold(again, [fromBinary(EventSchema, encoded)], by);
        if (last) expect(again).toEqual(last);
      }),
      { numRuns: 200 },
    );
  });

  it("an auditor changes nothing", () => {
    fc.assert(
      fc.property(life, command, (steps, asked) => {
        live(steps, ({ after }) => expect(refusal(after, asked, Role.AUDITOR).reason).toBe("PERMISSION_DENIED"));
      }),
      { numRuns: 50 },
    );
  });

  it("orders get everywhere in these tests", () => {
    const reached = new Map(STATUSES.map((status) => [status, 0]));
    const count = ({ before, after }: { before: OrderState; after: OrderState }) => {
      if (before.status !== after.status) reached.set(after.status, (reached.get(after.status) ?? 0) + 1);
    };
    fc.assert(
      fc.property(life, (steps) => live(steps, count)),
      { numRuns: 200 },
    );
    reached.delete(OrderStatus.SUBMITTED);
    for (const [status, times] of reached) expect(times, OrderStatus[status]).toBeGreaterThan(0);
  });
});
