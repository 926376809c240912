import { create } from "@bufbuild/protobuf";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { evolve, type OrderCommand, orderStream } from "../../src/domain/order.ts";
import { EventSchema } from "../../src/gen/ordertrail/events/v1/log_entry_pb.js";
import { DeliveryProvider, OrderStatus, Role, SubstitutionPolicy } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import {
  acknowledge,
  actor,
  answer,
  assign,
  cancel,
  deliver,
  go,
  INIT,
  item,
  LATER,
  LIMITS,
  NOW,
  orderIn,
  propose,
  ROLES,
  refusal,
  STATUSES,
  sealed,
  told,
  when,
} from "./order-fixtures.ts";

describe("an order", () => {
  it("begins as SUBMITTED with all that the customer gave", () => {
    const { order, types } = when(undefined, INIT, Role.SERVICE);
    expect(types).toEqual(["orderSubmitted"]);
    expect(order).toEqual({
      orderId: "order-7",
      storeId: "store-7",
      customerId: "customer-7",
      status: OrderStatus.SUBMITTED,
      deliveryProvider: DeliveryProvider.UBER,
      history: [
        { status: OrderStatus.SUBMITTED, previousStatus: OrderStatus.UNSPECIFIED, at: NOW, actor: actor(Role.SERVICE), inferred: false },
      ],
      substitutions: [],
      items: [item("milk")],
      recipient: sealed("Ada"),
      metadata: { basket: "b-1" },
      substitutionPolicy: SubstitutionPolicy.BEST_MATCH,
      deadlines: LIMITS,
      lateReports: [],
      milestones: [],
      createdAt: NOW,
      updatedAt: NOW,
    });
    expect(orderStream(order.orderId)).toBe("order-order-7");
  });

  it("is submitted by services and operators only, and once only", () => {
    const may: readonly Role[] = [Role.SERVICE, Role.OPERATOR];
    for (const role of ROLES) {
      if (may.includes(role)) {
        expect(when(undefined, INIT, role).types).toEqual(["orderSubmitted"]);
        expect(told(refusal(orderIn(OrderStatus.DELIVERED), INIT, role))).toEqual({ reason: "ORDER_ALREADY_EXISTS", order_id: "order-7" });
      } else {
        expect(told(refusal(undefined, INIT, role))).toEqual({ reason: "PERMISSION_DENIED", move: "submit an order", role: Role[role] });
      }
    }
  });

  it("takes no other command before it is submitted", () => {
    for (const command of [
      go(OrderStatus.STORE_NOTIFIED),
      acknowledge(true),
      propose("s-1"),
      answer(true, "s-1"),
      assign("d-1"),
      deliver(),
      cancel(),
    ]) {
      expect(refusal(undefined, command, Role.OPERATOR).reason).toBe("ORDER_NOT_FOUND");
    }
  });

  it("remembers when the store expects to be ready", () => {
    expect(when(orderIn(OrderStatus.STORE_NOTIFIED), acknowledge(true, LATER), Role.STORE).order.readyAt).toEqual(LATER);
    expect(when(orderIn(OrderStatus.STORE_NOTIFIED), acknowledge(true), Role.STORE).order.readyAt).toBeUndefined();
  });

  it("may be acknowledged again while it is acknowledged, and not later", () => {
    expect(when(orderIn(OrderStatus.STORE_ACKNOWLEDGED), acknowledge(true, LATER), Role.STORE).types).toEqual([]);
    expect(told(refusal(orderIn(OrderStatus.PICKING_IN_PROGRESS), acknowledge(true), Role.STORE))).toMatchObject({
      reason: "INVALID_STATUS_TRANSITION",
      requested_status: "STORE_ACKNOWLEDGED",
    });
  });

  it("is called off by a store that declines it, with the reason", () => {
    const { order, types } = when(orderIn(OrderStatus.STORE_NOTIFIED), acknowledge(false), Role.STORE);
    expect(types).toEqual(["orderCancelled"]);
    expect(order.cancellation).toEqual({ reason: "closed", actor: actor(Role.STORE), at: NOW, previousStatus: OrderStatus.STORE_NOTIFIED });
    expect(when(order, acknowledge(false), Role.STORE).types).toEqual([]);
  });

  it.each([
    ["CancelOrder", cancel("too late")],
    ["UpdateStatus", { type: "UpdateStatus", status: OrderStatus.CANCELLED, reason: "too late" } satisfies OrderCommand],
  ])("keeps why, by whom and from where it was called off by %s", (_, command) => {
    const { order } = when(orderIn(OrderStatus.READY_FOR_PICKUP), command, Role.CUSTOMER);
    expect(order.status).toBe(OrderStatus.CANCELLED);
    expect(order.cancellation).toEqual({
      reason: "too late",
      actor: actor(Role.CUSTOMER),
      at: NOW,
      previousStatus: OrderStatus.READY_FOR_PICKUP,
    });
    expect(when(order, cancel("for another reason"), Role.STORE).order.cancellation?.reason).toBe("too late");
  });

  it.each([
    ["CancelOrder", { type: "CancelOrder", reason: "", note: sealed("my own words") } satisfies OrderCommand],
    ["UpdateStatus", { type: "UpdateStatus", status: OrderStatus.CANCELLED, note: sealed("my own words") } satisfies OrderCommand],
  ])("keeps a person's own words as the note of the step, when called off by %s", (_, command) => {
    const { order } = when(orderIn(OrderStatus.READY_FOR_PICKUP), command, Role.CUSTOMER);
    expect(order.cancellation?.reason).toBe("");
    expect(order.history.at(-1)).toMatchObject({ status: OrderStatus.CANCELLED, note: sealed("my own words") });
    expect(when(order, command, Role.CUSTOMER).types).toEqual([]);
  });

  it("keeps a cancellation without a reason", () => {
    expect(when(orderIn(OrderStatus.SUBMITTED), go(OrderStatus.CANCELLED), Role.SYSTEM).order.cancellation?.reason).toBe("");
  });

  it("is called off by the store but not by the customer while the goods come back", () => {
    const order = orderIn(OrderStatus.RETURNING);
    expect(refusal(order, cancel(), Role.CUSTOMER).reason).toBe("PERMISSION_DENIED");
    expect(when(order, cancel("came back"), Role.STORE).order.cancellation).toMatchObject({
      reason: "came back",
      previousStatus: OrderStatus.RETURNING,
    });
  });

  it("keeps the proof of delivery", () => {
    const { order } = when(orderIn(OrderStatus.IN_TRANSIT), deliver(LATER, sealed("left with Bob")), Role.DRIVER);
    expect(order.proof).toEqual({ deliveredAt: LATER, details: sealed("left with Bob") });
    expect(when(order, deliver(NOW, sealed("somebody else")), Role.DRIVER).types).toEqual([]);
  });

  it("counts as delivered at the time of the report when that names none", () => {
    expect(when(orderIn(OrderStatus.IN_TRANSIT), go(OrderStatus.DELIVERED), Role.DRIVER).order.proof).toEqual({ deliveredAt: NOW });
  });

  it("keeps a note with the step that it is about", () => {
    const { order } = when(orderIn(OrderStatus.STORE_ACKNOWLEDGED), go(OrderStatus.PICKING_IN_PROGRESS, sealed("aisle 3")), Role.STORE);
    expect(order.history.map(({ note }) => note)).toEqual([undefined, undefined, undefined, sealed("aisle 3")]);
  });

  it("tells each step with the status before it", () => {
    const { order } = when(orderIn(OrderStatus.RETURNING), assign("d-2"), Role.PARTNER);
    expect(order.history.slice(-3).map(({ previousStatus, status, actor: { role } }) => [previousStatus, status, role])).toEqual([
      [OrderStatus.DRIVER_PICKUP_COMPLETE, OrderStatus.IN_TRANSIT, Role.SERVICE],
      [OrderStatus.IN_TRANSIT, OrderStatus.RETURNING, Role.SERVICE],
      [OrderStatus.RETURNING, OrderStatus.DRIVER_ASSIGNED, Role.PARTNER],
    ]);
  });
});

describe("evolve", () => {
  const later = { actor: actor(Role.SYSTEM), recordedAt: LATER };

  it.each(STATUSES.map((status) => ({ status, title: OrderStatus[status] })))(
    "changes nothing but the time in $title for an event of a newer writer",
    ({ status }) => {
      const order = orderIn(status);
      expect(evolve(order, create(EventSchema, {}), later)).toEqual({ ...order, updatedAt: LATER });
    },
  );

  it("makes something of every event, even of a first one that cannot be", () => {
    for (const { localName, message } of EventSchema.fields.filter((field) => field.oneof)) {
      const event = create(EventSchema, { kind: { case: localName, value: message && create(message) } } as never);
      for (const state of [undefined, ...STATUSES.map((status) => orderIn(status))]) {
        expect(evolve(state, event, later).updatedAt).toEqual(LATER);
      }
    }
  });

  it("leaves the state before as it was", () => {
    const order = orderIn(OrderStatus.SUBSTITUTIONS_NEEDED);
    const copy = structuredClone(order);
    when(order, cancel(), Role.STORE);
    expect(order).toEqual(copy);
  });

  it("shares what an event does not touch", () => {
    const order = orderIn(OrderStatus.SUBSTITUTIONS_NEEDED);
    const { order: after } = when(order, assign("d-1"), Role.PARTNER);
    expect(after.history).toBe(order.history);
    expect(after.substitutions).toBe(order.substitutions);
    expect(after.items).toBe(order.items);
  });

  it("reads no clock", () => {
    const story = (now: number) => {
      vi.useFakeTimers({ toFake: ["Date"], now });
      return STATUSES.map((status) => orderIn(status));
    };
    onTestFinished(() => void vi.useRealTimers());
    expect(story(0)).toEqual(story(1_000_000));
  });
});
